"""matching_scores_backward: recomputes the tiles of similarities and sums their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, load_tile, pixel_offsets, strides
from ._common import (
    COSINE,
    DOT,
    SOFTMAX,
    SQEUCLIDEAN,
    chained_warps,
    channel_block,
    load_points,
    padded,
    products,
    query_tile,
    similarity,
    tile,
    tl,
    triton,
)
from .point_gradient import points_gradient
from .points import norms_of, points_of
from .slopes import derivative, multiplied, saved_of, slopes


@triton.jit(do_not_specialize=["tiles", "num_classes"])
def _softmax_means_kernel(
    grad, scores, offsets, means, pixels, num_classes, tiles, P: tl.constexpr
):
    """sum_c g_ci score_ci over the present classes: the mean in the gradient of softmax."""
    program = tl.program_id(0).to(tl.int64)
    image = program // tiles
    pixel = program % tiles * P + tl.arange(0, P)
    inside = pixel < pixels
    offsets += image * (num_classes + 1)
    total = tl.zeros([P], tl.float32)
    for c in range(0, num_classes):
        if tl.load(offsets + c + 1) > tl.load(offsets + c):
            where = (image * num_classes + c) * pixels + pixel
            g = tl.load(grad + where, mask=inside, other=0.0)
            total += g * tl.load(scores + where, mask=inside, other=0.0)
    tl.store(means + image * pixels + pixel, total, mask=inside)


@triton.jit(do_not_specialize=["tiles", "k", "num_points", "num_classes", "chunks"])
def _query_gradient_kernel(
    query,
    query_norms,
    points,
    point_norms,
    classes,
    offsets,
    grad,
    edge,
    index,
    means,
    values,
    scale,
    shift,
    gradient,
    scalars,
    channels,
    pixels,
    width,
    num_points,
    num_classes,
    tiles,
    chunks,
    k,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    grad_b,
    grad_c,
    grad_h,
    grad_w,
    METRIC: tl.constexpr,
    TRANSFORM: tl.constexpr,
    REDUCE: tl.constexpr,
    COLLAPSED: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    FLAT: tl.constexpr,
    GRAD_FLAT: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of query pixels, one chunk of channels: the gradient, summed over all points.

    The first chunk also sums the gradients of scale and shift.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    slot = program // chunks
    image = slot // tiles
    start = slot % tiles * BLOCK_Q
    q, query_norm, pixel = query_tile(
        query, query_norms, image, start, pixels, width, channels,
        stride_b, stride_c, stride_h, stride_w, points.dtype.element_ty, METRIC,
        WHOLE, FLAT, BLOCK_Q, BLOCK_D,
    )  # fmt: skip
    inside = pixel < pixels
    points += image * num_points * padded(channels)
    point_norms += image * num_points
    offsets += image * (num_classes + 1)
    saved = saved_of(
        image, grad, edge, index, means, values, classes, offsets, pixels, num_points, num_classes,
        REDUCE,
    )  # fmt: skip
    a = tl.load(scale)
    b = tl.load(shift)
    last = tl.load(offsets + num_classes).to(tl.int32)
    if COLLAPSED:
        last = num_classes
    acc = tl.zeros([BLOCK_Q, CB], tl.float32)
    along = tl.zeros([BLOCK_Q], tl.float32)
    by_scale = tl.zeros([BLOCK_Q], tl.float32)
    by_shift = tl.zeros([BLOCK_Q], tl.float32)
    for j0 in range(0, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        known = j < last
        r = load_points(points, j, known, chunk * CB, channels, CB)
        s = products(
            q, (points, j, known, r), channels, False, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D
        )
        if METRIC != DOT:
            point_norm = tl.load(point_norms + j, mask=known, other=0.0)
            s = similarity(s, query_norm[:, None], point_norm[None, :], METRIC)
        slope, _ = slopes(
            saved, s, pixel[:, None], j[None, :], inside[:, None] & known[None, :], a, b,
            pixels, num_classes, k, METRIC, TRANSFORM, REDUCE, COLLAPSED, HAS_VALUES,
        )  # fmt: skip
        moment = tl.sum(slope * s, axis=1)
        total = tl.sum(slope, axis=1)
        by_scale += moment
        by_shift += total
        slope *= a
        if METRIC == COSINE:
            along += a * moment
            slope *= point_norm[None, :]
        if METRIC == SQEUCLIDEAN:
            along += a * total
        acc = multiplied(slope, r, acc, SECOND)
    tl.store(scalars + slot * 2, tl.sum(by_scale, axis=0), mask=chunk == 0)
    tl.store(scalars + slot * 2 + 1, tl.sum(by_shift, axis=0), mask=chunk == 0)
    features, where, _, _, _ = q
    x = 0.0
    if METRIC != DOT:
        x = load_tile(features, where, inside, chunk * CB, channels, stride_c, CB).to(tl.float32)
        acc = derivative(acc, x, along[:, None], query_norm[:, None], METRIC)
    c = chunk * CB + tl.arange(0, CB)
    to = pixel_offsets(start, width, grad_h, grad_w, BLOCK_Q, GRAD_FLAT)
    to = gradient + image * grad_b + (to[:, None] + c[None, :].to(tl.int64) * grad_c)
    tl.store(to, acc, mask=inside[:, None] & (c < channels)[None, :])


def matching_scores_backward(
    grad_scores: Tensor,
    query: Tensor,
    reference: Tensor,
    order: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    edge: Tensor,
    index: Tensor,
    metric: int,
    transform: int,
    reduce: int,
    k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if grad_scores.numel() == 0:
        return (
            torch.empty_like(query),
            torch.zeros_like(reference),
            scale.new_empty(0) if values is None else torch.zeros_like(values),
            torch.zeros_like(scale),
            torch.zeros_like(shift),
        )
    batch, channels, height, width = query.shape
    pixels, num_classes = height * width, scores.shape[1]
    points = points_of(reference, order, offsets, metric, transform, reduce)
    query_norms, _ = norms_of(query, metric, None, False)
    means = query_norms
    if reduce == SOFTMAX.value:
        means = torch.empty_like(query_norms)
        tiles = ceil_div(pixels, 256)
        launch(
            _softmax_means_kernel,
            batch * tiles,
            query,
            *(grad_scores, scores, offsets, means, pixels, num_classes, tiles),
            P=256,
        )
    shape = tile(query, points.rows, tall=False)
    block = channel_block(shape, points.rows.dtype == torch.bfloat16)
    steps, flat = strides(query)
    options = {
        **shape,
        # registers also hold a tile of the gradient
        "BLOCK_K": min(shape["BLOCK_K"], 32),
        "num_warps": 8,
        "METRIC": metric,
        "TRANSFORM": transform,
        "REDUCE": reduce,
        "COLLAPSED": points.collapsed,
        "HAS_VALUES": values is not None,
        "FLAT": flat,
        "SECOND": shape["PRECISION"] if query.dtype == torch.float32 else "tf32",
        "CB": block,
    }
    ordered = scores if values is None else values.gather(1, order)
    saved = (grad_scores, edge, index, means, ordered, scale, shift)
    tiles = ceil_div(pixels, shape["BLOCK_Q"])
    chunks = max(ceil_div(channels, block), 1)
    grad_query = torch.empty_like(query)
    scalars = scores.new_empty((batch * tiles, 2))
    grad_steps, grad_flat = strides(grad_query)
    launch(
        _query_gradient_kernel,
        batch * tiles * chunks,
        query,
        *(query, query_norms, points.rows, points.norms, points.classes, offsets),
        *(*saved, grad_query, scalars),
        *(channels, pixels, width, points.rows.shape[1], num_classes),
        *(tiles, chunks, k, *steps, *grad_steps),
        GRAD_FLAT=grad_flat,
        **(options | {"num_warps": chained_warps(shape)}),
    )
    grad_reference, by_values = points_gradient(
        query, query_norms, points, reference, order, offsets, saved, k, options
    )
    grad_values = scale.new_empty(0)
    if values is not None:
        # `order` is a permutation
        grad_values = torch.zeros_like(values).scatter_(1, order, by_values)
    by_scale, by_shift = scalars.sum(0)
    return grad_query, grad_reference, grad_values, by_scale.clone(), by_shift.clone()
