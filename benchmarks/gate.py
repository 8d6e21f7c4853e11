"""Fail where the library has lost its lead over plain code: for CI, within a minute.

    python benchmarks/gate.py

Each gate times the default side of one workload in turn with the plain peers that it names and
holds the ratio to about half of what the committed results show. Times are never compared over
runs or machines, so that a slow machine passes; a kernel that is no longer vectorised does not. A
ratio too small is measured once more. Exit status 1 if it stays so, or if a result is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.case import Case, Side, WrongResult, library_sides, peer_sides
from benchmarks.registry import WORKLOADS
from benchmarks.table import aligned
from benchmarks.workload import BOTH, FORWARD, Workload

EFFORT = measure.Effort(rounds=15, seconds=2)
HEADER = ("", "mode", "best peer", "its ms", "ours, ms", "ratio", "at least", "")


@dataclass(frozen=True)
class Gate:
    """The least ratio on a workload's first input.

    Peers have names, so that a package that happens to be installed does not move the ratio.
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


@dataclass(frozen=True)
class Timing:
    """Milliseconds of the best peer and of the library."""

    peer: str
    theirs: float
    ours: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def decide(gate: Gate, timing: Callable[[], Timing]) -> tuple[Timing, bool]:
    """The timing that counts, and whether it passes: the second, if the first does not."""
    first = timing()
    if first.ratio >= gate.least:
        return first, True
    second = timing()
    return second, second.ratio >= gate.least


def applies(capability: str) -> bool:
    """Whether the machine has the instructions that the ratios are those of.

    Torch is asked, not the library, which may have lost them.
    """
    return capability in ("AVX2", "AVX512")


def workload_of(gate: Gate) -> Workload:
    return next(workload for workload in WORKLOADS if workload.name == gate.workload)


def sides_of(gate: Gate, case: Case) -> tuple[Side, list[Side]]:
    """The library's default, and the peers."""
    ours = next(s for s in library_sides(case.workload, case.inputs, slow=True) if s.default)
    peers = peer_sides(case.workload, "cpu", compiled=False)
    return ours, [peer for peer in peers if peer.name in gate.peers]


def timed(gate: Gate) -> Callable[[], Timing]:
    """A call that times the sides, whose results are right; else WrongResult."""
    workload = workload_of(gate)
    variant = workload.variants[0]
    case = Case(workload, variant, workload.inputs(variant))
    ours, peers = sides_of(gate, case)
    calls = {}
    for side in (ours, *peers):
        if side.missing:
            raise WrongResult(f"{side.name} is {side.missing}")
        case.check(side, gate.mode)
        calls[side.name] = case.bind(side, gate.mode)
        measure.warm_up(calls[side.name])

    def timing() -> Timing:
        spread = measure.in_turn(calls, measure.Clock("cpu"), EFFORT)
        best = min((peer.name for peer in peers), key=lambda name: spread[name].p20)
        return Timing(best, spread[best].p20, spread[ours.name].p20)

    return timing


def line(gate: Gate, timing: Timing, passed: bool) -> list[str]:
    times = f"{timing.theirs:.2f}", f"{timing.ours:.2f}", f"{timing.ratio:.2f}", f"{gate.least:g}"
    return [gate.workload, gate.mode, timing.peer, *times, "" if passed else "TOO SLOW"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    capability = torch.backends.cpu.get_cpu_capability()
    if not applies(capability):
        print(f"gate.py does not apply: the ratios are those of AVX2, this machine: {capability}")
        return 0
    lines, failed = [], []
    for gate in GATES:
        try:
            timing, passed = decide(gate, timed(gate))
            lines.append(line(gate, timing, passed))
        except WrongResult as error:
            passed = False
            lines.append([gate.workload, f"not timed: {error}"])
        failed += [] if passed else [gate.workload]
    print(aligned(HEADER, lines))
    if failed:
        print(f"gate.py: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
