"""The training-free prior mask of few-shot segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.operators import nonnegative, to_scalar
from . import ops, reference

Reduce = Literal["max", "softmax"]
Normalize = Literal["minmax"]


def prior_mask(
    query: Tensor,
    support: Tensor,
    weights: Tensor,
    *,
    eps: float = 1e-7,
    minmax_eps: float = 1e-7,
    reduce: Reduce = "max",
    normalize: Normalize | None = "minmax",
    backend: str | None = None,
) -> Tensor:
    """The training-free prior of few-shot segmentation: similarity to the masked support.

    With u_j = w_j s_j, prior(i) = max_j q_i.u_j / (|q_i| |u_j| + eps) over all support positions;
    a position of weight 0 counts as 0. Then (prior - min) / (max - min + minmax_eps) per image, and
    for several shots their mean. Equivalent eager code, for one image and shot:

        u = (support[b] * weights[b]).flatten(1)
        q = query[b].flatten(1)
        prior = (u.T @ q / (u.norm(dim=0)[:, None] * q.norm(dim=0) + eps)).amax(0)

    Args:
        query: [B, C, h, w].
        support: [B, C, h', w'], or [B, S, C, h', w'] for S >= 1 shots.
        weights: the mask of the support, [B, H, W] or [B, S, H, W], bool or floating point >= 0,
            resized to h' x w' (bilinear, align_corners=True) if its size differs. A pixel of weight
            exactly 0 is not read, so it may be NaN, and its weight has gradient 0. A negative
            weight raises ValueError on CPU and counts as 0 on a device; a NaN makes the result of
            its image NaN.
        eps, minmax_eps: >= 0.
        reduce: "max", or "softmax": sum_j softmax_j(cos(q_i, s_j)) w_j, with unweighted features
            and each norm at least 1e-12; here pixels of weight 0 take part in the softmax.
        normalize: "minmax", or None for the raw values.

    Returns: [B, h, w]. Differentiable in query, support and weights.
    Memory: packed copies of the support's pixels of nonzero weight, at most 2.5 times one image of
    them in float32; no [h'w', hw] is stored.
    Source: PFENet's prior ("max"), SCCAN ("softmax"); the thesis' IPF prior.

    Example:

        >>> query, support = torch.randn(2, 64, 30, 30), torch.randn(2, 64, 30, 30)
        >>> pk.prior_mask(query, support, torch.rand(2, 240, 240).round()).shape
        torch.Size([2, 30, 30])
    """
    check.features("query", query)
    check.tensor("support", support)
    if support.dim() == 4:
        support, weights = support[:, None], _with_shots(weights)
    expected = [query.shape[0], "S", query.shape[1], "h'", "w'"]
    query, support = check.same_kind("support", support, "query", query)
    if support.dim() != 5 or list(support.shape[:3:2]) != list(query.shape[:2]):
        raise ValueError(
            f"support: expected shape {expected} (or without S) for a query of shape "
            f"{list(query.shape)}, got {list(support.shape)}"
        )
    check.bool_or_floating("weights", weights)
    if weights.dim() != 4 or weights.shape[:2] != support.shape[:2]:
        raise ValueError(
            f"weights: expected shape {[*support.shape[:2], 'H', 'W']} (or [B, H, W] for a support "
            f"without shots), got {list(weights.shape)}"
        )
    check.on_device("weights", weights, "query", query)
    size, asked = list(weights.shape[2:]), list(support.shape[3:])
    if size != asked and 0 in (*size, *asked):
        raise ValueError(f"weights: expected a size that can be resized to {asked}, got {size}")
    if support.shape[1] == 0:
        raise ValueError("support: expected at least one shot, got 0")
    eps, minmax_eps = _check_options(eps, minmax_eps, reduce, normalize)
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
    # one class with all support positions, whose values are the weights
    values = weights.flatten(1).contiguous()
    order, offsets = ops.points_by_class(backend, torch.zeros_like(values, dtype=torch.int64), 1)
    metric, transform = ops.METRICS.index("cosine"), ops.TRANSFORMS.index("identity")
    scores, *_ = ops.matching_scores(
        *(backend, query, support, order, offsets, values),
        *(to_scalar(1.0, query), to_scalar(0.0, query)),
        *(metric, transform, ops.REDUCES.index("softmax"), 0),
    )
    prior = scores[:, 0]
    # without support positions the score is -inf, the sum over them 0
    return prior if values.shape[1] else torch.where(prior.isinf(), 0, prior)


def _minmax(scores: Tensor, eps: float) -> Tensor:
    least, most = scores.amin((1, 2), keepdim=True), scores.amax((1, 2), keepdim=True)
    return (scores - least) / (most - least + eps)


def _check_options(eps: Any, minmax_eps: Any, reduce: Any, normalize: Any) -> tuple[float, float]:
    check.option("reduce", reduce, ("max", "softmax"))
    check.option("normalize", normalize, ("minmax", None))
    return check.number("eps", eps, minimum=0), check.number("minmax_eps", minmax_eps, minimum=0)


class PriorMask(OptionsModule):
    """`prior_mask` as a module: `prior(query, support, weights)`.

    Args:
        eps, minmax_eps, reduce, normalize, backend: as in `prior_mask`.

    Example:

        >>> prior = pk.PriorMask(reduce="softmax", normalize=None)
        >>> features = torch.randn(2, 64, 30, 30)
        >>> prior(features, features, torch.rand(2, 30, 30)).shape
        torch.Size([2, 30, 30])
    """

    def __init__(
        self,
        *,
        eps: float = 1e-7,
        minmax_eps: float = 1e-7,
        reduce: Reduce = "max",
        normalize: Normalize | None = "minmax",
        backend: str | None = None,
    ) -> None:
        _check_options(eps, minmax_eps, reduce, normalize)
        super().__init__(
            eps=eps, minmax_eps=minmax_eps, reduce=reduce, normalize=normalize, backend=backend
        )

    def forward(self, query: Tensor, support: Tensor, weights: Tensor) -> Tensor:
        return prior_mask(query, support, weights, **self.options)

    if TYPE_CHECKING:

        def __call__(self, query: Tensor, support: Tensor, weights: Tensor) -> Tensor: ...
