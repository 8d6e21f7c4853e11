"""Measure the time of alternating calls, the extra memory of a call, and the machine's ceilings."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pixelkernels.testing.memory import peak_resident

MIB = 2**20
# The first call compiles and fills caches; the second may still grow memory pools.
WARM_UP = 2
# Seconds; a longer call needs no second warm-up.
LONG = 1.0
# On the CPU a side runs for this many seconds before a call is timed. Torch and torch.compile have
# separate thread pools: the threads of the previous side still spin, and those of the next one have
# to be woken, which on virtual machines takes longer than many calls.
SETTLE = 0.02
# A call that is this many times longer needs no such run.
MUCH_LONGER = 10


@dataclass(frozen=True)
class Spread:
    """Milliseconds: the median, and the 20th and 80th percentiles."""

    p20: float
    p50: float
    p80: float
    rounds: int

    @staticmethod
    def of(milliseconds: list[float]) -> Spread:
        median, rounds = statistics.median(milliseconds), len(milliseconds)
        if rounds == 1:
            return Spread(median, median, median, rounds)
        cuts = statistics.quantiles(milliseconds, n=5, method="inclusive")
        return Spread(cuts[0], median, cuts[-1], rounds)


@dataclass(frozen=True)
class Effort:
    """When to stop: after `rounds`; after `seconds` if at least `least` rounds are done; after
    `limit` seconds if two are. A call of more than `patience` seconds is not timed.
    """

    rounds: int
    seconds: float
    least: int = 3
    limit: float = 60
    patience: float = 30


class Clock:
    """Times single calls on one device, in milliseconds.

    On CUDA: between two events, with a cold L2 cache. A larger buffer is written first, which also
    lets the host run ahead of the device. On the CPU: the last of several calls, with warm caches.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            cache = torch.cuda.get_device_properties(device).L2_cache_size
            self._flush = torch.empty(max(4 * cache, 256 * MIB), dtype=torch.uint8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        if not self._cuda:
            return 1e3 * _settled(call)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        start.record()
        kept = call()
        end.record()
        end.synchronize()
        del kept
        return float(start.elapsed_time(end))


def _settled(call: Callable[[], object]) -> float:
    first = time.perf_counter()
    while True:
        begin = time.perf_counter()
        kept = call()
        took = time.perf_counter() - begin
        del kept
        if begin - first >= SETTLE or took >= MUCH_LONGER * SETTLE:
            return took


def in_turn(
    calls: Mapping[str, Callable[[], object]], clock: Clock, effort: Effort
) -> dict[str, Spread]:
    """Time warmed-up calls alternately, so that a slow phase of the machine affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for done in range(effort.rounds):
            took = time.perf_counter() - begin
            if done >= 2 and took > (effort.seconds if done >= effort.least else effort.limit):
                break
            for name, call in calls.items():
                times[name].append(clock(call))
    finally:
        gc.enable()
    return {name: Spread.of(values) for name, values in times.items()}


def warm_up(call: Callable[[], object]) -> None:
    for _ in range(WARM_UP):
        begin = time.perf_counter()
        call()
        if time.perf_counter() - begin > LONG:
            break


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph: a replay takes the time of the device alone, without Python."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm_up(call)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def extra_memory(call: Callable[[], object], device: str) -> float | None:
    """The peak memory in MiB that a call adds to what was in use; None if it cannot be measured."""
    if device == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        del kept
        return (peak - before) / MIB
    try:
        return peak_resident(call) / MIB
    except (OSError, LookupError):
        return None


def ceilings(device: str) -> dict[str, float]:
    """The measured copy bandwidth (read plus written) and float32 matrix rate of this machine."""
    clock = Clock(device)
    count = 2**28 if device == "cuda" else 2**26
    source, target = torch.ones(count, device=device), torch.zeros(count, device=device)
    side = 8192 if device == "cuda" else 2048
    left, right = torch.randn(2, side, side, device=device)
    calls = {"copy": lambda: target.copy_(source), "matmul": lambda: left @ right}
    for call in calls.values():
        warm_up(call)
    took = in_turn(calls, clock, Effort(rounds=10, seconds=5))
    return {
        "copy_bytes_per_second": 2e3 * source.nbytes / took["copy"].p20,
        "float32_operations_per_second": 2e3 * side**3 / took["matmul"].p20,
    }
