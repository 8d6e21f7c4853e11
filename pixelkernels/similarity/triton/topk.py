"""matching_scores for topk: the mean of the k best points of each class."""

from __future__ import annotations

from torch import Tensor

from ..._core.triton import ceil_div, launch, next_power_of_2, strides
from ._common import (
    NO_KEY,
    NOWHERE,
    TOPK,
    better_label,
    key_of,
    of_key,
    padded,
    preference,
    query_tile,
    smaller_is_better,
    tile,
    tl,
    transformed,
    triton,
    valid_points,
)

# the largest k whose points are kept in registers; for larger ones the k-th is found bit by bit
MOST_KEPT = 64


@triton.jit
def select_in_registers(
    query, query_norm, points, point_norms, channels, begin, end, direction, k,
    METRIC: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The keys of the k best points and their positions [BLOCK_Q, KEPT]; NO_KEY if there are fewer.

    The best point of a tile replaces the worst kept one while that changes any row. Among equal
    ones the last is replaced first, so that the first remain.
    """
    lane = tl.arange(0, KEPT)[None, :]
    # lanes past k are never the worst
    best = tl.zeros([BLOCK_Q, KEPT], tl.int32) + tl.where(lane < k, NO_KEY, NOWHERE)
    position = tl.zeros([BLOCK_Q, KEPT], tl.int32) - 1 - lane
    for j0 in range(begin, end, BLOCK_K):
        j, known, s = valid_points(
            query, query_norm, points, point_norms, channels, j0, end,
            METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        key = tl.where(known[None, :], key_of(s * direction), NO_KEY)
        most = tl.max(key, axis=1)
        least = tl.min(best, axis=1)
        gain = most > least
        while tl.max(gain.to(tl.int32), axis=0) > 0:
            first = tl.min(tl.where(key == most[:, None], j[None, :], NOWHERE), axis=1)
            worst = (best == least[:, None]) & (lane < k)
            last = tl.max(tl.where(worst, position, NO_KEY), axis=1)
            worst = worst & (position == last[:, None]) & gain[:, None]
            best = tl.where(worst, most[:, None], best)
            position = tl.where(worst, first[:, None], position)
            key = tl.where(gain[:, None] & (j[None, :] == first[:, None]), NO_KEY, key)
            most = tl.max(key, axis=1)
            least = tl.min(best, axis=1)
            gain = most > least
    return tl.where(lane < k, best, NO_KEY), position


@triton.jit
def select_by_bits(
    query, query_norm, points, point_norms, channels, begin, end, direction, a, b, k,
    METRIC: tl.constexpr, TRANSFORM: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The sum of the k <= end - begin best, the key of the k-th, the position of the last one.

    The key of the k-th is found bit by bit, with a pass over the points for each bit.
    """
    # with the sign bit flipped, keys are in the order of unsigned integers
    highest = tl.full([BLOCK_Q], 2**31, tl.uint32)
    threshold = tl.zeros([BLOCK_Q], tl.uint32)
    for bit in range(0, 32):
        trial = threshold | (highest >> bit)
        floor = (trial ^ highest).to(tl.int32, bitcast=True)
        count = tl.zeros([BLOCK_Q], tl.int32)
        for j0 in range(begin, end, BLOCK_K):
            _, known, s = valid_points(
                query, query_norm, points, point_norms, channels, j0, end,
                METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            enough = known[None, :] & (key_of(s * direction) >= floor[:, None])
            count += tl.sum(enough.to(tl.int32), axis=1)
        threshold = tl.where(count >= k, trial, threshold)
    threshold = (threshold ^ highest).to(tl.int32, bitcast=True)
    total = tl.zeros([BLOCK_Q], tl.float32)
    better_count = tl.zeros([BLOCK_Q], tl.int32)
    for j0 in range(begin, end, BLOCK_K):
        _, known, s = valid_points(
            query, query_norm, points, point_norms, channels, j0, end,
            METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        better = known[None, :] & (key_of(s * direction) > threshold[:, None])
        better_count += tl.sum(better.to(tl.int32), axis=1)
        total += tl.sum(tl.where(better, transformed(a * s + b, TRANSFORM), 0.0), axis=1)
    ties = k - better_count
    total += ties.to(tl.float32) * transformed(a * (of_key(threshold) * direction) + b, TRANSFORM)
    position = tl.full([BLOCK_Q], -1, tl.int32)
    for j0 in range(begin, end, BLOCK_K):
        j, known, s = valid_points(
            query, query_norm, points, point_norms, channels, j0, end,
            METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        equal = known[None, :] & (key_of(s * direction) == threshold[:, None])
        nth = tl.cumsum(equal.to(tl.int32), axis=1)
        last = equal & (nth == ties[:, None])
        position = tl.maximum(position, tl.max(tl.where(last, j[None, :], -1), axis=1))
        ties -= tl.sum(equal.to(tl.int32), axis=1)
    return total, threshold, position


@triton.jit(do_not_specialize=["tiles", "k", "num_points", "num_classes"])
def _topk_scores_kernel(
    query,
    query_norms,
    points,
    point_norms,
    offsets,
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
    k,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    METRIC: tl.constexpr,
    TRANSFORM: tl.constexpr,
    KEPT: tl.constexpr,
    FLAT: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of query pixels against all points, class by class.

    KEPT: the lanes of `select_in_registers`, or 0 for `select_by_bits`. A class with fewer than k
    points uses all.
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
    a = tl.load(scale)
    b = tl.load(shift)
    direction = preference(a, METRIC, TOPK)
    smaller = smaller_is_better(a, METRIC)
    worst = tl.where(smaller, float("inf"), -float("inf"))
    rank = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    label = tl.full([BLOCK_Q], -1, tl.int64)
    for c in range(0, num_classes):
        begin = tl.load(offsets + c).to(tl.int32)
        end = tl.load(offsets + c + 1).to(tl.int32)
        taken = tl.minimum(end - begin, k)
        if KEPT > 0:
            best, position = select_in_registers(
                q, query_norm, points, point_norms, channels, begin, end, direction, k,
                METRIC, WHOLE, PRECISION, KEPT, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            v = transformed(a * (of_key(best) * direction) + b, TRANSFORM)
            total = tl.sum(tl.where(best > NO_KEY, v, 0.0), axis=1)
            least = tl.min(tl.where(best > NO_KEY, best, NOWHERE), axis=1)
            last = tl.max(tl.where(best == least[:, None], position, -1), axis=1)
        else:
            total, least, last = select_by_bits(
                q, query_norm, points, point_norms, channels, begin, end, direction, a, b, taken,
                METRIC, TRANSFORM, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
        present = end > begin
        score = tl.div_rn(total, tl.zeros_like(total) + tl.maximum(taken, 1).to(tl.float32))
        score = tl.where(present, score, worst)
        to = (image * num_classes + c) * pixels + pixel
        tl.store(scores + to, score, mask=inside)
        tl.store(edge + to, tl.where(present, of_key(least) * direction, 0.0), mask=inside)
        tl.store(index + to, tl.where(present, last, -1), mask=inside)
        rank, label = better_label(rank, label, score, present, smaller, c)
    tl.store(labels + image * pixels + pixel, label, mask=inside)


def topk_scores(
    query: Tensor,
    query_norms: Tensor,
    rows: Tensor,
    row_norms: Tensor,
    offsets: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    labels: Tensor,
    edge: Tensor,
    index: Tensor,
    metric: int,
    transform: int,
    k: int,
) -> None:
    """Write scores, labels, edge and index."""
    batch, channels, height, width = query.shape
    steps, flat = strides(query)
    shape = tile(query, rows, tall=False)
    tiles = ceil_div(height * width, shape["BLOCK_Q"])
    most = min(k, rows.shape[1])
    launch(
        _topk_scores_kernel,
        batch * tiles,
        query,
        *(query, query_norms, rows, row_norms, offsets, scale, shift, scores, labels, edge, index),
        *(channels, height * width, width, rows.shape[1], scores.shape[1], tiles, most, *steps),
        METRIC=metric,
        TRANSFORM=transform,
        KEPT=max(next_power_of_2(most), 16) if most <= MOST_KEPT else 0,
        FLAT=flat,
        **shape,
    )
