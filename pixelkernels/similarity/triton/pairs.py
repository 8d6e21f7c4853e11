"""pair_terms: all pairs, in tiles, once per tile of x and, for the gradient, once per tile of y."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch
from ._common import (
    DOT,
    chained_warps,
    channel_block,
    load_points,
    products,
    query_tile,
    softplus,
    tile,
    tl,
    triton,
)
from .points import norms_of
from .slopes import multiplied


@triton.jit
def cross_entropy(z, same):
    """softplus(z) - t z and its derivative sigmoid(z) - t, with t = 1 where `same`, else 0."""
    sign = tl.where(same, -1.0, 1.0)
    value, slope = softplus(z * sign)
    return value, sign * slope


@triton.jit(do_not_specialize=["tiles", "chunks"])
def _pairs_kernel(
    rows,
    labels,
    order,
    count,
    other_rows,
    other_labels,
    other_count,
    affine,
    gradient,
    totals,
    channels,
    pixels,
    others,
    tiles,
    chunks,
    stride_b,
    stride_w,
    TOTALS: tl.constexpr,
    GRADIENT: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of one side against all pixels of the other, one chunk of channels of the gradient.

    On both sides, valid pixels come first. TOTALS: the first chunk writes the sums.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    slot = program // chunks
    image = slot // tiles
    start = slot % tiles * BLOCK_Q
    valid = tl.load(count + image)
    q, _, pixel = query_tile(
        rows, rows, image, start, valid, pixels, channels, stride_b, 1, stride_w, stride_w,
        rows.dtype.element_ty, DOT, WHOLE, True, BLOCK_Q, BLOCK_D,
    )  # fmt: skip
    inside = pixel < valid
    label = tl.load(labels + image * pixels + pixel, mask=inside, other=-1)
    other_rows += image * others * stride_w
    other_labels += image * others
    a = tl.load(affine)
    shift = tl.load(affine + 1)
    alpha = tl.load(affine + 2)
    beta = tl.load(affine + 3)
    last = tl.load(other_count + image).to(tl.int32)
    if start >= valid:
        last = 0
    acc = tl.zeros([BLOCK_Q, CB], tl.float32)
    losses = tl.zeros([BLOCK_Q], tl.float32)
    by_shift = tl.zeros([BLOCK_Q], tl.float32)
    by_scale = tl.zeros([BLOCK_Q], tl.float32)
    for j0 in range(0, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        known = j < last
        r = load_points(other_rows, j, known, chunk * CB, channels, CB)
        s = products(
            q, (other_rows, j, known, r), channels, False, WHOLE, PRECISION, BLOCK_Q, BLOCK_K,
            BLOCK_D,
        )  # fmt: skip
        other = tl.load(other_labels + j, mask=known, other=-1)
        loss, slope = cross_entropy(a * s + shift, label[:, None] == other[None, :])
        valid_pairs = inside[:, None] & known[None, :]
        if TOTALS:
            losses += tl.sum(tl.where(valid_pairs, loss, 0.0), axis=1)
            slope = tl.where(valid_pairs, slope, 0.0)
            by_shift += tl.sum(slope, axis=1)
            by_scale += tl.sum(slope * s, axis=1)
        if GRADIENT:
            rest = tl.where(valid_pairs, slope - (alpha + beta * s), 0.0)
            acc = multiplied(rest, r, acc, SECOND)
    if TOTALS:
        first = chunk == 0
        tl.store(totals + slot * 3, tl.sum(losses, axis=0), mask=first)
        tl.store(totals + slot * 3 + 1, tl.sum(by_shift, axis=0), mask=first)
        tl.store(totals + slot * 3 + 2, tl.sum(by_scale, axis=0), mask=first)
    if GRADIENT:
        exists = pixel < pixels
        position = tl.load(order + image * pixels + pixel, mask=exists, other=0)
        c = chunk * CB + tl.arange(0, CB)
        to = (image * channels + c[None, :]) * pixels + position[:, None]
        tl.store(gradient + to, a * acc, mask=exists[:, None] & (c < channels)[None, :])


def pair_terms(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    affine: Tensor,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x_side, y_side = _side(x, x_labels), _side(y, y_labels)
    totals, grad_x = _visit(x, x_side, y_side, affine, True, gradient)
    grad_y = affine.new_empty(0)
    if gradient:
        _, grad_y = _visit(y, y_side, x_side, affine, False, True)
    return totals, grad_x, grad_y


def _side(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows [B, N, D], labels and positions [B, N], valid pixels first; their number [B]."""
    valid = labels >= 0
    order = (~valid).byte().sort(dim=1, stable=True).indices
    _, rows = norms_of(features, DOT.value, order, True)
    return rows, labels.long().gather(1, order), order, valid.sum(1)


def _visit(
    features: Tensor,
    side: tuple[Tensor, Tensor, Tensor, Tensor],
    other: tuple[Tensor, Tensor, Tensor, Tensor],
    affine: Tensor,
    with_totals: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    batch, channels = features.shape[:2]
    rows, labels, order, count = side
    other_rows, other_labels, _, other_count = other
    pixels = rows.shape[1]
    options: dict[str, Any] = tile(features, other_rows)
    half = rows.dtype.itemsize == 2
    block = channel_block(options, half)
    if gradient:
        # registers also hold a tile of the gradient, and for the totals the loss of each pair
        narrow = with_totals or not half
        options["BLOCK_K"] = min(options["BLOCK_K"], 32 if narrow else 64)
        options["num_warps"] = chained_warps(options)
    tiles = ceil_div(pixels, options["BLOCK_Q"])
    chunks = max(ceil_div(channels, block), 1) if gradient else 1
    totals = affine.new_empty((batch * tiles if with_totals else 0, 3))
    result = affine.new_empty((batch, channels, pixels) if gradient else 0)
    if batch * tiles:
        launch(
            _pairs_kernel,
            batch * tiles * chunks,
            features,
            *(rows, labels, order, count, other_rows, other_labels, other_count),
            *(affine, result, totals, channels, pixels, other_rows.shape[1]),
            *(tiles, chunks, *rows.stride()[:2]),
            TOTALS=with_totals,
            GRADIENT=gradient,
            SECOND=options["PRECISION"] if features.dtype == torch.float32 else "tf32",
            CB=block,
            **options,
        )
    return totals.double().sum(0), result
