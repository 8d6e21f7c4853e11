"""The gradients of matching_scores in the reference and in the values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._core.triton import ceil_div, flat_offsets, launch, load_tile, next_power_of_2, strides
from ._common import (
    COSINE,
    DOT,
    PROGRAMS,
    SQEUCLIDEAN,
    load_points,
    padded,
    products,
    query_tile,
    similarity,
    tl,
    triton,
)
from .points import Points, classes_of, norms_of
from .slopes import derivative, multiplied, saved_of, slopes


@triton.jit(do_not_specialize=["tiles", "splits", "k", "num_points", "num_classes", "chunks"])
def _points_gradient_kernel(
    query,
    query_norms,
    points,
    point_norms,
    classes,
    offsets,
    order,
    grad,
    edge,
    index,
    means,
    values,
    scale,
    shift,
    gradient,
    along,
    by_values,
    channels,
    pixels,
    width,
    num_points,
    num_classes,
    point_width,
    tiles,
    splits,
    chunks,
    pixels_per_split,
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
    DIRECT: tl.constexpr,
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
    """One tile of points, one chunk of channels, one split of the query: the sums over it.

    DIRECT: there is one split, so finish the gradient and write it to the points' positions.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    split = program // chunks % splits
    slot = program // chunks // splits
    image = slot // tiles
    j = (slot % tiles * BLOCK_K).to(tl.int32) + tl.arange(0, BLOCK_K)
    points += image * num_points * padded(channels)
    offsets += image * (num_classes + 1)
    last = tl.load(offsets + num_classes).to(tl.int32)
    if COLLAPSED:
        last = num_classes
    known = j < last
    r = load_points(points, j, known, chunk * CB, channels, CB)
    point_norm = 0.0
    if METRIC != DOT:
        point_norm = tl.load(point_norms + image * num_points + j, mask=known, other=0.0)
    saved = saved_of(
        image, grad, edge, index, means, values, classes, offsets, pixels, num_points, num_classes,
        REDUCE,
    )  # fmt: skip
    a = tl.load(scale)
    b = tl.load(shift)
    acc = tl.zeros([BLOCK_K, CB], tl.float32)
    total = tl.zeros([BLOCK_K], tl.float32)
    by_value = tl.zeros([BLOCK_K], tl.float32)
    first = split * pixels_per_split
    for i in range(0, tl.cdiv(tl.minimum(pixels_per_split, pixels - first), BLOCK_Q).to(tl.int32)):
        start = first + i * BLOCK_Q
        q, query_norm, pixel = query_tile(
            query, query_norms, image, start, pixels, width, channels,
            stride_b, stride_c, stride_h, stride_w, points.dtype.element_ty, METRIC,
            WHOLE, FLAT, BLOCK_Q, BLOCK_D,
        )  # fmt: skip
        inside = pixel < pixels
        features, where, _, _, x = q
        s = products(
            q, (points, j, known, r), channels, True, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D
        )
        if METRIC != DOT:
            s = similarity(s, query_norm[None, :], point_norm[:, None], METRIC)
        slope, weight = slopes(
            saved, s, pixel[None, :], j[:, None], known[:, None] & inside[None, :], a, b,
            pixels, num_classes, k, METRIC, TRANSFORM, REDUCE, COLLAPSED, HAS_VALUES,
        )  # fmt: skip
        if HAS_VALUES:
            by_value += tl.sum(weight, axis=1)
        slope *= a
        if METRIC == COSINE:
            total += tl.sum(slope * s, axis=1)
            slope *= query_norm[None, :]
        if METRIC == SQEUCLIDEAN:
            total += tl.sum(slope, axis=1)
        if not WHOLE:
            x = load_tile(features, where, inside, chunk * CB, channels, stride_c, CB)
            x = x.to(points.dtype.element_ty)
        acc = multiplied(slope, x, acc, SECOND)
    c = chunk * CB + tl.arange(0, CB)
    rows = tl.num_programs(0) // (splits * chunks * tiles) * num_points
    row = split * rows + image * num_points + j
    exists = j < num_points
    if HAS_VALUES:
        tl.store(by_values + row, by_value, mask=exists & (chunk == 0))
    if DIRECT:
        if METRIC != DOT:
            acc = derivative(acc, r.to(tl.float32), total[:, None], point_norm[:, None], METRIC)
        # NaN in the query times the zeros of ignored points
        acc = tl.where(known[:, None], acc, 0.0)
        position = tl.load(order + image * num_points + j, mask=exists, other=0)
        to = flat_offsets(position, point_width, grad_h, grad_w, GRAD_FLAT)
        to = gradient + image * grad_b + (to[:, None] + c[None, :].to(tl.int64) * grad_c)
    else:
        tl.store(along + row, total, mask=exists & (chunk == 0))
        channels = padded(channels)
        to = gradient + row[:, None] * channels + c[None, :]
    tl.store(to, acc, mask=exists[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["tiles", "num_points", "num_classes"])
def _finish_kernel(
    reference,
    order,
    classes,
    offsets,
    norms,
    sums,
    along,
    gradient,
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
    grad_b,
    grad_c,
    grad_h,
    grad_w,
    METRIC: tl.constexpr,
    COLLAPSED: tl.constexpr,
    FLAT: tl.constexpr,
    GRAD_FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of reference points: their gradients from the sums [B, K, D], or [B, L, D]."""
    program = tl.program_id(0).to(tl.int64)
    image = program // tiles
    j = program % tiles * P + tl.arange(0, P)
    inside = j < pixels
    offsets += image * (num_classes + 1)
    label = tl.load(classes + image * pixels + j, mask=inside, other=num_classes)
    known = label < num_classes
    position = tl.load(order + image * pixels + j, mask=inside, other=0)
    where = flat_offsets(position, width, stride_h, stride_w, FLAT)
    to = flat_offsets(position, width, grad_h, grad_w, GRAD_FLAT)
    reference += image * stride_b
    gradient += image * grad_b
    row = image * num_points + (label if COLLAPSED else j)
    share = tl.full([P], 1.0, tl.float32)
    if COLLAPSED:
        count = tl.load(offsets + label + 1, mask=known, other=1)
        count -= tl.load(offsets + label, mask=known, other=0)
        share = tl.div_rn(share, count.to(tl.float32))
    along_x = tl.zeros([P], tl.float32)
    if METRIC != DOT:
        own = tl.load(norms + image * pixels + j, mask=known, other=0.0)
        if METRIC == COSINE and COLLAPSED:
            # the normalisation of each point
            for c0 in range(0, channels, CB):
                x = load_tile(reference, where, known, c0, channels, stride_c, CB).to(tl.float32)
                along_x += tl.sum(x * load_points(sums, row, known, c0, channels, CB), axis=1)
            along_x *= own
        else:
            along_x = tl.load(along + row, mask=known, other=0.0)
    for c0 in range(0, channels, CB):
        value = load_points(sums, row, known, c0, channels, CB)
        if METRIC != DOT:
            x = load_tile(reference, where, known, c0, channels, stride_c, CB).to(tl.float32)
            value = derivative(value, x, along_x[:, None], own[:, None], METRIC)
        value = tl.where(known[:, None], value * share[:, None], 0.0)
        c = c0 + tl.arange(0, CB)
        target = gradient + (to[:, None] + c[None, :].to(tl.int64) * grad_c)
        tl.store(target, value, mask=inside[:, None] & (c < channels)[None, :])


def points_gradient(
    query: Tensor,
    query_norms: Tensor,
    points: Points,
    reference: Tensor,
    order: Tensor,
    offsets: Tensor,
    saved: tuple[Tensor, ...],
    k: int,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """The gradients in the reference, and in the values [B, K], in class order."""
    batch, num_points, depth = points.rows.shape
    _, channels, height, width = query.shape
    pixels, num_classes = height * width, offsets.shape[1] - 1
    gradient = torch.empty_like(reference)
    if order.numel() == 0:
        return gradient, points.norms
    block, query_block = options["CB"], options["BLOCK_Q"]
    chunks = max(ceil_div(channels, block), 1)
    tiles = ceil_div(num_points, options["BLOCK_K"])
    # the parts take at most 16 MiB: PROGRAMS tiles of 64 points and 128 channels
    splits = min(PROGRAMS // (batch * tiles * chunks), ceil_div(pixels, 4 * query_block))
    splits = max(splits, 1)
    per_split = ceil_div(ceil_div(pixels, splits), query_block) * query_block
    splits = ceil_div(pixels, per_split)
    direct = splits == 1 and not points.collapsed
    parts = (splits, batch, num_points)
    sums = points.norms.new_empty(0 if direct else (*parts, depth))
    along = points.norms.new_empty(0 if direct else parts)
    by_values = points.norms.new_empty(parts if options["HAS_VALUES"] else 0)
    steps, _ = strides(query)
    grad_steps, grad_flat = strides(gradient)
    point_width = reference.shape[3]
    launch(
        _points_gradient_kernel,
        batch * tiles * splits * chunks,
        query,
        *(query, query_norms, points.rows, points.norms, points.classes, offsets, order),
        *(*saved, gradient if direct else sums, along, by_values),
        *(channels, pixels, width, num_points, num_classes, point_width),
        *(tiles, splits, chunks, per_split, k, *steps, *grad_steps),
        DIRECT=direct,
        GRAD_FLAT=grad_flat,
        **options,
    )
    if not direct and channels:
        metric = options["METRIC"]
        norms, classes = points.norms, points.classes
        if points.collapsed:
            norms, _ = norms_of(reference, metric, order, False)
            classes = classes_of(order, offsets)
        steps, flat = strides(reference)
        width = min(next_power_of_2(channels), 64)
        rows = min(2048 // width, 128)
        tiles = ceil_div(order.shape[1], rows)
        launch(
            _finish_kernel,
            batch * tiles,
            query,
            *(reference, order, classes, offsets, norms, sums.sum(0), along.sum(0), gradient),
            *(channels, order.shape[1], point_width, num_points, num_classes, tiles),
            *(*steps, *grad_steps),
            METRIC=metric,
            COLLAPSED=points.collapsed,
            FLAT=flat,
            GRAD_FLAT=grad_flat,
            P=rows,
            CB=width,
        )
    return gradient, by_values.sum(0)
