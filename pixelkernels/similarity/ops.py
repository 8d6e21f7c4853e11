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
# grad_scores, scores, index [B, N], query [B, C, N] and support [B, C, K] in the dtype of the
# scores, weights [B, K] -> the gradients of query, support and weights
prior_backward = kernel(
    "prior_backward(Tensor grad_scores, Tensor query, Tensor support, Tensor weights,"
    " Tensor scores, Tensor index, float eps) -> (Tensor query, Tensor support, Tensor weights)",
    lambda grad_scores, query, support, weights, *rest: tuple(
        torch.empty_like(x) for x in (query, support, weights)
    ),
    eager=reference.prior_gradient,
    cpu_only=True,
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
    query, support, weights, scores, index = ctx.saved_tensors
    features = (wide(x).flatten(2).contiguous() for x in (query, support))
    grad, *rest = (x.flatten(1).contiguous() for x in (grad_scores, weights, scores, index))
    grads = prior_backward(backend, grad, *features, *rest, ctx.eps)
    same = zip(grads, (query, support, weights), strict=True)
    return *(grad.view(x.shape).to(x.dtype) for grad, x in same), None


matching_scores.differentiable(_save_scores, _scores_gradient)
prior_scores.differentiable(_save_prior, _prior_gradient)
