"""The registry of workloads: the papers' operations and sizes, with their peers and floors."""

from __future__ import annotations

from benchmarks.ops import distance, regions, similarity, triplet
from benchmarks.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    *regions.WORKLOADS,
    *distance.WORKLOADS,
    *similarity.WORKLOADS,
    *triplet.WORKLOADS,
)
FAMILIES = tuple(dict.fromkeys(workload.family for workload in WORKLOADS))


def select(
    only: str | None = None, *, quick: bool = False, family: str | None = None
) -> list[Workload]:
    """The workloads of a family whose name contains `only`; with `quick` those of the short run."""
    chosen = [
        workload
        for workload in WORKLOADS
        if (only is None or only in workload.name)
        and (family is None or family == workload.family)
        and (workload.quick or not quick)
    ]
    if not chosen:
        names = ", ".join(workload.name for workload in WORKLOADS)
        raise ValueError(f"no workload matches {only!r}; there are {names}")
    return chosen
