"""prior_scores: the largest cosine with a support pixel of the mask."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, strides
from ._common import (
    DOT,
    NO_KEY,
    NOWHERE,
    SQEUCLIDEAN,
    key_of,
    of_key,
    padded,
    query_tile,
    tile,
    tl,
    triton,
    valid_points,
)
from .points import norms_of


@triton.jit(do_not_specialize=["tiles", "num_points"])
def _prior_kernel(
    query,
    query_squares,
    points,
    point_squares,
    weights,
    order,
    counts,
    scores,
    index,
    channels,
    pixels,
    width,
    num_points,
    tiles,
    eps,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    FLAT: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of query pixels against the support pixels of nonzero weight.

    Weights are applied after the product: <q, w s> = w <q, s>. If there are pixels of weight 0, the
    maximum starts at their score, 0.
    """
    program = tl.program_id(0).to(tl.int64)
    image = program // tiles
    q, square, pixel = query_tile(
        query, query_squares, image, program % tiles * BLOCK_Q, pixels, width, channels,
        stride_b, stride_c, stride_h, stride_w, points.dtype.element_ty, SQEUCLIDEAN,
        WHOLE, FLAT, BLOCK_Q, BLOCK_D,
    )  # fmt: skip
    length = tl.sqrt_rn(square)
    points += image * num_points * padded(channels)
    point_squares += image * num_points
    weights += image * num_points
    order += image * num_points
    count = tl.load(counts + image).to(tl.int32)
    all_weighted = (count == num_points) & (count > 0)
    best = tl.full([BLOCK_Q], NO_KEY, tl.int32)
    best = tl.where(all_weighted, best, key_of(tl.zeros([BLOCK_Q], tl.float32)))
    argbest = tl.full([BLOCK_Q], -1, tl.int32)
    for j0 in range(0, count, BLOCK_K):
        j, known, product = valid_points(
            q, square, points, point_squares, channels, j0, count,
            DOT, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        w = tl.load(weights + j, mask=known, other=0.0)
        point_length = tl.sqrt_rn(tl.load(point_squares + j, mask=known, other=1.0)) * w
        cosine = product * w[None, :] / (length[:, None] * point_length[None, :] + eps)
        key = tl.where(known[None, :], key_of(cosine), NO_KEY)
        most = tl.max(key, axis=1)
        first = tl.min(tl.where(key == most[:, None], j[None, :], NOWHERE), axis=1)
        argbest = tl.where(most > best, first, argbest)
        best = tl.maximum(best, most)
    inside = pixel < pixels
    tl.store(scores + image * pixels + pixel, of_key(best), mask=inside)
    flat_index = tl.load(order + argbest, mask=argbest >= 0, other=-1).to(tl.int32)
    tl.store(index + image * pixels + pixel, flat_index, mask=inside)


def prior_scores(
    query: Tensor, support: Tensor, weights: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = query.shape
    pixels = height * width
    scores = query.new_empty((batch, height, width), dtype=torch.float32)
    index = scores.new_empty(scores.shape, dtype=torch.int32)
    if scores.numel() == 0:
        return scores, index
    weights = weights.flatten(1)
    # pixels of nonzero weight first, in order
    order = (weights == 0).byte().argsort(dim=1, stable=True)
    counts = (weights != 0).sum(1)
    squares, rows = norms_of(support, SQEUCLIDEAN.value, order, True)
    query_squares, _ = norms_of(query, SQEUCLIDEAN.value, None, False)
    # a tall tile and the norms of its pixels do not fit in registers
    shape = tile(query, rows, tall=False)
    tiles = ceil_div(pixels, shape["BLOCK_Q"])
    steps, flat = strides(query)
    launch(
        _prior_kernel,
        batch * tiles,
        query,
        *(query, query_squares, rows, squares, weights.gather(1, order), order, counts),
        *(scores, index, channels, pixels, width, rows.shape[1], tiles, eps, *steps),
        FLAT=flat,
        **shape,
    )
    return scores, index
