"""The workloads of all families: operations at the sizes of the papers."""

from __future__ import annotations

from benchmarks.ops import contrast, distance, matches, regions, similarity, triplet, volumes
from benchmarks.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    *regions.WORKLOADS,
    *distance.WORKLOADS,
    *volumes.WORKLOADS,
    *similarity.WORKLOADS,
    *contrast.WORKLOADS,
    *matches.WORKLOADS,
    *triplet.WORKLOADS,
)
FAMILIES = tuple(dict.fromkeys(workload.family for workload in WORKLOADS))


def select(
    only: str | None = None, family: str | None = None, *, quick: bool = False
) -> list[Workload]:
    """The workloads of a family whose name contains `only`; with `quick`, those of --quick."""
    return [
        workload
        for workload in WORKLOADS
        if (only is None or only in workload.name)
        and (family is None or family == workload.family)
        and (workload.quick or not quick)
    ]
