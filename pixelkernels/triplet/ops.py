"""Triplets: the operators, their fake kernels and gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._core.numerics import wide
from .._core.operators import Kernel, define_pointwise
from . import reference

kernel = partial(Kernel, "triplet")

# mask [B, H, W] bool, seeds [S] int64 -> [B, S, num] int64: for each seed, the first `num` True
# pixels in random order, then -1
draw_pixels = kernel(
    "draw_pixels(Tensor mask, Tensor seeds, SymInt num) -> Tensor",
    lambda mask, seeds, num: seeds.new_empty((mask.shape[0], seeds.shape[0], num)),
)


def _check_pixels(index: Tensor, name: str, pixels: int) -> Tensor:
    if index.device.type != "cpu":
        return torch.where(index >= pixels, -1, index).contiguous()
    if index.numel() and (largest := int(index.amax())) >= pixels:
        raise ValueError(f"{name}: expected pixels below {pixels}, got {largest}")
    return index.clone(memory_format=torch.contiguous_format)


# Flat indices, contiguous. On the CPU one that is not below `pixels` raises ValueError; on a
# device, where that would synchronise, it becomes -1. The compiled kernel checks its own indices.
check_pixels = define_pointwise(
    "check_pixels(Tensor index, str name, SymInt pixels) -> Tensor", _check_pixels
)


def _hinge_fake(
    features: Tensor, first: Tensor, second: Tensor, third: Tensor, fourth: Tensor | None, *_: Any
) -> tuple[Tensor, ...]:
    batch, rows = first.shape
    count = 1 if fourth is None else 2
    hinges = wide(features[:0]).new_empty((batch, count, rows))
    return hinges, hinges.new_empty((batch, 2 * count, rows)), hinges.new_empty(batch)


def _hinges_eager(features: Tensor, *args: Any) -> tuple[Tensor, None, Tensor]:
    sets = reference.stack_sets(*args[:4])
    return reference.hinges(features, sets, *args[4:]), None, reference.weights(features, sets)


# features [B, C, H, W]; 3 or 4 sets as in reference.HINGES, [B, K] int64, flat indices, with
# adjacent rows -> the hinges [B, S - 2, K], 0 in an absent row, which has an index outside the
# image; the distances to the positive and to the negative of each hinge, [B, 2 (S - 2), K]; and
# reference.weights [B]
triplet_hinges = kernel(
    "triplet_hinges(Tensor features, Tensor first, Tensor second, Tensor third, Tensor? fourth,"
    " float margin, bool squared, float eps)"
    " -> (Tensor hinges, Tensor distances, Tensor weights)",
    _hinge_fake,
    eager=_hinges_eager,
)
triplet_hinges_backward = kernel(
    "triplet_hinges_backward(Tensor grad_hinges, Tensor features, Tensor first, Tensor second,"
    " Tensor third, Tensor? fourth, Tensor distances, float margin, bool squared, float eps)"
    " -> Tensor",
    lambda grad_hinges, features, *rest: torch.empty_like(features),
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.options = inputs[5:]
    ctx.mark_non_differentiable(*output[1:])


def _gradient(backend: str, ctx: Any, grad_hinges: Tensor, *_: None) -> Any:
    gradient = triplet_hinges_backward(
        backend, grad_hinges.contiguous(), *ctx.saved_tensors, *ctx.options
    )
    return gradient, *(None,) * 7


triplet_hinges.differentiable(_save, _gradient)
