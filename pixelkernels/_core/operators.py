"""Operators: a schema, a fake kernel and a gradient in Python; the work in C++, CUDA or Triton.

CUDA C++ and Triton both serve CUDA tensors, so every operator has two names: `pixelkernels::name`,
which the compiled libraries implement for CPU and CUDA tensors, and `pixelkernels::name_triton`.
They share schema, fake and gradient. An operator may also be made of others, in Python.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_library = torch.library.Library("pixelkernels", "DEF")


class Kernel:
    """One operator. `kernel(backend, *args)` runs the form that belongs to the backend."""

    def __init__(
        self,
        family: str,
        schema: str,
        fake: Callable[..., Any],
        made_of: Callable[..., Any] | None = None,
    ) -> None:
        """`made_of(backend, *args)` does the work of an operator that has no kernel of its own."""
        name, signature = schema.split("(", 1)
        self.names = {"cpu": name, "cuda": name, "triton": f"{name}_triton"}
        for form in (name, f"{name}_triton"):
            _library.define(f"{form}({signature}")
            torch.library.register_fake(f"pixelkernels::{form}", fake, lib=_library)

        def launch(*args: Any) -> Any:
            # Triton is imported by the first call, so that importing the package does not need it.
            return getattr(importlib.import_module(f"pixelkernels.{family}.triton"), name)(*args)

        if made_of is None:
            _library.impl(f"{name}_triton", launch, "CompositeExplicitAutograd")
        else:
            for backend in ("cpu", "triton"):
                run = partial(made_of, backend)
                _library.impl(self.names[backend], run, "CompositeExplicitAutograd")
        self._compiled = getattr(torch.ops.pixelkernels, name).default
        self._triton = getattr(torch.ops.pixelkernels, f"{name}_triton").default

    def __call__(self, backend: str, *args: Any) -> Any:
        return (self._triton if backend == "triton" else self._compiled)(*args)

    def differentiable(self, save: Callable[..., None], backward: Callable[..., Any]) -> None:
        """Register a gradient: `save(ctx, inputs, output)` and `backward(backend, ctx, *grads)`.

        Gradients of unused outputs come as None. The gradient is not itself differentiable: asking
        for a second derivative raises.
        """

        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.set_materialize_grads(False)
            ctx.arity = len(inputs)
            save(ctx, inputs, output)

        # "cpu" stands for the compiled form, whichever device it runs on.
        for backend in ("cpu", "triton"):

            @once_differentiable
            def run(ctx: Any, *grads: Any, backend: str = backend) -> Any:
                if all(grad is None for grad in grads):
                    return (None,) * ctx.arity
                return backward(backend, ctx, *grads)

            torch.library.register_autograd(
                f"pixelkernels::{self.names[backend]}",
                run,
                setup_context=setup_context,
                lib=_library,
            )


def define_check(
    name: str,
    argument: str,
    message: str,
    invalid: Callable[..., Tensor],
    absent: float = 0,
    limit: bool = False,
    surely_valid: Callable[[Tensor], bool] = lambda values: False,
) -> Callable[..., Tensor]:
    """An operator that returns its argument with invalid entries set to `absent`, and on CPU raises
    ValueError for them. With `limit` it takes a number that `invalid` and the message know, too;
    `surely_valid` may save the CPU from asking for each entry.

    Looking at values inside an operator keeps a compiled graph whole; on a device it would stall,
    so there an invalid entry only counts as absent.
    """

    def check(values: Tensor, *limits: int) -> Tensor:
        if values.device.type != "cpu":
            return torch.where(invalid(values, *limits), absent, values).contiguous()
        if not surely_valid(values) and bool((wrong := invalid(values, *limits)).any()):
            expected = message.format(*limits)
            raise ValueError(f"{argument}: {expected}, got {values[wrong][0].item()}")
        return values.clone(memory_format=torch.contiguous_format)

    def save(ctx: Any, inputs: Any, output: Tensor) -> None:
        if output.device.type != "cpu":
            ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if grad.device.type == "cpu":
            return grad
        (values,) = ctx.saved_tensors
        return torch.where(invalid(values), 0, grad)

    _library.define(f"{name}(Tensor values{', SymInt limit' if limit else ''}) -> Tensor")
    _library.impl(name, check, "CompositeExplicitAutograd")
    torch.library.register_fake(
        f"pixelkernels::{name}",
        lambda values, *_: torch.empty(values.shape, dtype=values.dtype, device=values.device),
        lib=_library,
    )
    if not limit:  # limits are of integers, which have no gradient
        torch.library.register_autograd(
            f"pixelkernels::{name}", backward, setup_context=save, lib=_library
        )
    checked = getattr(torch.ops.pixelkernels, name).default
    torch.library.register_vmap(
        f"pixelkernels::{name}",
        lambda info, dims, *inputs: (checked(*inputs), dims[0]),
        lib=_library,
    )
    return checked


def to_kernel_dtype(labels: Tensor) -> Tensor:
    """The labels, contiguous, in a dtype that the kernels are compiled for."""
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        labels = labels.long()
    return labels.contiguous()


nonnegative = define_check(
    "nonnegative",
    "weights",
    "expected no negative value",
    lambda weights: weights < 0,
    # NaN is not negative, but hides what is
    surely_valid=lambda weights: weights.numel() > 0 and bool(weights.amin() >= 0),
)
