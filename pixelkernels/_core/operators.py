"""Operators: schema, fake kernel and gradient in Python; the work in C++, CUDA or Triton.

CUDA C++ and Triton both serve CUDA tensors, so every operator has two names: `pixelkernels::name`,
implemented by the compiled libraries for CPU and CUDA tensors, and `pixelkernels::name_triton`.
The two share schema, fake kernel and gradient.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from . import validation as check

_library = torch.library.Library("pixelkernels", "DEF")


class Kernel:
    """One operator: `kernel(backend, *args)` runs the implementation of that backend."""

    def __init__(
        self,
        family: str,
        schema: str,
        fake: Callable[..., Any],
        *,
        eager: Callable[..., Any] | None = None,
        cpu_only: bool = False,
        made_of: Callable[..., Any] | None = None,
    ) -> None:
        """Define the operator of `schema`.

        Args:
            family: the package whose `triton` has the Triton launcher of the operator's name.
            fake: computes the outputs' metadata.
            eager: the same in plain PyTorch; it may return only the outputs that callers use.
            cpu_only: there is one compiled kernel, for the CPU; other backends run `eager`.
            made_of: `made_of(backend, *args)` composes the result from other operators, in place
                of compiled and Triton kernels.
        """
        name, signature = schema.split("(", 1)
        # "cpu" stands for the compiled form, whichever device it runs on
        self._names = {"cpu": name} if cpu_only else {"cpu": name, "triton": f"{name}_triton"}
        for form in self._names.values():
            _library.define(f"{form}({signature}")
            torch.library.register_fake(f"pixelkernels::{form}", fake, lib=_library)

        def launch(*args: Any) -> Any:
            # The first call imports Triton, so that importing the package does not need it.
            return getattr(importlib.import_module(f"pixelkernels.{family}.triton"), name)(*args)

        if made_of is not None:
            for backend, form in self._names.items():
                _library.impl(form, partial(made_of, backend), "CompositeExplicitAutograd")
        elif not cpu_only:
            _library.impl(f"{name}_triton", launch, "CompositeExplicitAutograd")
        operators = {
            backend: getattr(torch.ops.pixelkernels, form).default
            for backend, form in self._names.items()
        }
        elsewhere = eager if cpu_only else operators["cpu"]
        self._run: dict[str, Any] = {
            "eager": eager,
            "cuda": elsewhere,
            "triton": eager,
            **operators,
        }

    def __call__(self, backend: str, *args: Any) -> Any:
        return self._run[backend](*args)

    def differentiable(self, save: Callable[..., None], backward: Callable[..., Any]) -> None:
        """Register a gradient: `save(ctx, inputs, output)` and `backward(backend, ctx, *grads)`.

        Gradients of unused outputs come as None. The gradient is not itself differentiable: asking
        for a second derivative raises.
        """

        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.set_materialize_grads(False)
            ctx.arity = len(inputs)
            save(ctx, inputs, output)

        for backend, name in self._names.items():

            @once_differentiable
            def run(ctx: Any, *grads: Any, backend: str = backend) -> Any:
                if all(grad is None for grad in grads):
                    return (None,) * ctx.arity
                return backward(backend, ctx, *grads)

            torch.library.register_autograd(
                f"pixelkernels::{name}",
                run,
                setup_context=setup_context,
                lib=_library,
            )


def define_pointwise(
    signature: str, run: Callable[..., Tensor], dtype: torch.dtype | None = None
) -> Callable[..., Tensor]:
    """Define an operator whose result has the shape of its first argument, contiguous, and under
    vmap its batch dimension; its dtype, too, unless one is given.
    """
    name = signature.split("(", 1)[0]
    _library.define(signature)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(
        f"pixelkernels::{name}",
        lambda values, *_: torch.empty(
            values.shape, dtype=dtype or values.dtype, device=values.device
        ),
        lib=_library,
    )
    operator: Callable[..., Tensor] = getattr(torch.ops.pixelkernels, name).default
    torch.library.register_vmap(
        f"pixelkernels::{name}",
        lambda info, dims, *inputs: (operator(*inputs), dims[0]),
        lib=_library,
    )
    return operator


def define_check(
    name: str,
    argument: str,
    message: str,
    invalid: Callable[[Tensor], Tensor],
    absent: float = 0,
    surely_valid: Callable[[Tensor], bool] = lambda values: False,
    flush: bool = False,
) -> Callable[..., Tensor]:
    """An operator that checks values: on CPU, invalid entries raise ValueError.

    Inside an operator, a check of values does not break a compiled graph. On a device it would
    synchronise, so there an invalid entry is only replaced by `absent`.

    Args:
        name: of the operator, which returns its argument contiguous.
        argument, message: for the error.
        invalid: True at invalid entries.
        surely_valid: a cheaper sufficient condition for all values to be valid.
        flush: on CPU, nonnegative subnormal numbers become 0, as in the kernels: PyTorch's products
            of weights are slow with them.
    """

    def check(values: Tensor) -> Tensor:
        if values.device.type != "cpu":
            return torch.where(invalid(values), absent, values).contiguous()
        if not surely_valid(values) and bool((wrong := invalid(values)).any()):
            raise ValueError(f"{argument}: {message}, got {values[wrong][0].item()}")
        if flush:
            info = torch.finfo(values.dtype)
            largest_subnormal = info.smallest_normal * (1 - info.eps)
            return torch.threshold(values, largest_subnormal, 0).contiguous()
        return values.clone(memory_format=torch.contiguous_format)

    def save(ctx: Any, inputs: Any, output: Tensor) -> None:
        if output.device.type != "cpu":
            ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if grad.device.type == "cpu":
            return grad
        (values,) = ctx.saved_tensors
        return torch.where(invalid(values), 0, grad)

    checked = define_pointwise(f"{name}(Tensor values) -> Tensor", check)
    torch.library.register_autograd(
        f"pixelkernels::{name}", backward, setup_context=save, lib=_library
    )
    return checked


nonnegative = define_check(
    "nonnegative",
    "weights",
    "expected no negative value",
    lambda weights: weights < 0,
    # NaN is not negative, but a NaN minimum hides a negative value
    surely_valid=lambda weights: weights.numel() > 0 and bool(weights.amin() >= 0),
    flush=True,
)


# ---- masks ----


def to_mask(name: str, values: Tensor) -> Tensor:
    """True where the mask of that name is not 0. On the CPU, a negative value raises ValueError."""
    if values.dtype == torch.bool:
        return values
    # `values != 0` is the mask; the operator only adds the check
    if values.device.type == "cpu" and values.dtype.is_signed:
        return object_labels(values, name, None) > 0
    return values != 0


Masks = tuple[Tensor | None, Tensor | None]


def masks_of(a: Tensor, b: Tensor, mask_a: Any, mask_b: Any) -> Masks:
    """The masks of features a and b, checked, as bool."""
    if mask_a is not None:
        mask_a = to_mask("mask_a", check.labels("mask_a", mask_a, "a", a))
    if mask_b is not None:
        mask_b = to_mask("mask_b", check.labels("mask_b", mask_b, "b", b))
    return mask_a, mask_b


def flat_masks(masks: Masks) -> Masks:
    """[B, N] and [B, M], contiguous."""
    mask_a, mask_b = (None if mask is None else mask.flatten(1).contiguous() for mask in masks)
    return mask_a, mask_b


def to_object_labels(name: str, values: Tensor, ignore_index: int) -> Tensor:
    """The mask as labels: 1 where it is neither 0 nor `ignore_index`, 0 where it is 0, else -1.

    On the CPU, other negative values raise ValueError, and so does 255 beside other values that are
    not 0: there it is no object but the ignored label of VOC and its kin.
    """
    if values.dtype == torch.bool and ignore_index not in (0, 1):
        return values
    return object_labels(values, name, ignore_index)


def _object_labels(values: Tensor, name: str, ignore_index: int | None) -> Tensor:
    values = to_kernel_dtype(values)
    if values.dtype == torch.bool:
        values = values.byte()
    if values.device.type == "cpu" and values.numel():
        least, most = map(int, values.aminmax())
        if least >= -1 and most <= 1 and ignore_index == -1:
            return values.to(torch.int8, copy=True)  # most masks, in one pass
        refuse_what_is_no_mask(name, values, least, most, ignore_index)
    found = (values != 0).view(torch.int8)
    info = torch.iinfo(values.dtype)
    if ignore_index is not None and info.min <= ignore_index <= info.max:
        # torch would wrap a number outside the dtype
        found.masked_fill_(values == ignore_index, -1)
    return found


def refuse_what_is_no_mask(
    name: str, values: Tensor, least: int, most: int, ignore_index: int | None
) -> None:
    """Raises ValueError for values that no mask has, as `to_object_labels` says.

    `least` and `most` are the least and the greatest of them.
    """
    ignored = values.new_zeros((), dtype=torch.bool)
    if ignore_index is not None and least <= ignore_index <= most:
        ignored = values == ignore_index
    if least < 0 and bool((wrong := (values < 0) & ~ignored).any()):
        other = "" if ignore_index is None else f" but ignore_index={ignore_index}"
        raise ValueError(f"{name}: expected no negative value{other}, got {int(values[wrong][0])}")
    if most >= 255 and ignore_index not in (None, 255):
        others = (values != 0) & (values != 255) & ~ignored
        if bool(others.any()) and bool((values == 255).any()):
            raise ValueError(
                f"{name}: expected one value beside 0, or no 255, got {int(values[others][0])} and"
                " 255; to leave out the pixels of 255, pass ignore_index=255"
            )


object_labels = define_pointwise(
    "object_labels(Tensor values, str name, int? ignore_index) -> Tensor",
    _object_labels,
    torch.int8,
)


# ---- arguments in the form that operators take ----


def to_kernel_dtype(labels: Tensor) -> Tensor:
    """The labels, contiguous, in a dtype that the kernels are compiled for."""
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        labels = labels.long()
    return labels.contiguous()


def to_image(features: Tensor) -> Tensor:
    """[B, D, H, W] as it is, [B, D, N] as [B, D, 1, N]."""
    return features if features.dim() == 4 else features[:, :, None]


def to_scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A 0-d tensor in the dtype in which the features `like` are accumulated."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    if isinstance(value, Tensor):
        return value.to(dtype)
    return torch.full((), value, dtype=dtype, device=like.device)


def random_integers(
    high: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    generator: Generator | None,
) -> Tensor:
    return torch.randint(high, shape, dtype=dtype, device=device, **_given(generator))


def random_uniform(
    shape: tuple[int, ...], device: torch.device, generator: Generator | None
) -> Tensor:
    return torch.rand(shape, device=device, **_given(generator))


def random_seed(device: torch.device, generator: Generator | None) -> Tensor:
    """The seed [1] from which a kernel derives all its random numbers."""
    return random_integers(2**63 - 1, (1,), torch.int64, device, generator)


def _given(generator: Generator | None) -> dict[str, Any]:
    # torch.compile traces no `generator` argument, not even None
    return {} if generator is None else {"generator": generator}
