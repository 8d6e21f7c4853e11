"""The training-free prior mask of few-shot segmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.operators import nonnegative, to_scalar
from . import ops, reference


def prior_mask(
    query: Tensor,
    support: Tensor,
    weights: Tensor,
    *,
    eps: float = 1e-7,
    minmax_eps: float = 1e-7,
    reduce: str = "max",
    normalize: str | None = "minmax",
    backend: str | None = None,
) -> Tensor:
    """The training-free prior of few-shot segmentation: how like the masked support a pixel is.

    With u_j = w_j s_j, prior(i) = max_j q_i.u_j / (|q_i| |u_j| + eps) over all support positions;
    one of weight 0 counts as 0. Then (prior - min)/(max - min + minmax_eps) per image and, for
    several shots, their mean. Equivalent eager code, for one image and shot:

        u = (support[b] * weights[b]).flatten(1)
        q = query[b].flatten(1)
        prior = (u.T @ q / (u.norm(dim=0)[:, None] * q.norm(dim=0) + eps)).amax(0)

    Args:
        query: [B, C, h, w].
        support: [B, C, h', w'], or [B, S, C, h', w'] for S >= 1 shots.
        weights: the mask of the support, [B, ...] or [B, S, ...], floating point >= 0. Of another
            size than h' x w' it is resized (bilinear, align_corners=True). A pixel of weight
            exactly 0 is never multiplied, NaN or not, and that weight's gradient is 0. Negative
            weights raise ValueError on CPU.
        reduce: "max", or "softmax": sum_j softmax_j(cos(q_i, s_j)) w_j with the features unweighted
            and each norm at least 1e-12; here pixels of weight 0 do enter the softmax.
        normalize: "minmax" or None: the values as they are.

    Returns: [B, h, w]. Differentiable in query, support and weights.
    Memory: packed copies of the support's masked pixels; the [h'w', hw] matrix does not exist.
    Source: PFENet's prior ("max"), SCCAN ("softmax"); the thesis' IPF prior.
    """
    check.features("query", query)
    check.tensor("support", support)
    if support.dim() == 4:
        support, weights = support[:, None], _with_shots(weights)
    expected = [query.shape[0], "S", query.shape[1], "h'", "w'"]
    check.same_kind("support", support, "query", query)
    if support.dim() != 5 or list(support.shape[:3:2]) != list(query.shape[:2]):
        raise ValueError(
            f"support: expected shape {expected} (or without S) for a query of shape "
            f"{list(query.shape)}, got {list(support.shape)}"
        )
    check.floating("weights", weights)
    if weights.dim() != 4 or weights.shape[:2] != support.shape[:2]:
        raise ValueError(
            f"weights: expected shape {[*support.shape[:2], 'H', 'W']} (or [B, H, W] for a support "
            f"without shots), got {list(weights.shape)}"
        )
    check.on_device("weights", weights, query, "query")
    size, asked = list(weights.shape[2:]), list(support.shape[3:])
    if size != asked and 0 in (*size, *asked):
        raise ValueError(f"weights: expected a size that can be resized to {asked}, got {size}")
    if support.shape[1] == 0:
        raise ValueError("support: expected at least one shot, got 0")
    check.number("eps", eps, minimum=0)
    check.number("minmax_eps", minmax_eps, minimum=0)
    check.option("reduce", reduce, ("max", "softmax"))
    check.option("normalize", normalize, ("minmax", None))
    chosen = choose("prior_mask", (query, support, weights), backend)
    weights = nonnegative(weights.to(torch.promote_types(query.dtype, torch.float32)))
    if weights.shape[2:] != support.shape[3:]:
        weights = interpolate(weights, support.shape[3:], mode="bilinear", align_corners=True)
    shots = [
        _prior(chosen, query, support[:, shot], weights[:, shot], eps, reduce)
        for shot in range(support.shape[1])
    ]
    if normalize is not None and query.numel():
        shots = [_minmax(shot, minmax_eps) for shot in shots]
    return shots[0] if len(shots) == 1 else torch.stack(shots).mean(0)


def _with_shots(weights: Any) -> Any:
    if isinstance(weights, torch.Tensor) and weights.dim() == 3:
        return weights[:, None]
    return weights


def _prior(
    backend: str, query: Tensor, support: Tensor, weights: Tensor, eps: float, reduce: str
) -> Tensor:
    if reduce == "max":
        return ops.prior_scores(backend, query, support, weights.contiguous(), eps)[0]
    if backend == "eager":
        return reference.prior_softmax(query, support, weights)
    # one class of points, each counting by its weight
    values = weights.flatten(1).contiguous()
    order, offsets = ops.points_by_class(backend, torch.zeros_like(values, dtype=torch.int64), 1)
    codes = (ops.METRICS.index("cosine"), 0, ops.REDUCES.index("softmax"), 0)
    one, zero = to_scalar(1.0, query), to_scalar(0.0, query)
    scores = ops.matching_scores(backend, query, support, order, offsets, values, one, zero, *codes)
    found = scores[0][:, 0]
    # without a position there is nothing to add up
    return found if values.shape[1] else torch.where(found.isinf(), 0, found)


def _minmax(scores: Tensor, eps: float) -> Tensor:
    least, most = scores.amin((1, 2), keepdim=True), scores.amax((1, 2), keepdim=True)
    return (scores - least) / (most - least + eps)


class PriorMask(OptionsModule):
    """`prior_mask` as a module: `PriorMask(**options)(query, support, weights)`."""

    def forward(self, query: Tensor, support: Tensor, weights: Tensor) -> Tensor:
        return prior_mask(query, support, weights, **self.options)
