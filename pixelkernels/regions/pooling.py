"""Weighted means of an image: the distance to the background mean, and masked average pooling."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.numerics import product
from .._core.operators import nonnegative
from . import ops


def background_distance(
    features: Tensor,
    weights: Tensor,
    *,
    squared: bool = False,
    normalize: Literal["minmax"] | None = None,
    backend: str | None = None,
) -> Tensor:
    """Saliency as the distance from the mean background feature.

    S_i = |f_i - sum_j w_j f_j / sum_j w_j|.

    Args:
        features: [B, C, H, W].
        weights: [B, H, W], bool or floating point >= 0, such as background probabilities. A pixel
            of weight exactly 0 does not enter the mean, even if it is NaN; the gradient in its
            weight is 0 if its features are not finite. A negative weight raises ValueError on CPU
            and counts as 0 on a device; a NaN makes the result of its image NaN.
        squared: return S_i^2.
        normalize: None, or "minmax": (S - min) / (max - min + 1e-8) per image.

    Returns: [B, H, W]; 0 in an image whose weights sum to 0. Differentiable in features and
    weights.
    Source: MEnet eq. 5.

    Example:

        >>> features, background = torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32)
        >>> pk.background_distance(features, background, normalize="minmax").shape
        torch.Size([2, 32, 32])
    """
    check.features("features", features)
    check.weights("weights", weights, "features", features)
    check.option("normalize", normalize, (None, "minmax"))
    check.flag("squared", squared)
    chosen = choose("background_distance", (features, weights), backend)
    weights = _to_kernel(chosen, weights, features)
    distance, *_ = ops.background_distance(chosen, features, weights, bool(squared))
    if normalize is None or distance.numel() == 0:
        return distance
    low, high = distance.amin((1, 2), keepdim=True), distance.amax((1, 2), keepdim=True)
    return (distance - low) / (high - low + 1e-8)


def masked_average_pool(
    features: Tensor,
    weights: Tensor,
    *,
    eps: float = 1e-5,
    upsample: Literal["bilinear"] | None = None,
    backend: str | None = None,
) -> Tensor:
    """The weighted mean of the features of each image: a class prototype.

    sum_i w_i f_i / (sum_i w_i + eps).

    Args:
        features: [B, C, H, W].
        weights: [B, H, W], bool or floating point >= 0, as for `background_distance`;
            [B, H', W'] with `upsample`.
        eps: >= 0.
        upsample: None, or "bilinear": resize the features to the size of the weights (bilinear,
            align_corners=False) and pool there. This is computed by resizing the weights with the
            adjoint of that interpolation, so no features of that size are stored.

    Returns: [B, C]; 0 for an image with 0 in the denominator. Differentiable in features and
    weights.
    Source: the masked average pooling of PANet.

    Example:

        >>> features, mask = torch.randn(2, 16, 32, 32), torch.rand(2, 128, 128)
        >>> pk.masked_average_pool(features, mask, upsample="bilinear").shape
        torch.Size([2, 16])
    """
    check.features("features", features)
    eps = check.number("eps", eps, minimum=0)
    check.option("upsample", upsample, (None, "bilinear"))
    check.weights("weights", weights, "features", features, same_size=upsample is None)
    chosen = choose("masked_average_pool", (features, weights), backend)
    # products with negative weights may have no negative element
    weights = _to_kernel("eager" if upsample else chosen, weights, features)
    if upsample is not None:
        rows = _interpolation(weights.shape[1], features.shape[2], weights)
        columns = _interpolation(weights.shape[2], features.shape[3], weights)
        # sum_i w_i (U f)_i = sum_j (U^T w)_j f_j, and U acts on rows and columns separately
        weights = product(product(rows.T, weights), columns)
    return ops.weighted_mean(chosen, features, weights.contiguous(), eps)[0]


def _to_kernel(backend: str, weights: Tensor, features: Tensor) -> Tensor:
    """The weights in the dtype of sums, contiguous; ValueError for a negative one on the CPU, where
    the compiled kernel checks them itself.
    """
    weights = weights.to(torch.promote_types(features.dtype, torch.float32))
    return weights.contiguous() if backend == "cpu" else nonnegative(weights)


def _interpolation(large: int, small: int, like: Tensor) -> Tensor:
    """[large, small]: linear interpolation along one side, align_corners=False."""
    position = (torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (
        small / max(large, 1)
    ) - 0.5
    position = position.clamp(0, max(small - 1, 0))
    cell = torch.arange(small, device=like.device, dtype=like.dtype)
    return (1 - (position[:, None] - cell).abs()).relu()
