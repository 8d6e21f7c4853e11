"""Which backend serves a call, and why not another.

Plain Python on tensor metadata: it reads no values, launches nothing and is traced through by
torch.compile.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import extension

log = logging.getLogger("pixelkernels")

BACKENDS = ("cuda", "triton", "cpu", "eager")

# The order in which backends are tried when none was asked for, by device type. An op that measures
# otherwise gets a line of its own under its name, with the committed result that justifies it.
ORDER: dict[str, tuple[str, ...]] = {
    "cuda": ("cuda", "triton", "eager"),
    "cpu": ("cpu", "eager"),
}
FALLBACK_ORDER = ("triton", "eager")

# op -> its backends
WITHOUT_CUDA = ("triton", "cpu", "eager")
IMPLEMENTED: dict[str, tuple[str, ...]] = {
    "region_stats": BACKENDS,
    "cas_loss": BACKENDS,
    "metric_expression_loss": BACKENDS,
    "discriminative_loss": BACKENDS,
    "background_distance": BACKENDS,
    "masked_average_pool": BACKENDS,
    "compact_labels": ("cpu", "eager"),
    "sample_pixels": WITHOUT_CUDA,
    "triplet_hinge": WITHOUT_CUDA,
    "is_triplet_loss": WITHOUT_CUDA,
    "matching_scores": WITHOUT_CUDA,
    "label_transfer": WITHOUT_CUDA,
    "sample_reference": WITHOUT_CUDA,
    "prior_mask": WITHOUT_CUDA,
    "pair_similarity_loss": WITHOUT_CUDA,
    "click_maps": BACKENDS,
    "distance_transform": BACKENDS,
    "next_click": BACKENDS,
    "simulate_clicks": BACKENDS,
}

DTYPES: dict[str, tuple[torch.dtype, ...]] = {
    "cpu": (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    "triton": (torch.float16, torch.bfloat16, torch.float32),
    "cuda": (torch.float16, torch.bfloat16, torch.float32),
}

# Plain globals, which torch.compile guards: a compiled function is traced again when they change.
# It neither traces context variables nor guards thread-locals and os.environ, so the environment is
# read once, at import.
_in_use: str | None = None
_from_environment: str | None = os.environ.get("PIXELKERNELS_BACKEND") or None


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and cannot serve the call; the message says why."""


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Ask for one backend, or None for the default order, in every call inside the block.

    It holds for the whole process, not for the thread.
    """
    global _in_use
    previous, _in_use = _in_use, _known(name, "use_backend")
    try:
        yield
    finally:
        _in_use = previous


def choose(op: str, tensors: tuple[Tensor, ...], backend: str | None) -> str:
    """The backend that serves `op`: the one asked for, or the first usable one in order."""
    asked = requested(backend)
    if asked is not None:
        reasons = why_not(asked, op, tensors)
        if reasons:
            raise BackendUnavailable(_refusal(asked, op, tensors, reasons))
        return asked
    for candidate in order(tensors):
        reasons = why_not(candidate, op, tensors)
        if not reasons:
            return candidate
        if not torch.compiler.is_compiling():
            for reason in reasons:
                _log_once(op, candidate, reason)
    raise AssertionError("unreachable: eager serves every call")


def order(tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
    return ORDER.get(tensors[0].device.type, FALLBACK_ORDER)


def requested(backend: str | None) -> str | None:
    """The backend asked for: by argument, else by `use_backend`, else by PIXELKERNELS_BACKEND."""
    if backend is not None:
        return _known(backend, "backend")
    if _in_use is not None:
        return _in_use
    return _known(_from_environment, "PIXELKERNELS_BACKEND")


def why_not(backend: str, op: str, tensors: tuple[Tensor, ...]) -> list[str]:
    """The reasons why `backend` cannot serve `op` on these tensors; empty where it can."""
    if backend == "eager":
        return []
    reasons = [extension.REASONS[backend]] if extension.REASONS[backend] else []
    if backend not in IMPLEMENTED[op]:
        reasons.append(f"{op} has no {backend} implementation")
    if not torch.compiler.is_compiling() and any(_is_transformed(tensor) for tensor in tensors):
        reasons.append("the tensors are under a torch.func transform, which only eager supports")
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype not in DTYPES[backend]:
            reasons.append(f"dtype {tensor.dtype} is not one of {_names(DTYPES[backend])}")
            break
    device = tensors[0].device
    wanted = _device_type(backend, device)
    if device.type != wanted:
        reasons.append(f"device {device} is not a {wanted} device")
    elif backend == "cuda" and (reason := extension.cuda_device_reason(device.index or 0)):
        reasons.append(reason)
    return reasons


def explain(op: str, *args: Any, **kwargs: Any) -> dict[str, list[str]]:
    """Print, and return, which backend would serve `op(*args, **kwargs)` and why each other one
    would not.

    Example: `pk.explain("region_stats", features, labels, 20)`.
    """
    if not isinstance(op, str) or op not in IMPLEMENTED:
        raise ValueError(f"op: expected one of {', '.join(IMPLEMENTED)}, got {op!r}")
    tensors = tuple(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    if not tensors:
        raise ValueError("explain: expected the tensors of the call after the op's name, got none")
    reasons = {backend: why_not(backend, op, tensors) for backend in BACKENDS}
    asked = requested(kwargs.get("backend"))
    usable = [name for name in order(tensors) if not reasons[name]]
    chosen = asked or usable[0]
    print(f"{op}: {_describe(tensors)}")
    for backend in BACKENDS:
        mark = "->" if backend == chosen else "  "
        print(f"{mark} {backend:7}{'; '.join(reasons[backend]) or 'usable'}")
    return reasons


def available_backends() -> tuple[str, ...]:
    """The backends that this installation can use on this machine's devices."""
    return tuple(backend for backend in BACKENDS if not machine_reasons(backend))


def machine_reasons(backend: str) -> list[str]:
    """Why `backend` can serve no call at all on this machine; empty where it can."""
    reasons = [extension.REASONS[backend]] if extension.REASONS[backend] else []
    if _device_type(backend, torch.device("cuda")) == "cuda" and backend != "eager":
        if not torch.cuda.is_available():
            reasons.append("torch sees no GPU")
        elif backend == "cuda" and (reason := extension.cuda_device_reason(0)):
            reasons.append(reason)
    return reasons


def _device_type(backend: str, device: torch.device) -> str:
    """The type of device that `backend` wants, where the tensors are on `device`."""
    if backend != "triton":
        return device.type if backend == "eager" else backend
    if extension.TRITON_INTERPRETED:
        return "cpu"
    return device.type if device.type in ("cuda", "xpu") else "cuda"


def _known(name: str | None, source: str) -> str | None:
    if name is not None and not (isinstance(name, str) and name in BACKENDS):
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def _is_transformed(tensor: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


@functools.cache
def _log_once(op: str, backend: str, reason: str) -> None:
    log.debug("%s: %s is not used: %s", op, backend, reason)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _describe(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{t.dtype}{list(t.shape)} on {t.device}" for t in tensors)


def _refusal(backend: str, op: str, tensors: tuple[Tensor, ...], reasons: list[str]) -> str:
    return (
        f"{op} on {_describe(tensors)}: backend {backend!r} cannot serve it: {'; '.join(reasons)}"
    )
