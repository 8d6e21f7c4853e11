"""Similarity: the operators, their fake kernels and gradients.

Those that are made of others are in the files of their concepts.
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
# a multiple of the bank entries that any kernel of the contrast takes at a time
CONTRAST_BLOCK = 192


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

# The pairs of `contrast.py`: anchors [N, D] in the order of their labels, contiguous, and bank
# [M, D]. order [M] lists the entries by label. The positives of anchor i are the positions
# [ranges[0, i], ranges[1, i]) of `order` but ranges[2, i], the anchor itself, or -1. Only the first
# valid[0] anchors and valid[1] positions count; all int64. With s_ij = scale <a_i, b_j>, for each
# part of `step` positions:
# without log_sum, over the negatives, or all positions but the anchor itself: the maximum of s, the
#   sum of e^{s - maximum}, and the sum of e^{s - maximum} b_j;
# with log_sum [N], over the positives: the sums of f(log_sum_i - s_ij), of f', and of f' b_j, with
#   f softplus for `negatives`, else the identity.
# -> [parts, N], [parts, N], and [parts, D, N], empty without `gradient`, in the dtype that sums
#    have; without meaning for anchors that do not count
contrast_pass = kernel(
    "contrast_pass(Tensor anchors, Tensor bank, Tensor order, Tensor ranges, Tensor valid,"
    " Tensor? log_sum, float scale, bool negatives, bool gradient, SymInt step)"
    " -> (Tensor first, Tensor second, Tensor rows)",
    lambda anchors, bank, order, ranges, valid, log_sum, scale, negatives, gradient, step: (
        *(_partial_sums(anchors, bank, step) for _ in range(2)),
        _partial_sums(anchors, bank, step, anchors.shape[1])
        if gradient
        else wide(anchors[:0]).new_empty(0),
    ),
)
# weights [2, N] = (u, v), in the dtype of log_sum -> the gradient in the bank, of its dtype and
# shape: sum_i (u_i e^{s_ij - log_sum_i} over the pairs of log_sum, less v_i f' over the positives)
# a_i
contrast_bank_gradient = kernel(
    "contrast_bank_gradient(Tensor anchors, Tensor bank, Tensor order, Tensor ranges, Tensor valid,"
    " Tensor log_sum, Tensor weights, float scale, bool negatives) -> Tensor",
    lambda anchors, bank, *rest: torch.empty_like(bank),
)

# The pairs of `mutual.py`: a [B, D, N] and b [B, D, M]; mask_a [B, N] and mask_b [B, M], bool and
# contiguous: False where a pixel is left out, whose features may be NaN; None: none is left out.
# With s_ij = scale <a_i, b_j>: rows [B, N], the logsumexp of s over the kept j, and columns [B, M],
# over the kept i, in float64. -inf if none is kept, 0 for pixels left out.
log_sums = kernel(
    "log_sums(Tensor a, Tensor b, Tensor? mask_a, Tensor? mask_b, float scale)"
    " -> (Tensor rows, Tensor columns)",
    lambda a, b, *rest: tuple(_per_pixel(x, torch.float64) for x in (a, b)),
)
# The same sums and their gradients, in the dtype that sums have -> the gradients in a and b, in
# their dtypes and strides, of dL/ds_ij = grad_rows_i e^{s_ij - rows_i} + grad_columns_j
# e^{s_ij - columns_j} over the kept pairs; 0 for pixels left out.
log_sums_backward = kernel(
    "log_sums_backward(Tensor a, Tensor b, Tensor? mask_a, Tensor? mask_b, Tensor rows,"
    " Tensor columns, Tensor grad_rows, Tensor grad_columns, float scale)"
    " -> (Tensor grad_a, Tensor grad_b)",
    lambda a, b, *rest: (torch.empty_like(a), torch.empty_like(b)),
)
# rows [B, N] and columns [B, M] in the dtype that sums have; None: 0. -> best_b [B, N] int64: the
# first kept j with the largest scale <a_i, b_j> - columns_j, and similarity [B, N], its
# scale <a_i, b_j>; -1 and -inf if none is kept or i is left out. best_a [B, M] int64: the first
# kept i with the largest scale <a_i, b_j> - rows_i, or -1. Where kept features are NaN, any index
# or -1.
mutual_best = kernel(
    "mutual_best(Tensor a, Tensor b, Tensor? mask_a, Tensor? mask_b, Tensor? rows, Tensor? columns,"
    " float scale) -> (Tensor best_b, Tensor similarity, Tensor best_a)",
    lambda a, b, *rest: (
        _per_pixel(a, torch.int64),
        _per_pixel(a),
        _per_pixel(b, torch.int64),
    ),
)


def _per_pixel(features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return wide(features[:0]).new_empty((features.shape[0], features.shape[2]), dtype=dtype)


def contrast_step(entries: int, parts: int) -> int:
    """The number of positions of a part of the bank, a multiple of the blocks of all kernels."""
    blocks = -(-entries // CONTRAST_BLOCK)
    return max(-(-blocks // parts), 1) * CONTRAST_BLOCK


def _partial_sums(anchors: Tensor, bank: Tensor, step: int, *channels: int) -> Tensor:
    parts = torch.sym_max((bank.shape[0] + step - 1) // step, 1)
    return wide(anchors[:0]).new_empty((parts, *channels, anchors.shape[0]))


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


def _save_log_sums(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _log_sums_gradient(
    backend: str, ctx: Any, grad_rows: Tensor | None, grad_columns: Tensor | None
) -> Any:
    *sides, rows, columns = ctx.saved_tensors
    dtype = wide(sides[0][:0]).dtype
    grads = (
        torch.zeros_like(sums) if grad is None else grad.contiguous()
        for grad, sums in ((grad_rows, rows), (grad_columns, columns))
    )
    sums = (x.to(dtype) for x in (rows, columns, *grads))
    return *log_sums_backward(backend, *sides, *sums, ctx.scale), None, None, None


matching_scores.differentiable(_save_scores, _scores_gradient)
prior_scores.differentiable(_save_prior, _prior_gradient)
log_sums.differentiable(_save_log_sums, _log_sums_gradient)
