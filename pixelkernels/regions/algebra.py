"""Regions: the losses and poolings as algebra on what the operators return.

They read the features through the operators alone; what is left is arithmetic on [B, R, C].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.dispatch import choose
from .._core.distributed import gathered
from .._core.numerics import mean_over_images, product, wide
from .._core.operators import nonnegative, to_kernel_dtype
from . import ops, reference

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def region_stats(
    features: Tensor, labels: Tensor, num_regions: int, normalize: bool, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = choose("region_stats", (features, labels), backend)
    if chosen == "eager":
        return reference.region_stats(features, labels, num_regions, normalize)
    return ops.region_stats(chosen, features, to_kernel_dtype(labels), num_regions, normalize)


def stats_of_all_ranks(
    count: Tensor, mean: Tensor, variance: Tensor, group: ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """The statistics of the pixels of all ranks, from those that each rank has of its own."""
    counts = gathered(count[None], 0, group)
    parts = gathered(torch.cat((mean, variance[..., None]), 2)[None], 0, group).double()
    means, variances = parts[..., :-1], parts[..., -1]
    share = counts / counts.sum(0).clamp(min=1).double()
    centre = (share[..., None] * means).sum(0)
    spread = (share * (variances + (means - centre).square().sum(-1))).sum(0)
    return counts.sum(0), centre.to(mean.dtype), spread.to(variance.dtype)


def cas_loss(
    descriptors: Tensor, labels: Tensor, num_regions: int, alpha: float, backend: str | None
) -> Tensor:
    chosen = choose("cas_loss", (descriptors, labels), backend)
    if chosen == "eager":
        return reference.cas_loss(descriptors, labels, num_regions, alpha)
    count, mean, variance = region_stats(descriptors, labels, num_regions, False, chosen)
    present = count > 0
    regions = present.sum(1)
    # sum_{i != j} |mu_i - mu_j|^2 = 2 P sum_i |mu_i - centre|^2 over the P present regions
    centre = mean.sum(1, keepdim=True) / regions.clamp(min=1)[:, None, None]
    spread = torch.where(present[..., None], mean - centre, 0).square().sum((1, 2))
    loss = alpha * variance.sum(1) - (1 - alpha) * 2 * spread * regions
    return mean_over_images(loss, regions > 0)


def cas_loss_released(
    descriptors: Tensor, labels: Tensor, alpha: float, divisor: float | None, backend: str | None
) -> Tensor:
    chosen = choose("cas_loss", (descriptors, labels), backend)
    if chosen == "eager":
        return reference.cas_loss_released(descriptors, labels, alpha, divisor)
    count, mean, variance = region_stats(descriptors, labels, 2, False, chosen)
    count = count.to(mean.dtype)
    eps = reference.RELEASED_CAS_EPS
    # each region weighs its own pixels with 1 + eps and the other region's with eps
    weight = count + eps * count.sum(1, keepdim=True)
    total = (count[..., None] * mean).sum(1, keepdim=True)
    blended = (count[..., None] * mean + eps * total) / weight.clamp(min=eps)[..., None]
    about_blend = count * (variance + (mean - blended[:, 1:]).square().sum(2))
    uniformer = (eps * eps * about_blend[:, 0] + (1 + eps) ** 2 * about_blend[:, 1]) / (
        weight[:, 1].clamp(min=eps) + eps
    )
    discriminator = (blended[:, 1] - blended[:, 0]).square().sum(1)
    loss = alpha * uniformer - (1 - alpha) * discriminator
    return loss.sum() / (max(loss.shape[0], 1) if divisor is None else divisor)


def metric_expression_loss(
    features: Tensor,
    mask: Tensor,
    form: str,
    normalize: bool,
    mining: bool,
    released: bool,
    backend: str | None,
) -> Tensor:
    chosen = choose("metric_expression_loss", (features, mask), backend)
    if chosen == "eager" and released:
        return reference.metric_expression_loss_released(features, mask, normalize)
    if chosen == "eager":
        return reference.metric_expression_loss(features, mask, form, normalize, mining)
    if released:
        return _metric_expression_released(features, mask, normalize, chosen)
    if mining:
        return _metric_expression_mined(features, mask, normalize, chosen)
    count, mean, variance = region_stats(features, mask, 2, normalize, chosen)
    loss = -_gap(mean).square().sum(1)
    if form == "pairwise":
        balance = (count[:, 1] - count[:, 0]).to(loss.dtype) / count.sum(1).clamp(min=1)
        loss = loss + balance * (variance[:, 1] - variance[:, 0])
    return mean_over_images(loss, (count > 0).all(1))


def _metric_expression_mined(
    features: Tensor, mask: Tensor, normalize: bool, backend: str
) -> Tensor:
    """The mean of t_i over the mined pixels is -(gap of mined means) . (gap of class means)."""
    with torch.no_grad():
        _, mean, _ = region_stats(features, mask, 2, normalize, backend)
        mined = _mine(features, mask, mean, normalize, backend)
    # regions: background, mined background, foreground, mined foreground
    count, mean, _ = region_stats(features, mined, 4, normalize, backend)
    by_class, totals = (
        count.unflatten(1, (2, 2)),
        (count[..., None] * mean).unflatten(1, (2, 2)).sum(2),
    )
    class_mean = totals / by_class.sum(2).clamp(min=1)[..., None]
    loss = -(_gap(mean[:, 1::2]) * _gap(class_mean)).sum(1)
    return mean_over_images(loss, (by_class.sum(2) > 0).all(1))


def _metric_expression_released(
    features: Tensor, mask: Tensor, normalize: bool, backend: str
) -> Tensor:
    with torch.no_grad():
        count, mean, _ = region_stats(features, mask, 2, normalize, backend)
        gap = _gap(mean)
        value = mean_over_images(
            4 - gap.square().sum(1), torch.ones_like(count[:, 0], dtype=torch.bool)
        )
        mined = _mine(features, mask, mean, normalize, backend)
    # the released gradient is a constant vector per class, so sums over the mined pixels carry it
    count, mean, _ = region_stats(features, mined, 4, False, backend)
    sums = count[..., None] * mean
    surrogate = ((sums[:, 1] - sums[:, 3]) * gap).sum() / max(features[0:1].numel(), 1)
    return value + surrogate - surrogate.detach()


def _mine(features: Tensor, mask: Tensor, mean: Tensor, normalize: bool, backend: str) -> Tensor:
    labels = to_kernel_dtype(mask)
    scores = ops.region_contrast(backend, features.detach(), labels, mean, normalize).flatten(1)
    mine = ops.hard_pixels if backend == "cpu" else lambda _, *args: reference.hard_pixels(*args)
    return mine(backend, scores, labels.flatten(1)).view(labels.shape)


def _gap(mean: Tensor) -> Tensor:
    return mean[:, 1] - mean[:, 0]


def discriminative_loss(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    delta_var: float,
    delta_dist: float,
    weights: tuple[float, float, float],
    norm: int,
    reduction: str,
    background: int | None,
    backend: str | None,
) -> Tensor:
    chosen = choose("discriminative_loss", (features, labels), backend)
    if chosen == "eager":
        return reference.discriminative_loss(
            features,
            labels,
            num_regions,
            delta_var,
            delta_dist,
            weights,
            norm,
            reduction,
            background,
        )
    count, mean, pulls, _ = ops.region_pull(
        chosen, features, to_kernel_dtype(labels), num_regions, float(delta_var), norm
    )
    if background is not None:
        region = torch.arange(num_regions, device=count.device)
        count = torch.where(region == background, 0, count)
    present = count > 0
    clusters = present.sum(1)
    pulls = torch.where(present, pulls, 0)
    if reduction == "cluster":
        pull = (pulls / count.clamp(min=1)).sum(1) / clusters.clamp(min=1)
    else:
        pull = pulls.sum(1) / count.sum(1).clamp(min=1)
    pushes, _ = ops.region_push(chosen, mean, present, float(delta_dist), norm)
    push = pushes / (clusters * (clusters - 1)).clamp(min=1)
    lengths = torch.linalg.vector_norm(torch.where(present[..., None], mean, 0), norm, -1)
    regulariser = lengths.sum(1) / clusters.clamp(min=1)
    loss = weights[0] * pull + weights[1] * push + weights[2] * regulariser
    return mean_over_images(loss, clusters > 0)


def background_distance(
    features: Tensor, weights: Tensor, squared: bool, minmax: bool, backend: str | None
) -> Tensor:
    chosen = choose("background_distance", (features, weights), backend)
    weights = nonnegative(weights.to(wide(features).dtype))
    if chosen == "eager":
        distance = reference.background_distance(features, weights, squared)
    else:
        distance, _, _ = ops.background_distance(chosen, features, weights, squared)
    if not minmax or distance.numel() == 0:
        return distance
    low, high = distance.amin((1, 2), keepdim=True), distance.amax((1, 2), keepdim=True)
    return (distance - low) / (high - low + 1e-8)


def masked_average_pool(
    features: Tensor, weights: Tensor, eps: float, upsample: bool, backend: str | None
) -> Tensor:
    chosen = choose("masked_average_pool", (features, weights), backend)
    weights = nonnegative(weights.to(wide(features).dtype))
    if upsample:
        rows = _interpolation(weights.shape[1], features.shape[2], weights)
        columns = _interpolation(weights.shape[2], features.shape[3], weights)
        # pooling the upsampled features is pooling the features by the adjoint of the upsampling
        weights = product(product(rows.T, weights), columns)
    if chosen == "eager":
        return reference.masked_average_pool(features, weights, eps)
    return ops.weighted_mean(chosen, features, weights.contiguous(), float(eps))[0]


def _interpolation(large: int, small: int, like: Tensor) -> Tensor:
    """[large, small]: bilinear interpolation along one side, align_corners=False, edges clamped."""
    position = (torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (
        small / max(large, 1)
    ) - 0.5
    position = position.clamp(0, max(small - 1, 0))
    cell = torch.arange(small, device=like.device, dtype=like.dtype)
    return (1 - (position[:, None] - cell).abs()).relu()


def compact_labels(
    labels: Tensor, ignore: tuple[int, ...], backend: str | None
) -> tuple[Tensor, Tensor]:
    chosen = choose("compact_labels", (labels,), backend)
    if chosen == "eager":
        return reference.compact_labels(labels, ignore)
    return ops.compact_labels(chosen, to_kernel_dtype(labels), ignore)
