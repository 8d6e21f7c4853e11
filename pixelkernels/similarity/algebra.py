"""Similarity: which backend serves a call, and what surrounds the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from .._core import random as _random
from .._core.dispatch import choose
from .._core.distributed import gathered, name_of
from .._core.numerics import wide
from .._core.operators import nonnegative, to_kernel_dtype
from . import ops, reference

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def matching(
    op: str,
    query: Tensor,
    points: Tensor,
    labels: Tensor,
    num_classes: int,
    metric: str,
    transform: str,
    scale: float | Tensor,
    shift: float | Tensor,
    reduce: str,
    k: int | None,
    group: ProcessGroup | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """scores [B, L, *spatial] and the best labels [B, *spatial]."""
    if group is not None:
        points = gathered(points.flatten(2), 2, group)
        labels = gathered(to_kernel_dtype(labels.flatten(1)), 1, group)
    chosen = choose(op, (query, points, labels), backend)
    scale, shift = _scalar(scale, query), _scalar(shift, query)
    if chosen == "eager":
        scores = reference.matching_scores(
            query, points, labels, num_classes, metric, transform, scale, shift, reduce, k or 0
        )
        classes = torch.arange(num_classes, device=labels.device)[:, None]
        present = (labels.flatten(1).long()[:, None] == classes).any(2)
        smaller = reference.smaller_is_better(metric, scale)
        return scores, reference.best_labels(scores, present, smaller)
    order, offsets = points_by_class(chosen, labels, num_classes)
    codes = (
        ops.METRICS.index(metric),
        ops.TRANSFORMS.index(transform),
        ops.REDUCES.index(reduce),
        k or 0,
    )
    scores, best, *_ = ops.matching_scores(
        chosen, _image(query), _image(points), order, offsets, None, scale, shift, *codes
    )
    if query.dim() == 3:
        scores, best = scores.squeeze(2), best.squeeze(1)
    return scores, best


def sample_reference(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    num_per_class: int,
    generator: Generator | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    chosen = choose("sample_reference", (features, labels), backend)
    if chosen == "eager":
        keys = _random.uniform(labels.flatten(1).shape, labels.device, generator)
        return reference.sample_reference(features, labels, num_classes, num_per_class, keys)
    order, offsets = points_by_class(chosen, labels, num_classes)
    seed = _random.seed(labels.device, generator)
    ranks = ops.sample_ranks(chosen, offsets.diff(), seed, num_per_class)
    found = (ranks >= 0).flatten(1)
    pixels = features.flatten(2)
    if pixels.shape[2] == 0:  # nothing to gather: all rows are missing
        order, pixels = order.new_zeros(len(order), 1), pixels.new_zeros(*pixels.shape[:2], 1)
    first = offsets[:, :-1, None].clamp(max=order.shape[1] - 1)  # of a class that is absent, too
    place = order.gather(1, (first + ranks.clamp(min=0)).flatten(1))
    points = pixels.gather(2, place[:, None].expand(-1, features.shape[1], -1))
    classes = torch.arange(num_classes, device=labels.device)
    return (
        torch.where(found[:, None], points, 0),
        torch.where(found, classes.repeat_interleave(num_per_class), -1),
    )


def prior_mask(
    query: Tensor,
    support: Tensor,
    weights: Tensor,
    eps: float,
    minmax_eps: float,
    reduce: str,
    normalize: bool,
    backend: str | None,
) -> Tensor:
    """support [B, S, C, h', w'] and weights [B, S, ., .]."""
    chosen = choose("prior_mask", (query, support, weights), backend)
    weights = nonnegative(weights.to(wide(query).dtype))
    if weights.shape[2:] != support.shape[3:]:
        weights = interpolate(weights, support.shape[3:], mode="bilinear", align_corners=True)
    shots = [
        _prior(chosen, query, support[:, shot], weights[:, shot], eps, reduce)
        for shot in range(support.shape[1])
    ]
    if normalize and query.numel():
        shots = [_minmax(shot, minmax_eps) for shot in shots]
    return shots[0] if len(shots) == 1 else torch.stack(shots).mean(0)


def pair_similarity_loss(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    group: ProcessGroup | None,
    backend: str | None,
) -> Tensor:
    chosen = choose("pair_similarity_loss", (x, y, x_labels, y_labels), backend)
    weight = _scalar(1.0 if weight is None else weight.reshape(()), x)
    bias = _scalar(0.0 if bias is None else bias.reshape(()), x)
    fixed = None if training else running_mean, None if training else running_var
    used = [None if value is None else _scalar(value.reshape(()), x) for value in fixed]
    if chosen == "eager":
        loss, mean, var, pairs = reference.pair_similarity_loss(
            x, y, x_labels, y_labels, weight, bias, used[0], used[1], eps, group
        )
    else:
        learned = any(tensor.requires_grad for tensor in (x, y, weight, bias))
        loss, mean, var, pairs, *_ = ops.pair_loss(
            chosen,
            _image(x),
            _image(y),
            to_kernel_dtype(x_labels.flatten(1)),
            to_kernel_dtype(y_labels.flatten(1)),
            weight,
            bias,
            *used,
            eps,
            learned and torch.is_grad_enabled(),
            name_of(group),
        )
    if training and running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = var * (pairs / (pairs - 1).clamp(min=1))
            for running, value in ((running_mean, mean), (running_var, unbiased)):
                moved = running.lerp(value.to(running.dtype), momentum)
                running.copy_(torch.where(pairs > 0, moved, running))
    return loss


def points_by_class(chosen: str, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Positions [B, K] sorted by label, and where each class begins, [B, L + 1]."""
    if chosen == "cpu":
        return ops.points_by_class(chosen, to_kernel_dtype(labels.flatten(1)), num_classes)
    index = labels.flatten(1).long()
    valid = (index >= 0) & (index < num_classes)
    in_order, order = torch.where(valid, index, num_classes).sort(dim=1, stable=True)
    classes = torch.arange(num_classes + 1, device=labels.device)
    offsets = torch.searchsorted(in_order, classes.expand(len(index), -1).contiguous())
    return order, offsets


def _prior(
    chosen: str, query: Tensor, support: Tensor, weights: Tensor, eps: float, reduce: str
) -> Tensor:
    if chosen == "eager" and reduce == "max":
        return reference.prior_scores(query, support, weights, eps)
    if chosen == "eager":
        return reference.prior_softmax(query, support, weights)
    if reduce == "max":
        return ops.prior_scores(chosen, query, support, weights.contiguous(), eps)[0]
    # one class of points, each counting by its weight
    order, offsets = points_by_class(chosen, torch.zeros_like(weights, dtype=torch.int64), 1)
    codes = (ops.METRICS.index("cosine"), 0, ops.REDUCES.index("softmax"), 0)
    one, zero = _scalar(1.0, query), _scalar(0.0, query)
    values = weights.flatten(1).contiguous()
    scores = ops.matching_scores(chosen, query, support, order, offsets, values, one, zero, *codes)
    found = scores[0][:, 0]
    # without a position there is nothing to add up
    return found if values.shape[1] else torch.where(found.isinf(), 0, found)


def _minmax(scores: Tensor, eps: float) -> Tensor:
    least, most = scores.amin((1, 2), keepdim=True), scores.amax((1, 2), keepdim=True)
    return (scores - least) / (most - least + eps)


def _scalar(value: float | Tensor, like: Tensor) -> Tensor:
    dtype = wide(like[:0]).dtype
    if isinstance(value, Tensor):
        return value.to(dtype)
    return torch.full((), value, dtype=dtype, device=like.device)


def _image(features: Tensor) -> Tensor:
    return features if features.dim() == 4 else features[:, :, None]
