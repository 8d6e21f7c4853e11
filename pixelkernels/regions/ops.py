"""Regions: the operators, their fake kernels and gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._core.numerics import wide
from .._core.operators import Kernel
from . import reference

kernel = partial(Kernel, "regions")


def _statistics(features: Tensor, *shape: Any) -> Tensor:
    return features.new_empty(shape, dtype=wide(features).dtype)


def _stats_fake(features: Tensor, labels: Tensor, num_regions: int, *options: Any) -> Any:
    batch, channels = features.shape[:2]
    return (
        features.new_empty((batch, num_regions), dtype=torch.int64),
        _statistics(features, batch, num_regions, channels),
        _statistics(features, batch, num_regions),
    )


def _pull_fake(features: Tensor, labels: Tensor, num_regions: int, *options: Any) -> Any:
    count, mean, pull = _stats_fake(features, labels, num_regions)
    return count, mean, pull, torch.empty_like(mean)


def _weighted_mean_fake(features: Tensor, *rest: Any) -> Any:
    batch, channels = features.shape[:2]
    return _statistics(features, batch, channels), _statistics(features, batch)


def _distance_fake(features: Tensor, weights: Tensor, *options: Any) -> Any:
    return torch.empty_like(weights), *_weighted_mean_fake(features)


def _like_features(_: Any, __: Any, features: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(features)


def _like_features_and_weights(_: Tensor, features: Tensor, weights: Tensor, *rest: Any) -> Any:
    return torch.empty_like(features), torch.empty_like(weights)


# count, mean and variance of each region; with `normalize`, of f_i / |f_i|
region_stats = kernel(
    "region_stats(Tensor features, Tensor labels, SymInt num_regions, bool normalize)"
    " -> (Tensor count, Tensor mean, Tensor variance)",
    _stats_fake,
    eager=reference.region_stats,
)
# d f_i = grad_mean_r / n_r + 2 grad_variance_r / n_r (f_i - mean_r), through the normalisation
region_stats_backward = kernel(
    "region_stats_backward(Tensor? grad_mean, Tensor? grad_variance, Tensor features,"
    " Tensor labels, Tensor count, Tensor mean, bool normalize) -> Tensor",
    _like_features,
)
# With d_i = |f_i - mean_r|, h_i = [d_i - delta]_+ and u_i the gradient of d_i in f_i:
# pull_r = sum_i h_i^2 and direction_r = sum_i h_i u_i over the region's pixels
region_pull = kernel(
    "region_pull(Tensor features, Tensor labels, SymInt num_regions, float delta, int norm)"
    " -> (Tensor count, Tensor mean, Tensor pull, Tensor direction)",
    _pull_fake,
)
# d f_i = 2 grad_pull_r h_i u_i + (grad_mean_r - 2 grad_pull_r direction_r) / n_r
region_pull_backward = kernel(
    "region_pull_backward(Tensor? grad_mean, Tensor? grad_pull, Tensor features, Tensor labels,"
    " Tensor count, Tensor mean, Tensor direction, float delta, int norm) -> Tensor",
    _like_features,
)
# sum_{a != b} [2 delta - |mean_a - mean_b|]_+^2 over present regions, and its gradient
region_push = kernel(
    "region_push(Tensor mean, Tensor present, float delta, int norm)"
    " -> (Tensor push, Tensor gradient)",
    lambda mean, *rest: (mean.new_empty(mean.shape[0]), torch.empty_like(mean)),
)
# t_i = |f_i - own mean|^2 - |f_i - other mean|^2 for labels 0 and 1; else 0
region_contrast = kernel(
    "region_contrast(Tensor features, Tensor labels, Tensor mean, bool normalize) -> Tensor",
    lambda features, labels, mean, normalize: mean.new_empty(labels.shape),
)
# mean = sum_i w_i f_i / (sum_i w_i + eps) and total = sum_i w_i
weighted_mean = kernel(
    "weighted_mean(Tensor features, Tensor weights, float eps) -> (Tensor mean, Tensor total)",
    _weighted_mean_fake,
    eager=reference.weighted_mean,
)
# d f_i = w_i T and d w_i = (f_i - mean) . T, with T = grad_mean / (total + eps), 0 for a divisor of
# 0. d w_i is 0 where w_i is 0 and f_i is not finite, here and in background_distance_backward.
weighted_mean_backward = kernel(
    "weighted_mean_backward(Tensor grad_mean, Tensor features, Tensor weights, Tensor mean,"
    " Tensor total, float eps) -> (Tensor, Tensor)",
    _like_features_and_weights,
)
# d f_i alone, without reading the features: for weights that need no gradient
weighted_mean_share = kernel(
    "weighted_mean_share(Tensor grad_mean, Tensor features, Tensor weights, Tensor total,"
    " float eps) -> Tensor",
    lambda grad_mean, features, *rest: torch.empty_like(features),
)
# |f_i - mean| or its square, with mean as in weighted_mean for eps = 0; 0 if the weights sum to 0
background_distance = kernel(
    "background_distance(Tensor features, Tensor weights, bool squared)"
    " -> (Tensor distance, Tensor mean, Tensor total)",
    _distance_fake,
    eager=lambda *args: (reference.background_distance(*args),),
)
# With c_i = grad_i / distance_i (squared: 2 grad_i) and T = -sum_i c_i (f_i - mean) / total:
# d f_i = c_i (f_i - mean) + w_i T and d w_i = (f_i - mean) . T
background_distance_backward = kernel(
    "background_distance_backward(Tensor grad_distance, Tensor features, Tensor weights,"
    " Tensor distance, Tensor mean, Tensor total, bool squared) -> (Tensor, Tensor)",
    _like_features_and_weights,
)
# see reference.hard_pixels and reference.compact_labels
hard_pixels = kernel(
    "hard_pixels(Tensor scores, Tensor labels) -> Tensor",
    lambda scores, labels: torch.empty_like(scores, dtype=torch.uint8),
    eager=reference.hard_pixels,
    cpu_only=True,
)
compact_labels = kernel(
    "compact_labels(Tensor labels, int[] ignore) -> (Tensor, Tensor)",
    lambda labels, ignore: (
        torch.empty_like(labels, dtype=torch.int64),
        labels.new_empty(labels.shape[:1], dtype=torch.int64),
    ),
    eager=reference.compact_labels,
    cpu_only=True,
)


def _contiguous(*gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if gradient is None else gradient.contiguous() for gradient in gradients)


def _save_stats(ctx: Any, inputs: Any, output: Any) -> None:
    features, labels, _, ctx.normalize = inputs
    ctx.save_for_backward(features, labels, *output[:2])
    ctx.mark_non_differentiable(output[0])


def _stats_gradient(backend: str, ctx: Any, _: None, *grads: Tensor | None) -> Any:
    gradient = region_stats_backward(
        backend, *_contiguous(*grads), *ctx.saved_tensors, ctx.normalize
    )
    return gradient, None, None, None


def _save_pull(ctx: Any, inputs: Any, output: Any) -> None:
    features, labels, _, ctx.delta, ctx.norm = inputs
    count, mean, _, direction = output
    ctx.save_for_backward(features, labels, count, mean, direction)
    ctx.mark_non_differentiable(count, direction)


def _pull_gradient(
    backend: str, ctx: Any, _: None, grad_mean: Tensor | None, grad_pull: Tensor | None, __: None
) -> Any:
    gradient = region_pull_backward(
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
    features, weights, mean, total = ctx.saved_tensors
    given = grad_mean.contiguous(), features, weights
    if not ctx.needs_input_grad[1]:
        return weighted_mean_share(backend, *given, total, ctx.eps), None, None
    return *weighted_mean_backward(backend, *given, mean, total, ctx.eps), None


def _save_distance(ctx: Any, inputs: Any, output: Any) -> None:
    features, weights, ctx.squared = inputs
    ctx.save_for_backward(features, weights, *output)
    ctx.mark_non_differentiable(*output[1:])


def _distance_gradient(backend: str, ctx: Any, grad_distance: Tensor, *_: None) -> Any:
    gradients = background_distance_backward(
        backend, grad_distance.contiguous(), *ctx.saved_tensors, ctx.squared
    )
    return *gradients, None


region_stats.differentiable(_save_stats, _stats_gradient)
region_pull.differentiable(_save_pull, _pull_gradient)
region_push.differentiable(_save_push, _push_gradient)
weighted_mean.differentiable(_save_weighted_mean, _weighted_mean_gradient)
background_distance.differentiable(_save_distance, _distance_gradient)
