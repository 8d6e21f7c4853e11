"""log_sums, its gradient and mutual_best: one kernel each, run from both sides.

On each side the kept pixels are packed first, in their order, so that the first of equal maxima in
the packed order is the first of all. Where the tiles of one side do not fill a GPU, the other side
is cut into parts, whose results are combined in PyTorch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch
from ._common import (
    DOT,
    NO_KEY,
    NOWHERE,
    PROGRAMS,
    chained_warps,
    channel_block,
    key_of,
    load_points,
    of_key,
    products,
    query_tile,
    tile,
    tl,
    triton,
    valid_points,
)
from .points import norms_of
from .slopes import multiplied


class Side(NamedTuple):
    """The pixels of one side, kept ones first."""

    features: Tensor  # [B, D, N], as given
    mask: Tensor | None
    rows: Tensor  # [B, N, D], padded
    order: Tensor  # [B, N] int64, where each row comes from
    count: Tensor  # [B] int64, of kept pixels


@triton.jit
def part_of(program, batch, tiles, other_count, others, parts, BLOCK_K: tl.constexpr):
    """The part and image as one number, the image, and the range of the other side.

    Programs are in the order part, image, tile.
    """
    slot = program // tiles
    image = slot % batch
    step = tl.cdiv(tl.cdiv(others, BLOCK_K), parts) * BLOCK_K
    begin = (slot // batch).to(tl.int32) * step
    last = tl.load(other_count + image).to(tl.int32)
    return slot, image, begin, tl.minimum(begin + step, last)


@triton.jit(do_not_specialize=["tiles", "batch", "parts"])
def _log_sums_kernel(
    rows,
    order,
    count,
    other_rows,
    other_count,
    largest,
    sums,
    channels,
    pixels,
    others,
    scale,
    batch,
    tiles,
    parts,
    stride_b,
    stride_w,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The maximum of a tile of pixels over a part of the other side, and the sum relative to it."""
    program = tl.program_id(0).to(tl.int64)
    slot, image, begin, end = part_of(program, batch, tiles, other_count, others, parts, BLOCK_K)
    start = program % tiles * BLOCK_Q
    valid = tl.load(count + image)
    q, no_norm, pixel = query_tile(
        rows, rows, image, start, valid, pixels, channels, stride_b, 1, stride_w, stride_w,
        rows.dtype.element_ty, DOT, WHOLE, True, BLOCK_Q, BLOCK_D,
    )  # fmt: skip
    other_rows += image * others * stride_w
    if start >= valid:
        end = begin
    highest = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for j0 in range(begin, end, BLOCK_K):
        _, known, s = valid_points(
            q, no_norm, other_rows, other_rows, channels, j0, end,
            DOT, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        s = tl.where(known[None, :], scale * s, -float("inf"))
        new_highest = tl.maximum(highest, tl.max(s, axis=1))
        # -inf - -inf would be NaN
        base = tl.where(new_highest == -float("inf"), 0.0, new_highest)
        total = total * tl.exp(highest - base) + tl.sum(tl.exp(s - base[:, None]), axis=1)
        highest = new_highest
    exists = pixel < pixels
    position = tl.load(order + image * pixels + pixel, mask=exists, other=0)
    tl.store(largest + slot * pixels + position, highest, mask=exists)
    tl.store(sums + slot * pixels + position, total, mask=exists)


@triton.jit(do_not_specialize=["tiles", "chunks"])
def _log_sums_gradient_kernel(
    rows,
    order,
    count,
    sums,
    grads,
    other_rows,
    other_count,
    other_sums,
    other_grads,
    gradient,
    channels,
    pixels,
    others,
    scale,
    tiles,
    chunks,
    stride_b,
    stride_w,
    to_b,
    to_c,
    to_w,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CB: tl.constexpr,
):
    """One chunk of channels of the gradient of a tile of pixels, from all of the other side.

    The log sums and their gradients are in the packed order.
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
    own_sum = tl.load(sums + image * pixels + pixel, mask=inside, other=0.0)
    own_grad = tl.load(grads + image * pixels + pixel, mask=inside, other=0.0)
    other_rows += image * others * stride_w
    other_sums += image * others
    other_grads += image * others
    last = tl.load(other_count + image).to(tl.int32)
    if start >= valid:
        last = 0
    acc = tl.zeros([BLOCK_Q, CB], tl.float32)
    for j0 in range(0, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        known = j < last
        r = load_points(other_rows, j, known, chunk * CB, channels, CB)
        s = scale * products(
            q, (other_rows, j, known, r), channels, False, WHOLE, PRECISION, BLOCK_Q, BLOCK_K,
            BLOCK_D,
        )  # fmt: skip
        other_sum = tl.load(other_sums + j, mask=known, other=0.0)
        other_grad = tl.load(other_grads + j, mask=known, other=0.0)
        slope = own_grad[:, None] * tl.exp(s - own_sum[:, None])
        slope += other_grad[None, :] * tl.exp(s - other_sum[None, :])
        slope = tl.where(inside[:, None] & known[None, :], slope, 0.0)
        acc = multiplied(slope, r, acc, SECOND)
    exists = pixel < pixels
    position = tl.load(order + image * pixels + pixel, mask=exists, other=0)
    c = (chunk * CB + tl.arange(0, CB)).to(tl.int64)
    to = gradient + image * to_b + c[None, :] * to_c + position[:, None] * to_w
    tl.store(to, scale * acc, mask=exists[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["tiles", "batch", "parts"])
def _mutual_best_kernel(
    rows,
    order,
    count,
    other_rows,
    other_order,
    other_count,
    other_sums,
    best,
    score,
    similarity,
    channels,
    pixels,
    others,
    scale,
    batch,
    tiles,
    parts,
    stride_b,
    stride_w,
    HAS_SUMS: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The first best one of a part of the other side for a tile of pixels, its score and its
    similarity.

    The log sums are in the packed order.
    """
    program = tl.program_id(0).to(tl.int64)
    slot, image, begin, end = part_of(program, batch, tiles, other_count, others, parts, BLOCK_K)
    start = program % tiles * BLOCK_Q
    valid = tl.load(count + image)
    q, no_norm, pixel = query_tile(
        rows, rows, image, start, valid, pixels, channels, stride_b, 1, stride_w, stride_w,
        rows.dtype.element_ty, DOT, WHOLE, True, BLOCK_Q, BLOCK_D,
    )  # fmt: skip
    other_rows += image * others * stride_w
    other_order += image * others
    other_sums += image * others
    if start >= valid:
        end = begin
    highest = tl.full([BLOCK_Q], NO_KEY, tl.int32)
    argbest = tl.full([BLOCK_Q], -1, tl.int32)
    of_best = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    for j0 in range(begin, end, BLOCK_K):
        j, known, s = valid_points(
            q, no_norm, other_rows, other_rows, channels, j0, end,
            DOT, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        s *= scale
        rank = s
        if HAS_SUMS:
            rank = s - tl.load(other_sums + j, mask=known, other=0.0)[None, :]
        key = tl.where(known[None, :], key_of(rank), NO_KEY)
        most = tl.max(key, axis=1)
        first = tl.min(tl.where(key == most[:, None], j[None, :], NOWHERE), axis=1)
        own = tl.sum(tl.where(j[None, :] == first[:, None], s, 0.0), axis=1)
        argbest = tl.where(most > highest, first, argbest)
        of_best = tl.where(most > highest, own, of_best)
        highest = tl.maximum(highest, most)
    found = argbest >= 0
    exists = pixel < pixels
    position = tl.load(order + image * pixels + pixel, mask=exists, other=0)
    index = tl.load(other_order + argbest, mask=found, other=-1)
    tl.store(best + slot * pixels + position, index, mask=exists)
    value = tl.where(found, of_key(highest), -float("inf"))
    tl.store(score + slot * pixels + position, value, mask=exists)
    tl.store(similarity + slot * pixels + position, of_best, mask=exists)


def log_sums(
    a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    one, other = _side(a, mask_a), _side(b, mask_b)
    return _log_sums_of(one, other, scale), _log_sums_of(other, one, scale)


def log_sums_backward(
    a: Tensor,
    b: Tensor,
    mask_a: Tensor | None,
    mask_b: Tensor | None,
    rows: Tensor,
    columns: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    sides = _side(a, mask_a), _side(b, mask_b)
    given = (rows, grad_rows), (columns, grad_columns)
    one, other = (
        (side, *(x.gather(1, side.order) for x in sums))
        for side, sums in zip(sides, given, strict=True)
    )
    return _gradient_of(*one, *other, scale), _gradient_of(*other, *one, scale)


def mutual_best(
    a: Tensor,
    b: Tensor,
    mask_a: Tensor | None,
    mask_b: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    one, other = _side(a, mask_a), _side(b, mask_b)
    best_b, similarity = _best_of(one, other, columns, scale)
    best_a, _ = _best_of(other, one, rows, scale)
    return best_b, similarity, best_a


def _side(features: Tensor, mask: Tensor | None) -> Side:
    batch, _, pixels = features.shape
    if mask is None:
        order = torch.arange(pixels, device=features.device).expand(batch, -1).contiguous()
        count = torch.full((batch,), pixels, device=features.device)
    else:
        order = (~mask).byte().sort(dim=1, stable=True).indices
        count = mask.sum(1)
    _, rows = norms_of(features[:, :, None], DOT.value, None if mask is None else order, True)
    return Side(features, mask, rows, order, count)


def _shape_of(side: Side, other: Side, tall: bool) -> tuple[dict[str, Any], int, int]:
    """The tile, the number of tiles of an image, and the number of parts of the other side."""
    options = tile(side.features[:, :, None], other.rows, tall)
    batch, pixels = side.order.shape
    tiles = ceil_div(pixels, options["BLOCK_Q"])
    blocks = ceil_div(other.order.shape[1], options["BLOCK_K"])
    parts = max(min(PROGRAMS // max(batch * tiles, 1), blocks // 2), 1)
    return options, tiles, parts


def _log_sums_of(side: Side, other: Side, scale: float) -> Tensor:
    batch, pixels = side.order.shape
    options, tiles, parts = _shape_of(side, other, True)
    largest, sums = side.rows.new_empty((2, parts, batch, pixels), dtype=torch.float32)
    if batch * tiles:
        launch(
            _log_sums_kernel,
            parts * batch * tiles,
            side.rows,
            *(side.rows, side.order, side.count, other.rows, other.count, largest, sums),
            *(side.features.shape[1], pixels, other.order.shape[1], scale, batch, tiles, parts),
            *side.rows.stride()[:2],
            **options,
        )
    found = (largest.double() + sums.double().log()).logsumexp(0)
    return found if side.mask is None else found.masked_fill_(~side.mask, 0)


def _gradient_of(
    side: Side,
    sums: Tensor,
    grads: Tensor,
    other: Side,
    other_sums: Tensor,
    other_grads: Tensor,
    scale: float,
) -> Tensor:
    batch, channels, pixels = side.features.shape
    gradient = torch.empty_like(side.features)
    options, tiles, _ = _shape_of(side, other, True)
    half = side.rows.dtype.itemsize == 2
    block = channel_block(options, half)
    # registers also hold a tile of the gradient
    options["BLOCK_K"] = min(options["BLOCK_K"], 64 if half else 32)
    options["num_warps"] = chained_warps(options)
    chunks = ceil_div(channels, block)
    if batch * tiles * chunks:
        launch(
            _log_sums_gradient_kernel,
            batch * tiles * chunks,
            side.rows,
            *(side.rows, side.order, side.count, sums, grads),
            *(other.rows, other.count, other_sums, other_grads, gradient),
            *(channels, pixels, other.order.shape[1], scale, tiles, chunks),
            *(*side.rows.stride()[:2], *gradient.stride()),
            SECOND=options["PRECISION"] if side.features.dtype == torch.float32 else "tf32",
            CB=block,
            **options,
        )
    return gradient


def _best_of(
    side: Side, other: Side, other_sums: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    batch, pixels = side.order.shape
    # a tall tile and its keys do not fit in registers
    options, tiles, parts = _shape_of(side, other, False)
    best = side.order.new_empty((parts, batch, pixels))
    score, similarity = side.rows.new_empty((2, parts, batch, pixels), dtype=torch.float32)
    if batch * tiles:
        packed = score if other_sums is None else other_sums.gather(1, other.order)
        launch(
            _mutual_best_kernel,
            parts * batch * tiles,
            side.rows,
            *(side.rows, side.order, side.count, other.rows, other.order, other.count, packed),
            *(best, score, similarity, side.features.shape[1], pixels, other.order.shape[1]),
            *(scale, batch, tiles, parts, *side.rows.stride()[:2]),
            HAS_SUMS=other_sums is not None,
            **options,
        )
    # of equal parts the first
    part = score.argmax(0, keepdim=True)
    found, own = (x.gather(0, part)[0] for x in (best, similarity))
    if side.mask is None:
        return found, own
    return found.masked_fill_(~side.mask, -1), own.masked_fill_(~side.mask, -torch.inf)
