"""Extra memory of a call, as the system counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress

from pixelkernels._extension import _C


def peak_resident(call: Callable[[], object]) -> int:
    """Bytes that a call adds at its peak to what this process has resident.

    What malloc and the library hold from earlier calls goes back to the system first: it would hide
    what this call needs. Raises OSError or LookupError where the system does not tell.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    if _C is not None:
        _C.release_memory()
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # the peak starts again from here
    kept = call()
    peak = _resident("VmHWM")
    del kept
    return peak - before


def _resident(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return 1024 * int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {field}")
