"""Similarity: the operators, their fake kernels and gradients.

That of the pair loss is in `pair_loss.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

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
    ctx.save_for_backward(query, support, weights, *output)
    ctx.mark_non_differentiable(output[1])


def _prior_gradient(backend: str, ctx: Any, grad_scores: Tensor, _: None) -> Any:
    """The gradient of c_i = q_i.u_j / (|q_i| |u_j| + eps), where j is the best support pixel of i
    and u_j = w_j s_j. With g_i the gradient of the score, divided by that divisor, and ^ a unit
    vector:

        dq_i = g_i (u_j - c_i |u_j| ^q_i)
        du_j = sum_i g_i q_i less its part along ^u_j, plus ^u_j eps/|u_j| sum_i g_i c_i
        dw_j = s_j.du_j = eps/w_j sum_i g_i c_i

    In the last two the terms of q_i.u_j cancel but for eps, which no subtraction has to find.
    """
    query, support, weights, scores, index = ctx.saved_tensors
    if 0 in (query.numel(), weights.numel()):
        return *(torch.zeros_like(x) for x in (query, support, weights)), None
    # rows of channels: of queries, and of points with one more for the queries that have none
    q = wide(query).flatten(2).mT.flatten(0, 1)
    s, w = wide(support).flatten(2).mT, weights.flatten(1)[..., None]
    u = pad(torch.where(w != 0, s, 0) * w, (0, 0, 0, 1))
    batch, points = w.shape[:2]
    image = torch.arange(batch, device=query.device)[:, None]
    found = index.flatten(1) >= 0
    best = torch.where(found, index.flatten(1), points).long()
    of_best = (best + image * (points + 1)).flatten()
    norm_q, norm_u = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (q, u))
    norm_of_best = norm_u.flatten()[of_best, None]
    divisor = norm_q * norm_of_best + ctx.eps
    # for eps = 0 or a zero vector
    divisor, over_q, over_u = (torch.where(x == 0, 1, x) for x in (divisor, norm_q, norm_u))
    g, cosine = (torch.where(found, x.flatten(1), 0).view(-1, 1) for x in (grad_scores, scores))
    g = g / divisor
    cosine = cosine * g
    grad_q = u.flatten(0, 1).index_select(0, of_best).mul_(g)
    grad_q.addcmul_(q, cosine * norm_of_best / over_q, value=-1)

    # sums over the queries of a point, in the order of their positions on every device
    order, offsets = points_by_class(backend, best, points)
    at, bags = ((x + image * best.shape[1]).flatten() for x in (order, offsets))

    def per_point(rows: Tensor, factors: Tensor) -> Tensor:
        factors = factors.flatten()[at]
        sums = embedding_bag(at, rows, bags, mode="sum", per_sample_weights=factors)
        return sums.unflatten(0, offsets.shape)[:, :-1]

    grad_u = per_point(q, g)
    del q
    rest = ctx.eps * per_point(torch.ones_like(g), cosine)
    unit, over_u = u[:, :-1].div_(over_u[:, :-1]), over_u[:, :-1]
    grad_u.addcmul_(unit, (unit * grad_u).sum(2, keepdim=True) - rest / over_u, value=-1)
    return (
        grad_q.unflatten(0, best.shape).mT.reshape(query.shape).to(query.dtype),
        grad_u.mul_(w).mT.reshape(support.shape).to(support.dtype),
        (rest / torch.where(w == 0, 1, w)).view(weights.shape),
        None,
    )


matching_scores.differentiable(_save_scores, _scores_gradient)
prior_scores.differentiable(_save_prior, _prior_gradient)
