"""The workloads under pytest-benchmark.

    pytest benchmarks/ [--all-workloads] [--device cuda] [-k menet]

A test is one side of one workload; a group holds the sides to compare. Published numbers come from
`benchmarks/run.py`, which times the sides in turn; this plugin cannot.
"""

from __future__ import annotations

import functools
from dataclasses import asdict

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from . import environment, measure
from .case import Case, Side, library_sides, peer_sides
from .registry import WORKLOADS
from .workload import Workload

ROUNDS = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything, device = (metafunc.config.getoption(o) for o in ("--all-workloads", "--device"))
    cases = [
        pytest.param(
            (workload, variant, device),
            mode,
            side,
            id=f"{workload.name}-{variant}-{mode}-{side.name}",
            marks=pytest.mark.benchmark(group=f"{workload.title}, {variant}, {mode}"),
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


def test_speed(
    benchmark: BenchmarkFixture, key: tuple[Workload, str, str], mode: str, side: Side
) -> None:
    if side.missing:
        pytest.skip(side.missing)
    case, device = _case(*key), key[2]
    case.check(side, mode)
    call = case.bind(side, mode)
    measure.warm_up(call)
    floor = case.workload.floor(case.inputs, mode)
    benchmark.extra_info |= {
        "backend": side.name if side.kind == "library" else None,
        "floor_bytes": floor.bytes,
        "floor_operations": floor.operations,
        "extra_mib": None if side.own_memory else measure.extra_memory(call, device),
        "environment": _environment(device),
    }
    if device == "cpu":
        benchmark.pedantic(call, rounds=ROUNDS)
        return
    clock = measure.Clock(device)
    spread = measure.in_turn({"call": call}, clock, measure.Effort(rounds=50, seconds=2))["call"]
    benchmark.extra_info["cuda_events_ms"] = asdict(spread)
    benchmark.pedantic(lambda: clock(call), rounds=ROUNDS)
