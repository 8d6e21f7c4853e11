"""Triplets: which backend serves a call, and what surrounds the operators."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .._core import random as _random
from .._core.dispatch import choose
from .._core.numerics import mean_over_images
from . import ops, reference


def sample_pixels(
    mask: Tensor, num_samples: int, generator: Generator | None, backend: str | None
) -> Tensor:
    chosen = choose("sample_pixels", (mask,), backend)
    inside = mask if mask.dtype == torch.bool else mask != 0
    return _draw(chosen, inside, num_samples, 1, generator)[0]


def triplet_hinge(
    features: Tensor,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    squared: bool,
    eps: float,
    reduction: str,
    backend: str | None,
) -> Tensor:
    chosen = choose("triplet_hinge", (features, anchor, positive, negative), backend)
    pixels = features.shape[2] * features.shape[3]
    given = {"anchor": anchor, "positive": positive, "negative": negative}
    sets = torch.stack([ops.PIXELS[name](one.long(), pixels) for name, one in given.items()], 1)
    hinges = _hinges(chosen, features, sets, margin, squared, eps)
    if reduction == "none":
        return hinges[:, 0]
    return hinges.sum() if reduction == "sum" else _mean(hinges[:, 0], sets)


def is_triplet_loss(
    features: Tensor,
    mask: Tensor,
    num_samples: int,
    margin: float,
    squared: bool,
    eps: float,
    generator: Generator | None,
    backend: str | None,
) -> Tensor:
    chosen = choose("is_triplet_loss", (features, mask), backend)
    # no image has more rows than pixels
    num_samples = torch.sym_max(torch.sym_min(num_samples, mask.shape[1] * mask.shape[2]), 1)
    sides = (mask, ~mask) if mask.dtype == torch.bool else (mask == 1, mask == 0)
    sets = torch.stack(
        [pixels for side in sides for pixels in _draw(chosen, side, num_samples, 2, generator)], 1
    )
    foreground, background = _hinges(chosen, features, sets, margin, squared, eps).unbind(1)
    return 0.5 * (_mean(foreground, sets) + _mean(background, sets))


def _draw(
    chosen: str, mask: Tensor, num_samples: int, sets: int, generator: Generator | None
) -> tuple[Tensor, ...]:
    """Several draws [B, n] of True pixels, each as from a call of its own."""
    if chosen == "eager":
        pixels = mask.flatten(1)
        keys = [_random.uniform(pixels.shape, mask.device, generator) for _ in range(sets)]
        return tuple(reference.sample_pixels(pixels, num_samples, one) for one in keys)
    seeds = torch.cat([_random.seed(mask.device, generator) for _ in range(sets)])
    return ops.draw_pixels(chosen, mask.contiguous(), seeds, num_samples).unbind(1)


def _hinges(
    chosen: str, features: Tensor, sets: Tensor, margin: float, squared: bool, eps: float
) -> Tensor:
    if chosen == "eager":
        return reference.hinges(features, sets, margin, squared, eps)
    return ops.triplet_hinges(chosen, features, sets, margin, squared, eps)[0]


def _mean(hinges: Tensor, sets: Tensor) -> Tensor:
    """Over the rows of an image, then over the images that have any."""
    count = (sets >= 0).all(1).sum(1)
    return mean_over_images(hinges.sum(1) / count.clamp(min=1), count > 0)
