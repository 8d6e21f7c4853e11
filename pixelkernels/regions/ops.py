"""Regions: operators with their fakes and gradients, and the losses as algebra on what the operators return.

The losses read the features through `region_stats` or `region_pull` alone; what is left is arithmetic on [B, R, C].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._dispatch import choose
from .._library import Kernel, define_check
from .._reductions import mean_over_images, wide
from . import reference


def _statistics(features: Tensor, *shape: Any) -> Tensor:
    return features.new_empty(shape, dtype=wide(features).dtype)


def _stats_fake(features: Tensor, labels: Tensor, num_regions: int, normalize: bool) -> Any:
    batch, channels = features.shape[:2]
    return (
        features.new_empty((batch, num_regions), dtype=torch.int64),
        _statistics(features, batch, num_regions, channels),
        _statistics(features, batch, num_regions),
    )


def _pull_fake(
    features: Tensor, labels: Tensor, num_regions: int, delta: float, norm: int
) -> Any:
    count, mean, pull = _stats_fake(features, labels, num_regions, False)
    return count, mean, pull, torch.empty_like(mean)


# count, mean and variance of each region, of the features or of their per-pixel L2 normalisation
_region_stats = Kernel(
    "regions",
    "region_stats(Tensor features, Tensor labels, SymInt num_regions, bool normalize)"
    " -> (Tensor count, Tensor mean, Tensor variance)",
    _stats_fake,
)
# d f_i = grad_mean_r / n_r + 2 grad_variance_r / n_r * (f_i - mean_r), through the normalisation if there was one
_region_stats_backward = Kernel(
    "regions",
    "region_stats_backward(Tensor? grad_mean, Tensor? grad_variance, Tensor features, Tensor labels, Tensor count,"
    " Tensor mean, bool normalize) -> Tensor",
    lambda grad_mean, grad_variance, features, *rest: torch.empty_like(features),
)
# with d_i = |f_i - mean_r|, h_i = [d_i - delta]_+ and u_i the gradient of d_i in f_i:
# pull_r = sum_i h_i^2 and direction_r = sum_i h_i u_i over the region's pixels
_region_pull = Kernel(
    "regions",
    "region_pull(Tensor features, Tensor labels, SymInt num_regions, float delta, int norm)"
    " -> (Tensor count, Tensor mean, Tensor pull, Tensor direction)",
    _pull_fake,
)
# d f_i = 2 grad_pull_r h_i u_i + (grad_mean_r - 2 grad_pull_r direction_r) / n_r
_region_pull_backward = Kernel(
    "regions",
    "region_pull_backward(Tensor? grad_mean, Tensor? grad_pull, Tensor features, Tensor labels, Tensor count,"
    " Tensor mean, Tensor direction, float delta, int norm) -> Tensor",
    lambda grad_mean, grad_pull, features, *rest: torch.empty_like(features),
)
# over ordered pairs of distinct present regions: push = sum [2 delta - |mean_a - mean_b|]_+^2, and its gradient
_region_push = Kernel(
    "regions",
    "region_push(Tensor mean, Tensor present, float delta, int norm) -> (Tensor push, Tensor gradient)",
    lambda mean, present, delta, norm: (mean.new_empty(mean.shape[0]), torch.empty_like(mean)),
)
# t_i = |f_i - own mean|^2 - |f_i - other mean|^2 for labels 0 and 1, else 0
_region_contrast = Kernel(
    "regions",
    "region_contrast(Tensor features, Tensor labels, Tensor mean, bool normalize) -> Tensor",
    lambda features, labels, mean, normalize: mean.new_empty(labels.shape),
)
# mean = sum_i w_i f_i / (sum_i w_i + eps) and total = sum_i w_i
_weighted_mean = Kernel(
    "regions",
    "weighted_mean(Tensor features, Tensor weights, float eps) -> (Tensor mean, Tensor total)",
    lambda features, weights, eps: (
        _statistics(features, *features.shape[:2]),
        _statistics(features, features.shape[0]),
    ),
)
# d f_i = w_i T and d w_i = (f_i - mean) . T, with T = grad_mean / (total + eps)
_weighted_mean_backward = Kernel(
    "regions",
    "weighted_mean_backward(Tensor grad_mean, Tensor features, Tensor weights, Tensor mean, Tensor total, float eps)"
    " -> (Tensor, Tensor)",
    lambda grad_mean, features, weights, *rest: (
        torch.empty_like(features),
        torch.empty_like(weights),
    ),
)
# |f_i - mean| or its square, with the weighted mean (eps 0) of the same features; 0 where the weights sum to 0
_background_distance = Kernel(
    "regions",
    "background_distance(Tensor features, Tensor weights, bool squared) -> (Tensor distance, Tensor mean, Tensor total)",
    lambda features, weights, squared: (
        torch.empty_like(weights),
        _statistics(features, *features.shape[:2]),
        _statistics(features, features.shape[0]),
    ),
)
# with c_i = grad_i / distance_i (squared: 2 grad_i) and T = -sum_i c_i (f_i - mean) / total:
# d f_i = c_i (f_i - mean) + w_i T and d w_i = (f_i - mean) . T
_background_distance_backward = Kernel(
    "regions",
    "background_distance_backward(Tensor grad_distance, Tensor features, Tensor weights, Tensor distance, Tensor mean,"
    " Tensor total, bool squared) -> (Tensor, Tensor)",
    lambda grad_distance, features, weights, *rest: (
        torch.empty_like(features),
        torch.empty_like(weights),
    ),
)
# the two steps that only the CPU has a kernel for; elsewhere torch's sort does them
_hard_pixels = Kernel(
    "regions",
    "hard_pixels(Tensor scores, Tensor labels) -> Tensor",
    lambda scores, labels: scores.new_empty(scores.shape, dtype=torch.uint8),
)
_compact_labels = Kernel(
    "regions",
    "compact_labels(Tensor labels, int[] ignore) -> (Tensor, Tensor)",
    lambda labels, ignore: (
        labels.new_empty(labels.shape, dtype=torch.int64),
        labels.new_empty(labels.shape[:1], dtype=torch.int64),
    ),
)
_nonnegative = define_check("nonnegative", "weights", "expected no negative value", lambda w: ~(w < 0))


def _contiguous(*gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if gradient is None else gradient.contiguous() for gradient in gradients)


def _save_stats(ctx: Any, inputs: Any, output: Any) -> None:
    features, labels, _, ctx.normalize = inputs
    ctx.save_for_backward(features, labels, *output[:2])
    ctx.mark_non_differentiable(output[0])


def _stats_gradient(backend: str, ctx: Any, _: None, *grads: Tensor | None) -> Any:
    gradient = _region_stats_backward(backend, *_contiguous(*grads), *ctx.saved_tensors, ctx.normalize)
    return gradient, None, None, None


def _save_pull(ctx: Any, inputs: Any, output: Any) -> None:
    features, labels, _, ctx.delta, ctx.norm = inputs
    count, mean, _, direction = output
    ctx.save_for_backward(features, labels, count, mean, direction)
    ctx.mark_non_differentiable(count, direction)


def _pull_gradient(
    backend: str, ctx: Any, _: None, grad_mean: Tensor | None, grad_pull: Tensor | None, __: None
) -> Any:
    gradient = _region_pull_backward(
        backend, *_contiguous(grad_mean, grad_pull), *ctx.saved_tensors, ctx.delta, ctx.norm
    )
    return gradient, None, None, None, None


def _save_push(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _push_gradient(backend: str, ctx: Any, grad_push: Tensor, _: None) -> Any:
    (gradient,) = ctx.saved_tensors
    return grad_push[:, None, None] * gradient, None, None, None


def _save_weighted_mean(ctx: Any, inputs: Any, output: Any) -> None:
    features, weights, ctx.eps = inputs
    ctx.save_for_backward(features, weights, *output)
    ctx.mark_non_differentiable(output[1])


def _weighted_mean_gradient(backend: str, ctx: Any, grad_mean: Tensor, _: None) -> Any:
    return *_weighted_mean_backward(backend, grad_mean.contiguous(), *ctx.saved_tensors, ctx.eps), None


def _save_distance(ctx: Any, inputs: Any, output: Any) -> None:
    features, weights, ctx.squared = inputs
    ctx.save_for_backward(features, weights, *output)
    ctx.mark_non_differentiable(*output[1:])


def _distance_gradient(backend: str, ctx: Any, grad_distance: Tensor, *_: None) -> Any:
    gradients = _background_distance_backward(
        backend, grad_distance.contiguous(), *ctx.saved_tensors, ctx.squared
    )
    return *gradients, None


_region_stats.differentiable(_save_stats, _stats_gradient)
_region_pull.differentiable(_save_pull, _pull_gradient)
_region_push.differentiable(_save_push, _push_gradient)
_weighted_mean.differentiable(_save_weighted_mean, _weighted_mean_gradient)
_background_distance.differentiable(_save_distance, _distance_gradient)


def _plain(labels: Tensor) -> Tensor:
    """Labels as the kernels take them: contiguous, in a dtype they are compiled for."""
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        labels = labels.long()
    return labels.contiguous()


def region_stats(
    features: Tensor, labels: Tensor, num_regions: int, normalize: bool, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = choose("region_stats", (features, labels), backend)
    if chosen == "eager":
        return reference.region_stats(features, labels, num_regions, normalize)
    return _region_stats(chosen, features, _plain(labels), num_regions, normalize)


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
    uniformer = (eps * eps * about_blend[:, 0] + (1 + eps) ** 2 * about_blend[:, 1]) / (weight[:, 1].clamp(min=eps) + eps)
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


def _metric_expression_mined(features: Tensor, mask: Tensor, normalize: bool, backend: str) -> Tensor:
    """The mean of t_i over the mined pixels is -(gap of the mined means) . (gap of the class means)."""
    with torch.no_grad():
        _, mean, _ = region_stats(features, mask, 2, normalize, backend)
        mined = _mine(features, mask, mean, normalize, backend)
    # regions: background, mined background, foreground, mined foreground
    count, mean, _ = region_stats(features, mined, 4, normalize, backend)
    by_class, totals = count.unflatten(1, (2, 2)), (count[..., None] * mean).unflatten(1, (2, 2)).sum(2)
    class_mean = totals / by_class.sum(2).clamp(min=1)[..., None]
    loss = -(_gap(mean[:, 1::2]) * _gap(class_mean)).sum(1)
    return mean_over_images(loss, (by_class.sum(2) > 0).all(1))


def _metric_expression_released(features: Tensor, mask: Tensor, normalize: bool, backend: str) -> Tensor:
    with torch.no_grad():
        count, mean, _ = region_stats(features, mask, 2, normalize, backend)
        gap = _gap(mean)
        value = mean_over_images(4 - gap.square().sum(1), torch.ones_like(count[:, 0], dtype=torch.bool))
        mined = _mine(features, mask, mean, normalize, backend)
    # the released gradient is a constant vector per class, so sums over the mined pixels carry it
    count, mean, _ = region_stats(features, mined, 4, False, backend)
    sums = count[..., None] * mean
    surrogate = ((sums[:, 1] - sums[:, 3]) * gap).sum() / max(features[0:1].numel(), 1)
    return value + surrogate - surrogate.detach()


def _mine(features: Tensor, mask: Tensor, mean: Tensor, normalize: bool, backend: str) -> Tensor:
    labels = _plain(mask)
    scores = _region_contrast(backend, features.detach(), labels, mean, normalize).flatten(1)
    mine = _hard_pixels if backend == "cpu" else lambda _, *args: reference.hard_pixels(*args)
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
            features, labels, num_regions, delta_var, delta_dist, weights, norm, reduction, background
        )
    count, mean, pulls, _ = _region_pull(
        chosen, features, _plain(labels), num_regions, float(delta_var), norm
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
    pushes, _ = _region_push(chosen, mean, present, float(delta_dist), norm)
    push = pushes / (clusters * (clusters - 1)).clamp(min=1)
    lengths = torch.linalg.vector_norm(torch.where(present[..., None], mean, 0), norm, -1)
    regulariser = lengths.sum(1) / clusters.clamp(min=1)
    loss = weights[0] * pull + weights[1] * push + weights[2] * regulariser
    return mean_over_images(loss, clusters > 0)


def background_distance(
    features: Tensor, weights: Tensor, squared: bool, minmax: bool, backend: str | None
) -> Tensor:
    chosen = choose("background_distance", (features, weights), backend)
    weights = _nonnegative(weights.to(wide(features).dtype))
    if chosen == "eager":
        distance = reference.background_distance(features, weights, squared)
    else:
        distance, _, _ = _background_distance(chosen, features, weights, squared)
    if not minmax or distance.numel() == 0:
        return distance
    low, high = distance.amin((1, 2), keepdim=True), distance.amax((1, 2), keepdim=True)
    return (distance - low) / (high - low + 1e-8)


def masked_average_pool(
    features: Tensor, weights: Tensor, eps: float, upsample: bool, backend: str | None
) -> Tensor:
    chosen = choose("masked_average_pool", (features, weights), backend)
    weights = _nonnegative(weights.to(wide(features).dtype))
    if upsample:
        rows = _interpolation(weights.shape[1], features.shape[2], weights)
        columns = _interpolation(weights.shape[2], features.shape[3], weights)
        # pooling the upsampled features is pooling the features by the adjoint of the upsampling
        with torch.autocast(weights.device.type, enabled=False):
            weights = rows.T @ weights @ columns
    if chosen == "eager":
        return reference.masked_average_pool(features, weights, eps)
    return _weighted_mean(chosen, features, weights.contiguous(), float(eps))[0]


def _interpolation(large: int, small: int, like: Tensor) -> Tensor:
    """[large, small]: bilinear interpolation along one side, align_corners=False, edges clamped."""
    position = (torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (small / max(large, 1)) - 0.5
    position = position.clamp(0, max(small - 1, 0))
    cell = torch.arange(small, device=like.device, dtype=like.dtype)
    return (1 - (position[:, None] - cell).abs()).relu()


def compact_labels(
    labels: Tensor, ignore: tuple[int, ...], backend: str | None
) -> tuple[Tensor, Tensor]:
    chosen = choose("compact_labels", (labels,), backend)
    if chosen == "eager":
        return reference.compact_labels(labels, ignore)
    return _compact_labels(chosen, _plain(labels), ignore)
