"""Time and extra memory of a call, as this process sees them."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import torch

Call = Callable[[], object]
MIB = 2**20


def milliseconds(call: Call, device: str) -> float:
    """Wall time of one call, until the device has finished it."""
    _finish(device)
    begin = time.perf_counter()
    kept = call()
    _finish(device)
    took = time.perf_counter() - begin
    del kept
    return 1e3 * took


def in_turn(calls: Mapping[str, Call], device: str, rounds: int) -> dict[str, float]:
    """The median time of each call. They alternate, so that a slow moment of the machine meets
    every one.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(milliseconds(call, device))
    return {name: statistics.median(values) for name, values in times.items()}


def extra_mib(call: Call, device: str) -> float | None:
    """MiB that a call holds at its peak on top of what was in use; None where the system does not
    tell.
    """
    gc.collect()
    _finish(device)
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept = call()
        _finish(device)
        del kept
        return (torch.cuda.max_memory_allocated() - before) / MIB
    # memory that the allocator kept from earlier calls would hide what this one needs
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        before = _resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")  # the peak starts again from here
        kept = call()
        del kept
        return (_resident("VmHWM") - before) / MIB
    except (OSError, LookupError):
        return None


def _resident(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return 1024 * int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {field}")


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
