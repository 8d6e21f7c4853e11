"""Triplets: the operators, their fake kernels and gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._core.numerics import wide
from .._core.operators import Kernel
from . import reference

kernel = partial(Kernel, "triplet")

# mask [B, H, W] bool, seeds [S] int64 -> [B, S, num] int64: for each seed, the first `num` True
# pixels in random order, then -1
draw_pixels = kernel(
    "draw_pixels(Tensor mask, Tensor seeds, SymInt num) -> Tensor",
    lambda mask, seeds, num: seeds.new_empty((mask.shape[0], seeds.shape[0], num)),
)


def _hinge_fake(features: Tensor, sets: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, count, rows = sets.shape
    hinges = wide(features[:0]).new_empty((batch, count - 2, rows))
    return hinges, hinges.new_empty((batch, 2 * (count - 2), rows))


# anchor, positive, negative [B, K] int64 -> [B, 3, K]. On the CPU a flat index that is not below
# `pixels` raises ValueError; on a device, where that would synchronise, its row becomes absent.
def _pixel_sets(anchor: Tensor, positive: Tensor, negative: Tensor, pixels: int) -> Tensor:
    given = {"anchor": anchor, "positive": positive, "negative": negative}
    sets = torch.stack(tuple(given.values()), -2)
    if sets.device.type != "cpu":
        return torch.where(sets >= pixels, -1, sets)
    if sets.numel() and int(sets.amax()) >= pixels:
        for name, one in given.items():
            if (wrong := one[one >= pixels]).numel():
                raise ValueError(f"{name}: expected pixels below {pixels}, got {wrong[0].item()}")
    return sets


def _sets_under_vmap(info: Any, dims: Any, *args: Any) -> tuple[Tensor, int]:
    *sets, pixels = args
    batched = [
        one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)
        for one, dim in zip(sets, dims, strict=False)
    ]
    return pixel_sets("cpu", *batched, pixels), 0


pixel_sets = kernel(
    "pixel_sets(Tensor anchor, Tensor positive, Tensor negative, SymInt pixels) -> Tensor",
    lambda anchor, positive, negative, pixels: anchor.new_empty(
        (*anchor.shape[:-1], 3, anchor.shape[-1])
    ),
    cpu_only=True,
    made_of=lambda backend, *args: _pixel_sets(*args),
)
torch.library.register_vmap("pixelkernels::pixel_sets", _sets_under_vmap)


# features [B, C, H, W]; sets [B, S, K] int64, flat indices, S = 3 or 4 as in reference.HINGES
# -> the hinges [B, S - 2, K], 0 in a row with a negative index; the distances to the positive and
# to the negative of each hinge, [B, 2 (S - 2), K]
triplet_hinges = kernel(
    "triplet_hinges(Tensor features, Tensor sets, float margin, bool squared, float eps)"
    " -> (Tensor hinges, Tensor distances)",
    _hinge_fake,
    eager=lambda *args: (reference.hinges(*args),),
)
triplet_hinges_backward = kernel(
    "triplet_hinges_backward(Tensor grad_hinges, Tensor features, Tensor sets, Tensor distances,"
    " float margin, bool squared, float eps) -> Tensor",
    lambda grad_hinges, features, *rest: torch.empty_like(features),
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    features, sets, ctx.margin, ctx.squared, ctx.eps = inputs
    ctx.save_for_backward(features, sets, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradient(backend: str, ctx: Any, grad_hinges: Tensor, _: None) -> Any:
    gradient = triplet_hinges_backward(
        backend, grad_hinges.contiguous(), *ctx.saved_tensors, ctx.margin, ctx.squared, ctx.eps
    )
    return gradient, None, None, None, None


triplet_hinges.differentiable(_save, _gradient)
