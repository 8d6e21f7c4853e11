"""The IS-Triplet loss and its two parts: drawing pixels, and the triplet hinge between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import mean_over_images
from .._core.operators import random_seed, random_uniform, to_mask
from . import ops, reference


def sample_pixels(
    mask: Tensor,
    num_samples: int,
    *,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """Draw pixels of each image's mask: uniformly, without replacement, in random order.

    Equivalent eager code, for one image:

        place = mask[b].flatten().nonzero()[:, 0]
        pixels = place[torch.randperm(len(place))[:num_samples]]

    Args:
        mask: [B, H, W], bool or integer; nonzero is inside.
        num_samples: n >= 1.
        generator: on the device of `mask`.

    Returns: [B, n] int64. An image with fewer than n pixels inside gets each of them once, and then
    -1 to the end.

    The pixels inside are counted, not sorted: a random order is a keyed permutation of their ranks.
    Memory: 4 bytes per pixel.
    Source: IS-Triplet, "random sampling with different orders".
    """
    check.mask("mask", mask)
    check.count("num_samples", num_samples)
    check.generator(generator, mask)
    chosen = choose("sample_pixels", (mask,), backend)
    return draw(chosen, to_mask(mask), num_samples, 1, generator)[0]


def draw(
    backend: str, mask: Tensor, num_samples: int, draws: int, generator: Generator | None
) -> tuple[Tensor, ...]:
    """Several draws [B, n] of True pixels, each the same as from a call of its own."""
    if backend == "eager":
        pixels = mask.flatten(1)
        keys = [random_uniform(pixels.shape, mask.device, generator) for _ in range(draws)]
        return tuple(reference.sample_pixels(pixels, num_samples, one) for one in keys)
    seeds = torch.cat([random_seed(mask.device, generator) for _ in range(draws)])
    return ops.draw_pixels(backend, mask.contiguous(), seeds, num_samples).unbind(1)


def triplet_hinge(
    features: Tensor,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 3.0,
    squared: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    backend: str | None = None,
) -> Tensor:
    """The triplet hinge between the pixels of three sets, row by row.

    hinge_k = [d(a_k, p_k) - d(a_k, n_k) + margin]_+ with d(u, v) = |u - v + eps|, or |u - v|^2. For
    one image and the mean this is

        a, p, n = (features[b].flatten(1)[:, i[b]].T for i in (anchor, positive, negative))
        torch.nn.functional.triplet_margin_loss(a, p, n, margin=margin, p=2, eps=eps)

    Args:
        features: [B, C, H, W].
        anchor, positive, negative: [B, K], any integer dtype; a row with a negative one is absent.
        margin: > 0.
        squared: squared distances, without eps.
        eps: >= 0, added to every difference.
        reduction: "mean" over the rows of an image and then over the images that have any, "sum",
            or "none".

    Returns: 0-d, or [B, K] for "none", with 0 in absent rows; 0 where there is no row. As torch has
    it, the gradient at the kink is that of the active side, and that of a distance 0 is 0.
    Differentiable in features. An index past the last pixel raises ValueError on CPU; elsewhere its
    row is absent.
    Memory: 8 bytes per row and set; backward, the gradient.
    Source: IS-Triplet, eq. 4; squared: eqs. 1-3.
    """
    check.features("features", features)
    for name, value in (("anchor", anchor), ("positive", positive), ("negative", negative)):
        check.integers(name, value)
        check.on_device(name, value, features, "features")
        if value.dim() != 2 or value.shape[0] != features.shape[0]:
            raise ValueError(
                f"{name}: expected shape [{features.shape[0]}, K], got {list(value.shape)}"
            )
        if value.shape != anchor.shape:
            raise ValueError(
                f"{name}: expected shape {list(anchor.shape)} as anchor, got {list(value.shape)}"
            )
    _check_hinge(margin, squared, eps)
    check.option("reduction", reduction, ("mean", "sum", "none"))
    chosen = choose("triplet_hinge", (features, anchor, positive, negative), backend)
    pixels = features.shape[2] * features.shape[3]
    given = {"anchor": anchor, "positive": positive, "negative": negative}
    sets = torch.stack([ops.PIXELS[name](one.long(), pixels) for name, one in given.items()], 1)
    hinges = ops.triplet_hinges(chosen, features, sets, margin, squared, eps)[0]
    if reduction == "none":
        return hinges[:, 0]
    return hinges.sum() if reduction == "sum" else _mean(hinges[:, 0], sets)


def is_triplet_loss(
    features: Tensor,
    mask: Tensor,
    *,
    num_samples: int = 5000,
    margin: float = 3.0,
    squared: bool = False,
    eps: float = 1e-6,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """The IS-Triplet loss: foreground pixels near each other, and away from the background.

    With two draws of K foreground pixels, F1 and F2, and two of the background, B1 and B2,

        loss = 1/2 (mean_k [d(F1_k, F2_k) - d(F1_k, B1_k) + margin]_+
                    + mean_k [d(B1_k, B2_k) - d(B1_k, F2_k) + margin]_+)

    exactly as from four calls of `sample_pixels`, in the order F1, F2, B1, B2, cut to K rows, and
    two of `triplet_hinge`. The paper does not say how it reduces over rows; the mean is what keeps
    its margin and weight meaningful for every K.

    Args:
        features: [B, C, H, W].
        mask: [B, H, W], bool or integer: 1 foreground, 0 background, anything else neither.
        num_samples: the most rows per image: K = min(num_samples, foreground, background).
        margin, squared, eps: as in `triplet_hinge`.
        generator: on the device of `mask`.

    Returns: 0-d; the mean over the images that have foreground and background, 0 without any.
    Differentiable in features.
    Memory: 8 bytes per row and set, those of `sample_pixels`; backward, the gradient.
    Source: IS-Triplet, eq. 4; squared: eqs. 1-3.
    """
    check.features("features", features)
    check.per_pixel("mask", check.mask("mask", mask), features)
    check.integer("num_samples", num_samples, minimum=1)
    _check_hinge(margin, squared, eps)
    check.generator(generator, mask)
    chosen = choose("is_triplet_loss", (features, mask), backend)
    # no image has more rows than pixels
    num_samples = torch.sym_max(torch.sym_min(num_samples, mask.shape[1] * mask.shape[2]), 1)
    sides = (mask, ~mask) if mask.dtype == torch.bool else (mask == 1, mask == 0)
    sets = torch.stack(
        [pixels for side in sides for pixels in draw(chosen, side, num_samples, 2, generator)], 1
    )
    hinges = ops.triplet_hinges(chosen, features, sets, margin, squared, eps)[0]
    foreground, background = hinges.unbind(1)
    return 0.5 * (_mean(foreground, sets) + _mean(background, sets))


def _check_hinge(margin: Any, squared: Any, eps: Any) -> None:
    check.positive("margin", margin)
    check.flag("squared", squared)
    check.number("eps", eps, minimum=0)


def _mean(hinges: Tensor, sets: Tensor) -> Tensor:
    """Over the rows of an image, then over the images that have any."""
    count = (sets >= 0).all(1).sum(1)
    return mean_over_images(hinges.sum(1) / count.clamp(min=1), count > 0)


class ISTripletLoss(OptionsModule):
    """`is_triplet_loss` as a module: `ISTripletLoss(**options)(features, mask)`."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return is_triplet_loss(features, mask, **self.options)
