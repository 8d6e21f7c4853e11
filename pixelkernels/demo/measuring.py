"""Time and extra memory of a call, as this process sees them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from pixelkernels.testing.memory import peak_resident

Call = Callable[[], object]
Result = TypeVar("Result")
MIB = 2**20


def milliseconds(call: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Wall time of one call, until the device has finished it; and what it returned."""
    _finish(device)
    begin = time.perf_counter()
    result = call()
    _finish(device)
    return 1e3 * (time.perf_counter() - begin), result


def in_turn(calls: Mapping[str, Call], device: str, rounds: int) -> dict[str, float]:
    """The median time of each call. They alternate, so that a slow moment of the machine meets
    every one.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(milliseconds(call, device)[0])
    return {name: statistics.median(values) for name, values in times.items()}


def extra_mib(call: Call, device: str) -> float | None:
    """MiB that a call holds at its peak on top of what was in use; None where that is unknown.

    The median of three, because the system counts whatever else the process does meanwhile.
    """
    peak = peak_resident if device == "cpu" else _peak_allocated
    try:
        return statistics.median(peak(call) for _ in range(3)) / MIB
    except (OSError, LookupError):
        return None


def _peak_allocated(call: Call) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = call()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
