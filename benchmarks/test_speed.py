"""The workloads under pytest-benchmark.

    pytest benchmarks/ [--all-workloads] [--device cuda] [-k menet]

Each test checks one side of a workload and times it; each group holds the sides to compare.
"""

from __future__ import annotations

import functools

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import measure
from benchmarks.case import Case, Side, library_sides, peer_sides
from benchmarks.ops import WORKLOADS
from benchmarks.workload import Workload


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


@functools.lru_cache(maxsize=1)  # the sides of a workload are tested one after the other
def _case(workload: Workload, variant: str, device: str) -> Case:
    torch.compiler.reset()
    return Case(workload, variant, workload.inputs(variant, device))


def test_speed(
    benchmark: BenchmarkFixture, key: tuple[Workload, str, str], mode: str, side: Side
) -> None:
    if side.missing:
        pytest.skip(side.missing)
    (workload, _, device), case = key, _case(*key)
    case.check(side, mode)
    call = case.bind(side, mode)
    measure.warm_up(call)
    floor = workload.floor(case.inputs, mode)
    benchmark.extra_info |= {
        "floor_bytes": floor.bytes,
        "floor_operations": floor.operations,
        "extra_mib": None if side.own_memory else measure.extra_memory(call, device),
    }

    def finished() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark(finished)
