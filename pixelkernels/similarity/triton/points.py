"""The points in class order, or one prototype per class, and their norms."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..._core.triton import (
    ceil_div,
    flat_offsets,
    launch,
    load_tile,
    next_power_of_2,
    pixel_offsets,
    strides,
)
from ._common import (
    COSINE,
    DOT,
    IDENTITY,
    MEAN,
    PROGRAMS,
    ROUND,
    SQEUCLIDEAN,
    SUM,
    norm,
    padded,
    row_sums,
    tl,
    triton,
)


class Points(NamedTuple):
    """rows [B, P, D], padded; norms [B, P] of the metric; classes [B, P], int32, L if ignored.

    `collapsed`: row c is the prototype of class c, in float32.
    """

    rows: Tensor
    norms: Tensor
    classes: Tensor
    collapsed: bool


@triton.jit(do_not_specialize=["tiles"])
def _norms_kernel(
    features,
    order,
    norms,
    packed,
    channels,
    pixels,
    width,
    tiles,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    INVERSE: tl.constexpr,
    ORDERED: tl.constexpr,
    PACK: tl.constexpr,
    FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """The norms of a tile of pixels. ORDERED: in that order; PACK: with copies, channels last."""
    program = tl.program_id(0).to(tl.int64)
    start = program % tiles * P
    image = program // tiles
    features += image * stride_b
    pixel = start + tl.arange(0, P)
    inside = pixel < pixels
    if ORDERED:
        position = tl.load(order + image * pixels + pixel, mask=inside, other=0)
        offsets = flat_offsets(position, width, stride_h, stride_w, FLAT)
    else:
        offsets = pixel_offsets(start, width, stride_h, stride_w, P, FLAT)
    squares = tl.zeros([P, CB], tl.float32)
    for c0 in range(0, padded(channels), CB):
        x = load_tile(features, offsets, inside, c0, channels, stride_c, CB)
        if PACK:
            c = c0 + tl.arange(0, CB)
            where = packed + (image * pixels + pixel)[:, None] * padded(channels) + c[None, :]
            tl.store(where, x, mask=inside[:, None] & (c < padded(channels))[None, :])
        x = x.to(tl.float32)
        squares = tl.fma(x, x, squares)
    tl.store(norms + image * pixels + pixel, norm(row_sums(squares, P, CB), INVERSE), mask=inside)


@triton.jit(do_not_specialize=["splits", "num_classes", "chunks"])
def _class_sums_kernel(
    features,
    order,
    offsets,
    norms,
    sums,
    squares,
    channels,
    pixels,
    width,
    num_classes,
    splits,
    chunks,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    METRIC: tl.constexpr,
    FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One split of the points of one class, one chunk of channels: sum_j r_j, or r_j / |r_j|.

    For squared distances also sum_j |r_j|^2.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    slot = program // chunks
    c, image = slot // splits % num_classes, slot // splits // num_classes
    begin = tl.load(offsets + image * (num_classes + 1) + c)
    end = tl.load(offsets + image * (num_classes + 1) + c + 1)
    per_split = tl.cdiv(tl.cdiv(end - begin, splits), P) * P
    begin += slot % splits * per_split
    end = tl.minimum(begin + per_split, end)
    features += image * stride_b
    order += image * pixels
    norms += image * pixels
    acc = tl.zeros([P, CB], tl.float32)
    total = tl.zeros([P], tl.float32)
    for i in range(0, tl.cdiv(end - begin, P).to(tl.int32)):
        j = begin + i * P + tl.arange(0, P)
        known = j < end
        position = tl.load(order + j, mask=known, other=0)
        where = flat_offsets(position, width, stride_h, stride_w, FLAT)
        x = load_tile(features, where, known, chunk * CB, channels, stride_c, CB).to(tl.float32)
        if METRIC == COSINE:
            inverse = tl.load(norms + j, mask=known, other=0.0)
            acc = tl.fma(x, tl.broadcast_to(inverse[:, None], [P, CB]), acc)
        else:
            acc += x
        if METRIC == SQEUCLIDEAN:
            total += tl.load(norms + j, mask=known, other=0.0)
    column = chunk * CB + tl.arange(0, CB)
    column_sums = row_sums(tl.trans(acc), CB, P)
    tl.store(sums + slot * channels + column, column_sums, mask=column < channels)
    tl.store(squares + slot, tl.sum(total, axis=0), mask=chunk == 0)


def norms_of(features: Tensor, metric: int, order: Tensor | None, pack: bool) -> tuple:
    """The norms [B, M] of the pixels, in `order` if given, and packed copies [B, M, D], or None."""
    batch, channels, height, width = features.shape
    pixels = height * width
    norms = features.new_empty((batch, pixels), dtype=torch.float32)
    depth = ceil_div(channels, ROUND.value) * ROUND.value
    packed = features.new_empty((batch, pixels, depth)) if pack else None
    if norms.numel() and (pack or metric != DOT.value):
        block = min(next_power_of_2(channels), 64)
        steps, flat = strides(features)
        points = min(2048 // block, 128)
        tiles = ceil_div(pixels, points)
        launch(
            _norms_kernel,
            batch * tiles,
            features,
            *(
                features,
                norms if order is None else order,
                norms,
                norms if packed is None else packed,
            ),
            *(channels, pixels, width, tiles, *steps),
            INVERSE=metric == COSINE.value,
            ORDERED=order is not None,
            PACK=pack,
            FLAT=flat,
            P=points,
            CB=block,
        )
    return norms, packed


def points_of(
    reference: Tensor,
    order: Tensor,
    offsets: Tensor,
    metric: int,
    transform: int,
    reduce: int,
) -> Points:
    """The points of a call; for a sum or mean without a transform, one prototype per class."""
    batch, num_classes = len(offsets), offsets.shape[1] - 1
    collapsed = transform == IDENTITY.value and reduce in (SUM.value, MEAN.value)
    if collapsed:
        rows, norms = _prototypes(reference, order, offsets, metric)
        classes = torch.arange(num_classes, dtype=torch.int32, device=order.device)
        return Points(rows, norms, classes.expand(batch, -1).contiguous(), True)
    norms, rows = norms_of(reference, metric, order, True)
    return Points(rows, norms, classes_of(order, offsets), False)


def classes_of(order: Tensor, offsets: Tensor) -> Tensor:
    """The class of each position in `order`, int32 [B, M]; L if ignored."""
    positions = torch.arange(order.shape[1], device=order.device).expand(order.shape).contiguous()
    return torch.searchsorted(offsets[:, 1:].contiguous(), positions, right=True, out_int32=True)


def _prototypes(
    reference: Tensor, order: Tensor, offsets: Tensor, metric: int
) -> tuple[Tensor, Tensor]:
    """The mean of each class's points (of unit vectors for the cosine), and of their |r|^2."""
    batch, channels, height, width = reference.shape
    pixels, num_classes = height * width, offsets.shape[1] - 1
    norms, _ = norms_of(reference, metric, order, False)
    block = min(next_power_of_2(channels), 64)
    chunks = max(ceil_div(channels, block), 1)
    splits = max(min(PROGRAMS // max(batch * num_classes * chunks, 1), pixels // 256), 1)
    sums = norms.new_empty((batch, num_classes, splits, channels))
    squares = norms.new_empty((batch, num_classes, splits))
    steps, flat = strides(reference)
    if squares.numel():
        launch(
            _class_sums_kernel,
            squares.numel() * chunks,
            reference,
            *(reference, order, offsets, norms, sums, squares),
            *(channels, pixels, width, num_classes, splits, chunks, *steps),
            METRIC=metric,
            FLAT=flat,
            P=min(2048 // block, 128),
            CB=block,
        )
    count = offsets.diff().clamp(min=1)
    squares = squares.sum(2) / count
    rows = torch.nn.functional.pad(sums.sum(2) / count[..., None], (0, -channels % ROUND.value))
    # the mean of unit vectors is not normalised again
    return rows, torch.ones_like(squares) if metric == COSINE.value else squares
