"""Fail if an operation has lost its lead over plain code: a speed check for CI, within a minute.

    python -m benchmarks.gate

Each gate times the default backend alternately with the peers that it names. The ratio must reach
about half of what the committed results show. Times of different runs or machines are never
compared: a slow machine passes, a kernel that is no longer vectorised does not. A ratio below the
limit is measured a second time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks import measure
from benchmarks.case import Case, WrongResult, library_sides, peer_sides
from benchmarks.ops import WORKLOADS
from benchmarks.workload import BOTH, FORWARD

EFFORT = measure.Effort(rounds=15, seconds=2)


@dataclass(frozen=True)
class Gate:
    """The lowest ratio allowed on the first input of a workload.

    Peers are named, so that an optional package does not change the ratio.
    """

    workload: str
    mode: str
    least: float
    peers: tuple[str, ...]


GATES = (
    Gate("distance-transform-davis", FORWARD, 1.5, ("OpenCV precise",)),
    Gate("next-click", FORWARD, 2.5, ("OpenCV precise as RITM",)),
    Gate("region-stats-menet", FORWARD, 2.5, ("eager one hot matmul",)),
    Gate("region-stats-c16-r20", FORWARD, 4.0, ("eager scatter add", "eager one hot matmul")),
    Gate("menet-hard", BOTH, 2.5, ("eager sort", "eager topk per image")),
    Gate("label-transfer-k200", FORWARD, 1.4, ("eager in chunks", "eager in chunks, in place")),
    Gate("sample-pixels", FORWARD, 2.5, ("eager nonzero and randperm",)),
)


def ratios(gate: Gate) -> Iterator[float]:
    """How many times faster than the best peer the library is, measured anew for each value."""
    (workload,) = (workload for workload in WORKLOADS if workload.name == gate.workload)
    case = Case(workload, workload.variants[0], workload.inputs(workload.variants[0]))
    sides = [side for side in library_sides(workload, case.inputs, slow=True) if side.default]
    sides += [s for s in peer_sides(workload, "cpu", compiled=False) if s.name in gate.peers]
    calls = {}
    for side in sides:
        if side.missing:
            raise WrongResult(f"{side.name} is {side.missing}")
        case.check(side, gate.mode)
        calls[side.name] = case.bind(side, gate.mode)
        measure.warm_up(calls[side.name])
    while True:
        spreads = measure.in_turn(calls, measure.Clock("cpu"), EFFORT).values()
        ours, *peers = (spread.p20 for spread in spreads)
        yield min(peers) / ours


def main() -> int:
    # Torch reports the instructions: a broken build of the library may have lost them.
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in ("AVX2", "AVX512"):
        print(f"not checked: the limits are for AVX2, and this machine has {capability}")
        return 0
    failed = False
    for gate in GATES:
        try:
            measured = ratios(gate)
            ratio = next(measured)
            if ratio < gate.least:
                ratio = next(measured)
            verdict = "" if ratio >= gate.least else "TOO SLOW: "
            text = f"{verdict}{ratio:.2f} times faster, at least {gate.least:g} expected"
        except WrongResult as error:
            verdict = text = f"not timed: {error}"
        failed = failed or bool(verdict)
        print(f"{gate.workload:25} {gate.mode:17} {text}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
