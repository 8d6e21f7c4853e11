"""The workloads under pytest-benchmark.

    pytest benchmarks/ [--all-workloads] [--device cuda] [-k menet]

A test is one side of one workload, a group the sides to compare. The first test of a group times
all its sides in turn, so that a slow minute of the machine meets every one; the plugin, which times
one test after the other, is told those times by a clock that plays them back.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from . import environment, measure
from .case import Case, Side, WrongResult, library_sides, peer_sides
from .registry import WORKLOADS
from .run import graph_time
from .workload import Workload

EFFORT = {
    "cpu": measure.Effort(rounds=11, seconds=3),
    "cuda": measure.Effort(rounds=50, seconds=2),
}


class Playback:
    """A timer: every second call is so many seconds after the one before."""

    def __init__(self) -> None:
        self.left: list[float] = []
        self._running = False

    def __call__(self) -> float:
        self._running = not self._running
        return 0.0 if self._running else self.left.pop(0)


PLAYBACK = Playback()


@dataclass
class Group:
    """What was measured of the sides of one workload, variant and mode."""

    times: dict[str, list[float]]
    info: dict[str, dict[str, object]]
    wrong: dict[str, WrongResult] = field(default_factory=dict)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything, device = (metafunc.config.getoption(o) for o in ("--all-workloads", "--device"))
    cases = [
        pytest.param(
            (workload, variant, device),
            mode,
            side,
            id=f"{workload.name}-{variant}-{mode}-{side.name}",
            marks=pytest.mark.benchmark(
                group=f"{workload.title}, {variant}, {mode}", timer=PLAYBACK
            ),
        )
        for workload in WORKLOADS
        if everything or workload.quick
        for variant in (workload.variants if everything else workload.variants[:1])
        for mode in workload.modes
        for side in _sides(workload, device)
    ]
    metafunc.parametrize(("key", "mode", "side"), cases)


def _sides(workload: Workload, device: str) -> list[Side]:
    tiny = workload.inputs(workload.variants[0], device, shrink=16)
    return library_sides(workload, tiny) + peer_sides(workload, device)


@functools.lru_cache(maxsize=1)  # the oracle of the current group: its tests are neighbours
def _case(workload: Workload, variant: str, device: str) -> Case:
    torch.compiler.reset()
    return Case(workload, variant, workload.inputs(variant, device))


@functools.cache
def _environment(device: str) -> dict[str, object]:
    return environment.describe(device)


@functools.lru_cache(maxsize=1)  # likewise
def _group(workload: Workload, variant: str, device: str, mode: str) -> Group:
    case = _case(workload, variant, device)
    sides = library_sides(workload, case.inputs) + peer_sides(workload, device)
    calls, info, wrong = {}, {}, {}
    floor, clock = workload.floor(case.inputs, mode), measure.Clock(device)
    for side in sides:
        if side.missing:
            continue
        try:
            case.check(side, mode)
        except WrongResult as error:
            wrong[side.name] = error
            continue
        calls[side.name] = call = case.bind(side, mode)
        measure.warm_up(call)
        info[side.name] = {
            "backend": side.name if side.kind == "library" else None,
            "floor_bytes": floor.bytes,
            "floor_operations": floor.operations,
            "extra_mib": None if side.own_memory else measure.extra_memory(call, device),
            "environment": _environment(device),
        }
        if device == "cuda" and not side.waits:
            info[side.name] |= graph_time(call, clock, EFFORT[device])
    return Group(measure.times_in_turn(calls, clock, EFFORT[device]), info, wrong)


def test_speed(
    benchmark: BenchmarkFixture, key: tuple[Workload, str, str], mode: str, side: Side
) -> None:
    if side.missing:
        pytest.skip(side.missing)
    group = _group(*key, mode)
    if side.name in group.wrong:
        raise group.wrong[side.name]
    benchmark.extra_info |= group.info[side.name]
    PLAYBACK.left = [1e-3 * milliseconds for milliseconds in group.times[side.name]]
    benchmark.pedantic(lambda: None, rounds=len(PLAYBACK.left))
