"""matching_scores: tiles of similarities, reduced over each class on the fly.

max, min and topk select points by int32 keys in the order of the similarities, and transform only
the selected ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, load_tile, pixel_offsets, strides
from ._common import (
    COSINE,
    DOT,
    MAX,
    MEAN,
    MIN,
    NO_KEY,
    NOWHERE,
    SOFTMAX,
    SUM,
    TOPK,
    better_label,
    key_of,
    load_points,
    norm,
    of_key,
    padded,
    preference,
    query_tile,
    row_sums,
    similarity,
    smaller_is_better,
    tile,
    tl,
    transformed,
    triton,
    valid_points,
)
from .points import norms_of, points_of
from .topk import topk_scores


@triton.jit(do_not_specialize=["tiles", "num_points", "num_classes"])
def _scores_kernel(
    query,
    query_norms,
    points,
    point_norms,
    offsets,
    values,
    scale,
    shift,
    scores,
    labels,
    edge,
    index,
    channels,
    pixels,
    width,
    num_points,
    num_classes,
    tiles,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    METRIC: tl.constexpr,
    TRANSFORM: tl.constexpr,
    REDUCE: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    ONE_CLASS: tl.constexpr,
    FLAT: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of query pixels against all points, class by class.

    softmax takes two passes over the points, the first for the logsumexp. With ONE_CLASS it takes
    one, with sums relative to the running maximum.
    """
    program = tl.program_id(0).to(tl.int64)
    image = program // tiles
    q, query_norm, pixel = query_tile(
        query, query_norms, image, program % tiles * BLOCK_Q, pixels, width, channels,
        stride_b, stride_c, stride_h, stride_w, points.dtype.element_ty, METRIC,
        WHOLE, FLAT, BLOCK_Q, BLOCK_D,
    )  # fmt: skip
    inside = pixel < pixels
    points += image * num_points * padded(channels)
    point_norms += image * num_points
    offsets += image * (num_classes + 1)
    values += image * num_points
    a = tl.load(scale)
    b = tl.load(shift)
    direction = preference(a, METRIC, REDUCE)
    smaller = smaller_is_better(a, METRIC)
    worst = tl.where(smaller, float("inf"), -float("inf"))

    highest = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    denominator = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    if REDUCE == SOFTMAX:
        last = tl.load(offsets + num_classes).to(tl.int32)
        for j0 in range(0, last, BLOCK_K):
            j, known, s = valid_points(
                q, query_norm, points, point_norms, channels, j0, last,
                METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            v = tl.where(known[None, :], transformed(a * s + b, TRANSFORM), -float("inf"))
            new_highest = tl.maximum(highest, tl.max(v, axis=1))
            # -inf - -inf would be NaN
            base = tl.where(new_highest == -float("inf"), 0.0, new_highest)
            part = tl.exp(v - base[:, None])
            decay = tl.exp(highest - base)
            denominator = denominator * decay + tl.sum(part, axis=1)
            if ONE_CLASS:
                if HAS_VALUES:
                    part *= tl.load(values + j, mask=known, other=0.0)[None, :]
                total = total * decay + tl.sum(part, axis=1)
            highest = new_highest
        base = tl.where(highest == -float("inf"), 0.0, highest)
        log_sum = tl.where(last > 0, base + tl.log(denominator), 0.0)
        tl.store(edge + image * pixels + pixel, log_sum, mask=inside)

    rank = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    label = tl.full([BLOCK_Q], -1, tl.int64)
    for c in range(0, num_classes):
        begin = tl.load(offsets + c).to(tl.int32)
        end = tl.load(offsets + c + 1).to(tl.int32)
        to = (image * num_classes + c) * pixels + pixel
        best = tl.full([BLOCK_Q], NO_KEY, tl.int32)
        argbest = tl.full([BLOCK_Q], -1, tl.int32)
        if REDUCE != SOFTMAX or not ONE_CLASS:
            total = tl.zeros([BLOCK_Q], tl.float32)
            for j0 in range(begin, end, BLOCK_K):
                j, known, s = valid_points(
                    q, query_norm, points, point_norms, channels, j0, end,
                    METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
                )  # fmt: skip
                if (REDUCE == MAX) | (REDUCE == MIN):
                    key = tl.where(known[None, :], key_of(s * direction), NO_KEY)
                    most = tl.max(key, axis=1)
                    first = tl.min(tl.where(key == most[:, None], j[None, :], NOWHERE), axis=1)
                    argbest = tl.where(most > best, first, argbest)
                    best = tl.maximum(best, most)
                else:
                    v = transformed(a * s + b, TRANSFORM)
                    if REDUCE == SOFTMAX:
                        v = tl.exp(v - base[:, None])
                        if HAS_VALUES:
                            v *= tl.load(values + j, mask=known, other=0.0)[None, :]
                    total += tl.sum(tl.where(known[None, :], v, 0.0), axis=1)
        score = total
        if REDUCE == SOFTMAX:
            # exp(v - log_sum) would round to the precision of a large log_sum
            score = tl.div_rn(total, denominator)
        if REDUCE == MEAN:
            score = tl.div_rn(total, tl.zeros_like(total) + (end - begin).to(tl.float32))
        if (REDUCE == MAX) | (REDUCE == MIN):
            score = transformed(a * (of_key(best) * direction) + b, TRANSFORM)
            tl.store(index + to, argbest, mask=inside)
        present = end > begin
        score = tl.where(present, score, worst)
        tl.store(scores + to, score, mask=inside)
        rank, label = better_label(rank, label, score, present, smaller, c)
    tl.store(labels + image * pixels + pixel, label, mask=inside)


@triton.jit(do_not_specialize=["tiles", "num_classes"])
def _prototype_scores_kernel(
    query,
    prototypes,
    prototype_norms,
    offsets,
    scale,
    shift,
    scores,
    labels,
    channels,
    pixels,
    width,
    num_classes,
    tiles,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    METRIC: tl.constexpr,
    REDUCE: tl.constexpr,
    FLAT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of query pixels against the prototypes: the mean of the similarities, or the sum.

    The query is read once if the classes fit one tile; its norms are computed on the fly.
    """
    program = tl.program_id(0).to(tl.int64)
    image = program // tiles
    start = program % tiles * BLOCK_Q
    query += image * stride_b
    pixel = start + tl.arange(0, BLOCK_Q)
    inside = pixel < pixels
    where = pixel_offsets(start, width, stride_h, stride_w, BLOCK_Q, FLAT)
    prototypes += image * num_classes * padded(channels)
    prototype_norms += image * num_classes
    offsets += image * (num_classes + 1)
    scores += image * num_classes * pixels
    a = tl.load(scale)
    b = tl.load(shift)
    smaller = smaller_is_better(a, METRIC)
    worst = tl.where(smaller, float("inf"), -float("inf"))
    highest = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    label = tl.full([BLOCK_Q], -1, tl.int32)
    has_number = tl.zeros([BLOCK_Q], tl.int32)
    for first in range(0, num_classes, BLOCK_K):
        c = first + tl.arange(0, BLOCK_K)
        known = c < num_classes
        square = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        s = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
        for c0 in range(0, channels, BLOCK_D):
            q = load_tile(query, where, inside, c0, channels, stride_c, BLOCK_D).to(tl.float32)
            r = load_points(prototypes, c, known, c0, channels, BLOCK_D)
            if METRIC != DOT:
                square = tl.fma(q, q, square)
            s = tl.dot(q, tl.trans(r), s, input_precision=PRECISION)
        squares = tl.load(prototype_norms + c, mask=known, other=0.0)
        query_norm = norm(row_sums(square, BLOCK_Q, BLOCK_D), METRIC == COSINE)
        s = similarity(s, query_norm[:, None], squares[None, :], METRIC)
        begin = tl.load(offsets + c, mask=known, other=0)
        count = tl.load(offsets + c + 1, mask=known, other=0) - begin
        present = (count > 0)[None, :]
        score = a * s + b
        if REDUCE == SUM:
            score *= count.to(tl.float32)[None, :]
        score = tl.where(present, score, worst)
        to = scores + c.to(tl.int64)[None, :] * pixels + pixel[:, None]
        tl.store(to, score, mask=inside[:, None] & known[None, :])
        rank = tl.where(smaller, -score, score)
        number = present & (rank == rank)
        rank = tl.where(number, rank, -float("inf"))
        most = tl.max(rank, axis=1)
        some = tl.max(number.to(tl.int32), axis=1)
        # classes with -inf have the rank of absent ones and of NaN: select the known ones first
        candidate = number | (present & (some == 0)[:, None])
        best = tl.where(candidate & (rank == most[:, None]), c[None, :], NOWHERE)
        best = tl.min(best, axis=1)
        take = (best < NOWHERE) & ((label < 0) | (most > highest) | (some > has_number))
        has_number = tl.maximum(has_number, some)
        label = tl.where(take, best, label)
        highest = tl.where(take, most, highest)
    tl.store(labels + image * pixels + pixel, label.to(tl.int64), mask=inside)


def matching_scores(
    query: Tensor,
    reference: Tensor,
    order: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    metric: int,
    transform: int,
    reduce: int,
    k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, channels, height, width = query.shape
    pixels, num_classes = height * width, offsets.shape[1] - 1
    scores = query.new_empty((batch, num_classes, height, width), dtype=torch.float32)
    labels = query.new_empty((batch, height, width), dtype=torch.int64)
    edges = {TOPK.value: num_classes, SOFTMAX.value: 1}.get(reduce, 0)
    edge = scores.new_empty((batch, edges, height, width))
    indices = num_classes if reduce in (MAX.value, MIN.value, TOPK.value) else 0
    index = scores.new_empty((batch, indices, height, width), dtype=torch.int32)
    result = (scores, labels, edge, index)
    if labels.numel() == 0:
        return result
    points = points_of(reference, order, offsets, metric, transform, reduce)
    steps, flat = strides(query)
    shape = tile(query, points.rows)
    tiles = ceil_div(pixels, shape["BLOCK_Q"])
    if points.collapsed:
        del shape["WHOLE"]
        launch(
            _prototype_scores_kernel,
            batch * tiles,
            query,
            *(query, points.rows, points.norms, offsets, scale, shift, scores, labels),
            *(channels, pixels, width, num_classes, tiles, *steps),
            METRIC=metric,
            REDUCE=reduce,
            FLAT=flat,
            **shape,
        )
        return result
    query_norms, _ = norms_of(query, metric, None, False)
    inputs = (query, query_norms, points.rows, points.norms, offsets)
    if reduce == TOPK.value:
        topk_scores(*inputs, scale, shift, *result, metric, transform, k)
        return result
    ordered = None if values is None else values.gather(1, order)
    launch(
        _scores_kernel,
        batch * tiles,
        query,
        *(*inputs, scores if ordered is None else ordered, scale, shift, *result),
        *(channels, pixels, width, order.shape[1], num_classes, tiles, *steps),
        METRIC=metric,
        TRANSFORM=transform,
        REDUCE=reduce,
        HAS_VALUES=ordered is not None,
        ONE_CLASS=num_classes == 1,
        FLAT=flat,
        **shape,
    )
    return result
