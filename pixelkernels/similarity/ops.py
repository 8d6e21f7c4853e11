"""Similarity: the operators, their fake kernels and gradients.

That of the pair loss is in `pair_loss.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .._core.numerics import wide
from .._core.operators import Kernel
from . import reference

kernel = partial(Kernel, "similarity")

Metric = Literal["dot", "cosine", "sqeuclidean"]
Transform = Literal["identity", "sigmoid", "exp"]
Reduce = Literal["sum", "mean", "max", "min", "topk", "softmax"]
# the kernels number metrics, transforms and reductions in this order
METRICS, TRANSFORMS, REDUCES = get_args(Metric), get_args(Transform), get_args(Reduce)


def _scores_fake(
    query: Tensor, reference: Tensor, order: Tensor, offsets: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reduce = REDUCES[rest[5]]
    batch, size = query.shape[0], query.shape[2:]
    classes = offsets.shape[1] - 1
    scores = wide(query).new_empty((batch, classes, *size))
    edges = {"max": 0, "min": 0, "topk": classes, "softmax": 1}.get(reduce, 0)
    indices = {"max": classes, "min": classes, "topk": classes}.get(reduce, 0)
    return (
        scores,
        query.new_empty((batch, *size), dtype=torch.int64),
        scores.new_empty((batch, edges, *size)),
        query.new_empty((batch, indices, *size), dtype=torch.int32),
    )


# labels [B, K] -> order [B, K] and offsets [B, L + 1] for matching_scores
points_by_class = kernel(
    "points_by_class(Tensor labels, SymInt num_classes) -> (Tensor order, Tensor offsets)",
    lambda labels, num_classes: (
        torch.empty_like(labels, dtype=torch.int64),
        labels.new_empty((labels.shape[0], num_classes + 1), dtype=torch.int64),
    ),
    eager=reference.points_by_class,
    cpu_only=True,
)
# query [B, D, H, W], reference [B, D, H', W']. order [B, H' W'] int64 lists the flat reference
# positions by class, offsets [B, L + 1] int64 where each class starts in it; ignored positions
# follow offsets[L]. values [B, H' W']: softmax sums values_j times the probability of j. scale and
# shift are 0-d, and like scores float32 (float64 for float64).
# -> scores [B, L, H, W], labels [B, H, W], and for the gradient:
#    edge: topk, the k-th best similarity [B, L, H, W]; softmax, the logsumexp [B, 1, H, W]
#    index int32 [B, L, H, W], a position in `order`: max and min, the best point; topk, the last
#    point taken; -1 for an absent class
matching_scores = kernel(
    "matching_scores(Tensor query, Tensor reference, Tensor order, Tensor offsets, Tensor? values,"
    " Tensor scale, Tensor shift, int metric, int transform, int reduce, int k)"
    " -> (Tensor scores, Tensor labels, Tensor edge, Tensor index)",
    _scores_fake,
)
matching_scores_backward = kernel(
    "matching_scores_backward(Tensor grad_scores, Tensor query, Tensor reference, Tensor order,"
    " Tensor offsets, Tensor? values, Tensor scale, Tensor shift, Tensor scores, Tensor edge,"
    " Tensor index, int metric, int transform, int reduce, int k)"
    " -> (Tensor query, Tensor reference, Tensor values, Tensor scale, Tensor shift)",
    lambda grad_scores, query, reference, order, offsets, values, scale, shift, *rest: (
        torch.empty_like(query),
        torch.empty_like(reference),
        scale.new_empty(0) if values is None else torch.empty_like(values),
        torch.empty_like(scale),
        torch.empty_like(shift),
    ),
)
# query [B, C, h, w], support [B, C, h', w'], weights [B, h', w'] in the dtype of the scores
# -> scores [B, h, w]; index int32 [B, h, w], the flat index of the best support pixel, -1 if that
# has weight 0
prior_scores = kernel(
    "prior_scores(Tensor query, Tensor support, Tensor weights, float eps)"
    " -> (Tensor scores, Tensor index)",
    lambda query, *rest: (
        wide(query).new_empty((query.shape[0], *query.shape[2:])),
        query.new_empty((query.shape[0], *query.shape[2:]), dtype=torch.int32),
    ),
    eager=lambda *args: (reference.prior_scores(*args),),
)
# counts [B, L] int64, seed [1] int64 -> [B, L, num] int64: the first `num` values of a random
# permutation of [0, counts), then -1
sample_ranks = kernel(
    "sample_ranks(Tensor counts, Tensor seed, SymInt num) -> Tensor",
    lambda counts, seed, num: counts.new_empty((*counts.shape, num)),
)
# x [B, D, H, W], y [B, D, H', W'], x_labels [B, H W], y_labels [B, H' W'] (negative: invalid),
# affine [4] = (a, c, alpha, beta). With s = <x_i, y_j>, z = a s + c, t = [x_labels_i = y_labels_j],
# g = sigmoid(z) - t, over all valid pairs: totals [3] float64, the sums of softplus(z) - t z, g and
# g s; grad_x [B, D, H W] = a sum_j (g - alpha - beta s) y_j in the dtype of affine, and likewise
# grad_y; both empty without `gradient`. On cpu, x and y have the dtype of affine.
pair_terms = kernel(
    "pair_terms(Tensor x, Tensor y, Tensor x_labels, Tensor y_labels, Tensor affine,"
    " bool gradient) -> (Tensor totals, Tensor grad_x, Tensor grad_y)",
    lambda x, y, x_labels, y_labels, affine, gradient: (
        affine.new_empty(3, dtype=torch.float64),
        affine.new_empty((*x.shape[:2], x_labels.shape[1]) if gradient else 0),
        affine.new_empty((*y.shape[:2], y_labels.shape[1]) if gradient else 0),
    ),
)


def _save_scores(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.metric, ctx.transform, ctx.reduce, ctx.k = inputs
    scores, labels, edge, index = output
    ctx.save_for_backward(*tensors, scores, edge, index)
    ctx.mark_non_differentiable(labels, edge, index)


def _scores_gradient(backend: str, ctx: Any, grad_scores: Tensor, *_: None) -> Any:
    query, reference, values, scale, shift = matching_scores_backward(
        backend,
        grad_scores.contiguous(),
        *ctx.saved_tensors,
        ctx.metric,
        ctx.transform,
        ctx.reduce,
        ctx.k,
    )
    if ctx.saved_tensors[4] is None:
        values = None
    return query, reference, None, None, values, scale, shift, None, None, None, None


def _save_prior(ctx: Any, inputs: Any, output: Any) -> None:
    query, support, weights, ctx.eps = inputs
    ctx.save_for_backward(query, support, weights, output[1])
    ctx.mark_non_differentiable(output[1])


def _prior_gradient(backend: str, ctx: Any, grad_scores: Tensor, _: None) -> Any:
    """The gradient of the cosine with the best support pixel: gather, quotient rule, scatter."""
    query, support, weights, index = ctx.saved_tensors
    if weights.numel() == 0:
        return *(torch.zeros_like(x) for x in (query, support, weights)), None
    image = torch.arange(query.shape[0], device=query.device)[:, None]
    found = index.flatten(1) >= 0
    best = index.flatten(1).clamp(min=0).long()
    q = wide(query).flatten(2).mT
    s = torch.where(found[..., None], wide(support).flatten(2).mT[image, best], 0)
    w = weights.flatten(1).gather(1, best)[..., None]
    u = w * s
    norm_q, norm_u = (torch.linalg.vector_norm(x, dim=2, keepdim=True) for x in (q, u))
    divisor = norm_q * norm_u + ctx.eps
    divisor = torch.where(divisor == 0, 1, divisor)  # for eps = 0 and a zero vector
    g = torch.where(found, grad_scores.flatten(1), 0)[..., None] / divisor
    cosine = (q * u).sum(2, keepdim=True) / divisor
    grad_q = g * (u - cosine * norm_u * q / torch.where(norm_q == 0, 1, norm_q))
    grad_u = g * (q - cosine * norm_q * u / torch.where(norm_u == 0, 1, norm_u))
    # index_put_ accumulates in a fixed order on every device
    grad_s = torch.zeros_like(support, dtype=q.dtype).flatten(2).mT.contiguous()
    grad_s.index_put_((image, best), w * grad_u, accumulate=True)
    grad_w = torch.zeros_like(weights).flatten(1)
    grad_w.index_put_((image, best), (s * grad_u).sum(2), accumulate=True)
    return (
        grad_q.mT.reshape(query.shape).to(query.dtype),
        grad_s.mT.reshape(support.shape).to(support.dtype),
        grad_w.view(weights.shape),
        None,
    )


matching_scores.differentiable(_save_scores, _scores_gradient)
prior_scores.differentiable(_save_prior, _prior_gradient)
