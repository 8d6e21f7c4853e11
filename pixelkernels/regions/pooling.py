"""Weighted means over an image: the distance to them, and masked average pooling."""

from __future__ import annotations

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
    normalize: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """Saliency as the distance from the background: S_i = |f_i - sum_j w_j f_j / sum_j w_j|, MEnet
    eq. 5.

    Args:
        features: [B, C, H, W].
        weights: [B, H, W] floating point >= 0, such as the probability of background. A pixel of
            weight exactly 0 does not enter the mean, NaN or not, and that weight's gradient is 0.
            Negative weights raise ValueError on CPU and count as 0 on a device.
        squared: return |.|^2.
        normalize: None, or "minmax": (S - min)/(max - min + 1e-8) per image.

    Returns: [B, H, W], zeros where an image's weights sum to 0. Differentiable in features and
    weights.
    """
    check.features("features", features)
    check.weights("weights", weights, features)
    check.option("normalize", normalize, (None, "minmax"))
    check.flag("squared", squared)
    chosen = choose("background_distance", (features, weights), backend)
    weights = nonnegative(weights.to(torch.promote_types(features.dtype, torch.float32)))
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
    upsample: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """The weighted mean of the features, sum_i w_i f_i / (sum_i w_i + eps), per image: a class
    prototype.

    Args:
        features: [B, C, H, W].
        weights: [B, H, W] floating point >= 0, as for `background_distance`; with `upsample`, [B,
            H', W'].
        upsample: None, or "bilinear": as if the features were resized to the weights' size
            (bilinear, align_corners=False) and pooled there. The weights are resized with the
            adjoint instead, so nothing of that size is made.

    Returns: [B, C]. Differentiable in features and weights. Source: PANet's masked average pooling.
    """
    check.features("features", features)
    check.number("eps", eps, minimum=0)
    check.option("upsample", upsample, (None, "bilinear"))
    check.weights("weights", weights, features, same_size=upsample is None)
    chosen = choose("masked_average_pool", (features, weights), backend)
    weights = nonnegative(weights.to(torch.promote_types(features.dtype, torch.float32)))
    if upsample is not None:
        rows = _interpolation(weights.shape[1], features.shape[2], weights)
        columns = _interpolation(weights.shape[2], features.shape[3], weights)
        # pooling the upsampled features is pooling the features by the adjoint of the upsampling
        weights = product(product(rows.T, weights), columns)
    return ops.weighted_mean(chosen, features, weights.contiguous(), float(eps))[0]


def _interpolation(large: int, small: int, like: Tensor) -> Tensor:
    """[large, small]: bilinear interpolation along one side, align_corners=False, edges clamped."""
    position = (torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (
        small / max(large, 1)
    ) - 0.5
    position = position.clamp(0, max(small - 1, 0))
    cell = torch.arange(small, device=like.device, dtype=like.dtype)
    return (1 - (position[:, None] - cell).abs()).relu()
