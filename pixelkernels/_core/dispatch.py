"""The choice of the backend that serves a call, and the reasons against the others.

Plain Python on tensor metadata: it reads no values and launches nothing, so torch.compile traces
through it.
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

# device type -> the order in which backends are tried when none is requested
ORDER: dict[str, tuple[str, ...]] = {
    "cuda": ("cuda", "triton", "eager"),
    "cpu": ("cpu", "eager"),
}
FALLBACK_ORDER = ("triton", "eager")

WITHOUT_CUDA = ("triton", "cpu", "eager")
# op -> the backends that implement it
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
    "pixel_contrast_loss": WITHOUT_CUDA,
    "sample_anchors": ("eager",),
    "mutual_matches": WITHOUT_CUDA,
    "dual_softmax_loss": WITHOUT_CUDA,
    "click_maps": BACKENDS,
    "distance_transform": BACKENDS,
    "expand_labels": BACKENDS,
    "signed_distance": BACKENDS,
    "boundary_loss": BACKENDS,
    "hausdorff_loss": BACKENDS,
    "next_click": BACKENDS,
    "simulate_clicks": BACKENDS,
}

DTYPES: dict[str, tuple[torch.dtype, ...]] = {
    "cpu": (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    "triton": (torch.float16, torch.bfloat16, torch.float32),
    "cuda": (torch.float16, torch.bfloat16, torch.float32),
}

# torch.compile guards plain globals: a compiled function is retraced when they change. It does not
# trace context variables, nor guard thread-locals and os.environ, so the environment is read once,
# at import.
_in_use: str | None = None
_from_environment: str | None = os.environ.get("PIXELKERNELS_BACKEND") or None


class BackendUnavailable(RuntimeError):
    """The requested backend cannot serve the call; the message has the reasons."""


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Request a backend for every call inside the block; None stands for the default order.

    The request holds for the whole process, not only for the current thread.

    Example:

        with pk.use_backend("eager"):
            loss = pk.cas_loss(features, labels, 20)
    """
    global _in_use
    previous, _in_use = _in_use, _known(name, "use_backend")
    try:
        yield
    finally:
        _in_use = previous


def choose(op: str, tensors: tuple[Tensor, ...], backend: str | None) -> str:
    """The backend that serves `op`: the requested one, or else the first usable one."""
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
    """The requested backend: by argument, else by `use_backend`, else by PIXELKERNELS_BACKEND."""
    if backend is not None:
        return _known(backend, "backend")
    if _in_use is not None:
        return _in_use
    return _known(_from_environment, "PIXELKERNELS_BACKEND")


def why_not(backend: str, op: str, tensors: tuple[Tensor, ...]) -> list[str]:
    """The reasons why `backend` cannot serve `op` on these tensors; empty if it can."""
    if backend == "eager":
        return []
    reasons = [extension.REASONS[backend]] if extension.REASONS[backend] else []
    if backend not in IMPLEMENTED[op]:
        reasons.append(f"{op} has no {backend} implementation")
    if not torch.compiler.is_compiling() and any(is_transformed(tensor) for tensor in tensors):
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
    """Print which backend would serve `op(*args, **kwargs)`, and for each the reasons against it.

    Returns: backend -> reasons, an empty list where the backend is usable.

    Example:

        pk.explain("region_stats", features, labels, 20)
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
    """The reasons why `backend` can serve no call on this machine; empty if it can."""
    reasons = [extension.REASONS[backend]] if extension.REASONS[backend] else []
    if _device_type(backend, torch.device("cuda")) == "cuda" and backend != "eager":
        if not torch.cuda.is_available():
            reasons.append("torch sees no GPU")
        elif backend == "cuda" and (reason := extension.cuda_device_reason(0)):
            reasons.append(reason)
    return reasons


def _device_type(backend: str, device: torch.device) -> str:
    """The device type that `backend` needs, for tensors on `device`."""
    if backend != "triton":
        return device.type if backend == "eager" else backend
    if extension.TRITON_INTERPRETED:
        return "cpu"
    return device.type if device.type in ("cuda", "xpu") else "cuda"


def _known(name: str | None, source: str) -> str | None:
    if name is not None and not (isinstance(name, str) and name in BACKENDS):
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def is_transformed(tensor: Tensor) -> bool:
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
