"""Extra memory of a call, as the system counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# of malloc.h, with what malloc itself comes to in a process that frees large tensors
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SETTLED = {M_TRIM_THRESHOLD: 64 << 20, M_MMAP_THRESHOLD: 32 << 20}
# what is as large as this and does not fit into a hole of malloc's heap has pages of its own
LARGE = 1 << 20


def peak_resident(call: Callable[[], object]) -> int:
    """Bytes that a call adds at its peak to what this process has resident.

    What malloc holds from earlier calls goes back to the system first: it would hide what this call
    needs. Raises OSError or LookupError where the system does not tell.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with _no_holes(), _no_collection():
        before = _resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")  # the peak starts again from here
        kept = call()
        peak = _resident("VmHWM")
        del kept
    return peak - before


class _Heap(ctypes.Structure):
    """glibc's mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@contextmanager
def _no_holes() -> Iterator[None]:
    """While this lasts glibc's heap has no room for anything large.

    Calls before may have left holes there, and what is allocated in one stays resident when it is
    freed: a call's memory would depend on who was there before it.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        yield
        return
    libc.malloc.restype, libc.mallinfo2.restype = ctypes.c_void_p, _Heap
    libc.mallopt(M_MMAP_THRESHOLD, LARGE)
    plugs, size = [], 64 * LARGE
    while size >= LARGE:
        before = libc.mallinfo2().hblks
        plug = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
        if libc.mallinfo2().hblks == before:
            plugs.append(plug)
        else:  # there was no hole for it
            libc.free(plug)
            size //= 2
    try:
        yield
    finally:
        for plug in plugs:
            libc.free(plug)
        for option, value in SETTLED.items():
            libc.mallopt(option, value)


@contextmanager
def _no_collection() -> Iterator[None]:
    """While this lasts Python frees no reference cycles, whose memory the call would reuse."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _resident(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return 1024 * int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {field}")
