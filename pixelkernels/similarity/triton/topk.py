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

# As many as fit the registers. More are found by halving.
FEW = 64


@triton.jit
def kept(
    query, query_norm, points, point_norms, channels, begin, end, toward, k,
    METRIC: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The keys of the k best points and where they are, in [BLOCK_Q, KEPT], NO_KEY where none is.

    The best of a tile replaces the worst of those kept, for as long as that changes any row. Of
    equal ones the last goes first, so that the first stay.
    """
    lane = tl.arange(0, KEPT)[None, :]
    # the lanes past k are never the worst, the others are replaced one by one
    best = tl.zeros([BLOCK_Q, KEPT], tl.int32) + tl.where(lane < k, NO_KEY, NOWHERE)
    at = tl.zeros([BLOCK_Q, KEPT], tl.int32) - 1 - lane
    for j0 in range(begin, end, BLOCK_K):
        j, known, s = valid_points(
            query, query_norm, points, point_norms, channels, j0, end,
            METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        key = tl.where(known[None, :], key_of(s * toward), NO_KEY)
        most = tl.max(key, axis=1)
        least = tl.min(best, axis=1)
        gain = most > least
        while tl.max(gain.to(tl.int32), axis=0) > 0:
            first = tl.min(tl.where(key == most[:, None], j[None, :], NOWHERE), axis=1)
            worst = (best == least[:, None]) & (lane < k)
            last = tl.max(tl.where(worst, at, NO_KEY), axis=1)
            worst = worst & (at == last[:, None]) & gain[:, None]
            best = tl.where(worst, most[:, None], best)
            at = tl.where(worst, first[:, None], at)
            key = tl.where(gain[:, None] & (j[None, :] == first[:, None]), NO_KEY, key)
            most = tl.max(key, axis=1)
            least = tl.min(best, axis=1)
            gain = most > least
    return tl.where(lane < k, best, NO_KEY), at


@triton.jit
def halved(
    query, query_norm, points, point_norms, channels, begin, end, toward, a, b, k,
    METRIC: tl.constexpr, TRANSFORM: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The sum of the k <= end - begin best, the key of the k-th, and where the last one taken is.

    The highest key that k points reach is found bit by bit: a pass over the points for each.
    """
    # with the sign flipped keys order as unsigned integers do
    highest = tl.full([BLOCK_Q], 2**31, tl.uint32)
    reached = tl.zeros([BLOCK_Q], tl.uint32)
    for bit in range(0, 32):
        trial = reached | (highest >> bit)
        floor = (trial ^ highest).to(tl.int32, bitcast=True)
        count = tl.zeros([BLOCK_Q], tl.int32)
        for j0 in range(begin, end, BLOCK_K):
            _, known, s = valid_points(
                query, query_norm, points, point_norms, channels, j0, end,
                METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            enough = known[None, :] & (key_of(s * toward) >= floor[:, None])
            count += tl.sum(enough.to(tl.int32), axis=1)
        reached = tl.where(count >= k, trial, reached)
    reached = (reached ^ highest).to(tl.int32, bitcast=True)
    total = tl.zeros([BLOCK_Q], tl.float32)
    above = tl.zeros([BLOCK_Q], tl.int32)
    for j0 in range(begin, end, BLOCK_K):
        _, known, s = valid_points(
            query, query_norm, points, point_norms, channels, j0, end,
            METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        better = known[None, :] & (key_of(s * toward) > reached[:, None])
        above += tl.sum(better.to(tl.int32), axis=1)
        total += tl.sum(tl.where(better, transformed(a * s + b, TRANSFORM), 0.0), axis=1)
    equals = k - above
    total += equals.to(tl.float32) * transformed(a * (of_key(reached) * toward) + b, TRANSFORM)
    at = tl.full([BLOCK_Q], -1, tl.int32)
    for j0 in range(begin, end, BLOCK_K):
        j, known, s = valid_points(
            query, query_norm, points, point_norms, channels, j0, end,
            METRIC, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        equal = known[None, :] & (key_of(s * toward) == reached[:, None])
        nth = tl.cumsum(equal.to(tl.int32), axis=1)
        last = equal & (nth == equals[:, None])
        at = tl.maximum(at, tl.max(tl.where(last, j[None, :], -1), axis=1))
        equals -= tl.sum(equal.to(tl.int32), axis=1)
    return total, reached, at


@triton.jit(do_not_specialize=["tiles", "k"])
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
    place,
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
    """One tile of query pixels against all points, class by class. KEPT: lanes for the best, or 0.

    In a class of fewer points all are taken.
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
    toward = preference(a, METRIC, TOPK)
    smaller = smaller_is_better(a, METRIC)
    worst = tl.where(smaller, float("inf"), -float("inf"))
    rank = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    label = tl.full([BLOCK_Q], -1, tl.int64)
    for c in range(0, num_classes):
        begin = tl.load(offsets + c).to(tl.int32)
        end = tl.load(offsets + c + 1).to(tl.int32)
        taken = tl.minimum(end - begin, k)
        if KEPT > 0:
            best, at = kept(
                q, query_norm, points, point_norms, channels, begin, end, toward, k,
                METRIC, WHOLE, PRECISION, KEPT, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            v = transformed(a * (of_key(best) * toward) + b, TRANSFORM)
            total = tl.sum(tl.where(best > NO_KEY, v, 0.0), axis=1)
            least = tl.min(tl.where(best > NO_KEY, best, NOWHERE), axis=1)
            last = tl.max(tl.where(best == least[:, None], at, -1), axis=1)
        else:
            total, least, last = halved(
                q, query_norm, points, point_norms, channels, begin, end, toward, a, b, taken,
                METRIC, TRANSFORM, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
            )  # fmt: skip
        present = end > begin
        score = tl.div_rn(total, tl.zeros_like(total) + tl.maximum(taken, 1).to(tl.float32))
        score = tl.where(present, score, worst)
        to = (image * num_classes + c) * pixels + pixel
        tl.store(scores + to, score, mask=inside)
        tl.store(edge + to, tl.where(present, of_key(least) * toward, 0.0), mask=inside)
        tl.store(place + to, tl.where(present, last, -1), mask=inside)
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
    place: Tensor,
    metric: int,
    transform: int,
    k: int,
) -> None:
    """Fills scores, labels, edge and place."""
    batch, channels, height, width = query.shape
    steps, flat = strides(query)
    shape = tile(query, rows, tall=False)
    tiles = ceil_div(height * width, shape["BLOCK_Q"])
    most = min(k, rows.shape[1])
    launch(
        _topk_scores_kernel,
        batch * tiles,
        query,
        *(query, query_norms, rows, row_norms, offsets, scale, shift, scores, labels, edge, place),
        *(channels, height * width, width, rows.shape[1], scores.shape[1], tiles, most, *steps),
        METRIC=metric,
        TRANSFORM=transform,
        KEPT=max(next_power_of_2(most), 16) if most <= FEW else 0,
        FLAT=flat,
        **shape,
    )
