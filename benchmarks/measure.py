"""Measuring: the time of several calls in turn, extra memory, and the machine's ceilings."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pixelkernels.testing.memory import peak_resident

MIB = 2**20
# Two calls: the first compiles and fills caches, the second may still grow pools.
WARM_UP = 2
# A call that takes longer, in seconds, has little left to warm up.
LONG = 1.0
# Seconds that a side runs before a call of it counts, on the CPU. Torch and compiled code have
# threads each. Those of the side before spin for a while after their work; those of the next one
# have to be woken, which on virtual machines takes longer than many a call.
SETTLE = 0.02
# A call so many times as long has settled on its way.
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
    """How often to repeat: at most `rounds`, and after `least` no longer than `seconds`.

    After two rounds it is enough in any case once `limit` seconds are over. A call that takes more
    than `patience` seconds is not timed at all.
    """

    rounds: int
    seconds: float
    least: int = 3
    limit: float = 60
    patience: float = 30


class Clock:
    """Times single calls on one device, in milliseconds.

    On CUDA the time is between two events on the stream, and the L2 cache is cold: a buffer larger
    than it is written first, which also gives the host time to get ahead of the device. On the CPU
    it is the last of several calls, and caches are as the one before left them.
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
    times = times_in_turn(calls, clock, effort)
    return {name: Spread.of(values) for name, values in times.items()}


def times_in_turn(
    calls: Mapping[str, Callable[[], object]], clock: Clock, effort: Effort
) -> dict[str, list[float]]:
    """Time warmed-up calls alternately, so that a slow minute of the machine meets every side."""
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
    return times


def warm_up(call: Callable[[], object]) -> None:
    for _ in range(WARM_UP):
        begin = time.perf_counter()
        call()
        if time.perf_counter() - begin > LONG:
            break


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph: its replay takes the device's time alone, without Python."""
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
    """MiB that a call adds, at its peak, to what was in use; None where it cannot be found out."""
    gc.collect()
    if device == "cuda":
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
    """What this machine reaches: bytes of a copy (read and written), float32 matrix operations."""
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
