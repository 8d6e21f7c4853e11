"""contrast_pass and contrast_bank_gradient: anchors and entries of the bank, both by label.

The entries are loaded through their order, because a packed copy would be as large as the bank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._core.numerics import wide
from ..._core.triton import ceil_div, launch, load_tile, next_power_of_2
from ._common import NOWHERE, ROUND, chained_warps, padded, softplus, tile, tl, triton
from .slopes import multiplied


@triton.jit
def _similarities(
    own, others, scale, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """s [BLOCK_Q, BLOCK_K] between the rows of two sides.

    A side: the features, the offsets of its rows, which of these count, the stride of the channels,
    and the tile of the rows if it holds all channels (WHOLE).
    """
    features, offsets, inside, channels, stride, whole = own
    other_features, other_offsets, known, other_channels, other_stride, other_whole = others
    product = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    if WHOLE:
        product = tl.dot(whole, tl.trans(other_whole), product, input_precision=PRECISION)
    else:
        for c0 in range(0, channels, BLOCK_D):
            q = load_tile(features, offsets, inside, c0, channels, stride, BLOCK_D)
            r = load_tile(
                other_features, other_offsets, known, c0, other_channels, other_stride, BLOCK_D
            )
            product = tl.dot(q, tl.trans(r), product, input_precision=PRECISION)
    return scale * product


@triton.jit(do_not_specialize=["tiles", "chunks", "step"])
def _contrast_pass_kernel(
    anchors,
    bank,
    order,
    ranges,
    valid,
    log_sum,
    first,
    second,
    rows,
    scale,
    channels,
    number,
    tiles,
    chunks,
    step,
    stride_m,
    stride_d,
    FIRST_PASS: tl.constexpr,
    NEGATIVES: tl.constexpr,
    GRADIENT: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of anchors against one part of the bank, one chunk of channels of the rows.

    The first chunk writes the sums. Neighbouring programs read the same part, from the caches.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    slot = program // chunks
    part = slot // tiles
    i0 = slot % tiles * BLOCK_Q
    i = i0 + tl.arange(0, BLOCK_Q)
    inside = i < tl.load(valid)
    start = tl.load(ranges + i, mask=inside, other=0).to(tl.int32)
    end = tl.load(ranges + number + i, mask=inside, other=0).to(tl.int32)
    itself = tl.load(ranges + 2 * number + i, mask=inside, other=-1).to(tl.int32)
    begin = (part * step).to(tl.int32)
    last = tl.minimum(part * step + step, tl.load(valid + 1)).to(tl.int32)
    # the steps of the loop that leave out `skipped` others
    before = 0
    skipped = 0
    if FIRST_PASS and NEGATIVES:
        # positives of all anchors of the tile
        some = tl.maximum(tl.max(start, axis=0) - begin, 0)
        all_end = tl.min(tl.where(inside, end, NOWHERE), axis=0)
        before = tl.cdiv(some, BLOCK_K)
        skipped = tl.maximum((tl.minimum(all_end, last) - begin) // BLOCK_K - before, 0)
    if not FIRST_PASS:
        begin = tl.maximum(begin, tl.min(tl.where(inside, start, NOWHERE), axis=0))
        last = tl.minimum(last, tl.max(end, axis=0))
    steps = tl.cdiv(tl.maximum(last - begin, 0), BLOCK_K) - skipped
    if i0 >= tl.load(valid):
        steps = 0

    depth = padded(channels)
    offsets = i * depth
    q = load_tile(anchors, offsets, inside, chunk * CB, depth, 1, CB)
    edge = 0.0
    if not FIRST_PASS:
        edge = tl.load(log_sum + i, mask=inside, other=0.0)
    highest = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    losses = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, CB], tl.float32)
    for k in range(0, steps):
        j = begin + (k + tl.where(k < before, 0, skipped)) * BLOCK_K + tl.arange(0, BLOCK_K)
        known = j < last
        entry = tl.load(order + j, mask=known, other=0) * stride_m
        r = load_tile(bank, entry, known, chunk * CB, channels, stride_d, CB)
        s = _similarities(
            (anchors, offsets, inside, depth, 1, q), (bank, entry, known, channels, stride_d, r),
            scale, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        same = (j[None, :] >= start[:, None]) & (j[None, :] < end[:, None])
        other = j[None, :] != itself[:, None]
        if FIRST_PASS:
            compared = known[None, :] & (~same if NEGATIVES else other)
            s = tl.where(compared, s, -float("inf"))
            new_highest = tl.maximum(highest, tl.max(s, axis=1))
            # -inf - -inf would be NaN
            base = tl.where(new_highest == -float("inf"), 0.0, new_highest)
            weight = tl.exp(s - base[:, None])
            decay = tl.exp(highest - base)
            highest = new_highest
            total *= decay
            acc *= decay[:, None]
        else:
            positive = known[None, :] & same & other
            loss = edge[:, None] - s
            if NEGATIVES:
                loss, weight = softplus(loss)
                weight = tl.where(positive, weight, 0.0)
            else:
                weight = tl.where(positive & (s == s), 1.0, 0.0)
            losses += tl.sum(tl.where(positive, loss, 0.0), axis=1)
        total += tl.sum(weight, axis=1)
        if GRADIENT:
            acc = multiplied(weight, r, acc, SECOND)
    exists = i < number
    to = part * number + i
    tl.store(first + to, highest if FIRST_PASS else losses, mask=exists & (chunk == 0))
    tl.store(second + to, total, mask=exists & (chunk == 0))
    if GRADIENT:
        c = chunk * CB + tl.arange(0, CB)
        to = (part * channels + c[None, :]) * number + i[:, None]
        tl.store(rows + to, acc, mask=exists[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["entries", "chunks"])
def _contrast_bank_kernel(
    anchors,
    bank,
    order,
    ranges,
    valid,
    log_sum,
    weights,
    gradient,
    scale,
    channels,
    number,
    entries,
    chunks,
    stride_m,
    stride_d,
    grad_m,
    grad_d,
    NEGATIVES: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of the bank in its order, one chunk of channels: the sum over all anchors."""
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    j0 = program // chunks * BLOCK_Q
    j = j0 + tl.arange(0, BLOCK_Q)
    exists = j < entries
    counted = tl.load(valid + 1)
    known = j < counted
    entry = tl.load(order + j, mask=exists, other=0)
    offsets = entry * stride_m
    q = load_tile(bank, offsets, known, chunk * CB, channels, stride_d, CB)
    j = j.to(tl.int32)
    depth = padded(channels)
    last = tl.load(valid).to(tl.int32)
    if j0 >= counted:
        last = 0
    acc = tl.zeros([BLOCK_Q, CB], tl.float32)
    for i0 in range(0, last, BLOCK_K):
        i = i0 + tl.arange(0, BLOCK_K)
        inside = i < last
        at = i.to(tl.int64) * depth
        a = load_tile(anchors, at, inside, chunk * CB, depth, 1, CB)
        s = _similarities(
            (bank, offsets, known, channels, stride_d, q), (anchors, at, inside, depth, 1, a),
            scale, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        start = tl.load(ranges + i, mask=inside, other=0).to(tl.int32)
        end = tl.load(ranges + number + i, mask=inside, other=0).to(tl.int32)
        itself = tl.load(ranges + 2 * number + i, mask=inside, other=-1).to(tl.int32)
        edge = tl.load(log_sum + i, mask=inside, other=0.0)
        u = tl.load(weights + i, mask=inside, other=0.0)
        v = tl.load(weights + number + i, mask=inside, other=0.0)
        same = (j[:, None] >= start[None, :]) & (j[:, None] < end[None, :])
        other = j[:, None] != itself[None, :]
        share = tl.exp(s - edge[None, :])
        pull = tl.broadcast_to(v[None, :], [BLOCK_Q, BLOCK_K])
        if NEGATIVES:
            # without negatives, edge is -inf and share inf
            pull /= 1 + share
        slope = u[None, :] * tl.where(~same if NEGATIVES else other, share, 0.0)
        acc = multiplied(slope - tl.where(same & other, pull, 0.0), a, acc, SECOND)
    # NaN in the anchors times the zeros of entries that do not count
    acc = tl.where(known[:, None], acc, 0.0)
    c = chunk * CB + tl.arange(0, CB)
    to = gradient + (entry[:, None] * grad_m + c[None, :].to(tl.int64) * grad_d)
    tl.store(to, acc, mask=exists[:, None] & (c < channels)[None, :])


def contrast_pass(
    anchors: Tensor,
    bank: Tensor,
    order: Tensor,
    ranges: Tensor,
    valid: Tensor,
    log_sum: Tensor | None,
    scale: float,
    negatives: bool,
    gradient: bool,
    step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    is_first = log_sum is None
    number, channels = anchors.shape
    parts = max(ceil_div(bank.shape[0], step), 1)
    like = wide(anchors[:0])
    first, second = (like.new_empty((parts, number)) for _ in range(2))
    rows = like.new_empty((parts, channels, number) if gradient else 0)
    if first.numel():
        options, chunks = _options(anchors, bank, parts, gradient, is_first, not is_first)
        tiles = ceil_div(number, options["BLOCK_Q"])
        launch(
            _contrast_pass_kernel,
            parts * tiles * chunks,
            anchors,
            *(_padded_rows(anchors), bank, order, ranges, valid, first if is_first else log_sum),
            *(first, second, rows, scale, channels, number, tiles, chunks, step, *bank.stride()),
            FIRST_PASS=is_first,
            NEGATIVES=negatives,
            GRADIENT=gradient,
            **options,
        )
    return first, second, rows


def contrast_bank_gradient(
    anchors: Tensor,
    bank: Tensor,
    order: Tensor,
    ranges: Tensor,
    valid: Tensor,
    log_sum: Tensor,
    weights: Tensor,
    scale: float,
    negatives: bool,
) -> Tensor:
    if len(anchors) == 0 or bank.numel() == 0:
        return torch.zeros_like(bank)
    gradient = torch.empty_like(bank)
    options, chunks = _options(bank, anchors, 1, True, tall=True, narrow=True)
    launch(
        _contrast_bank_kernel,
        ceil_div(len(bank), options["BLOCK_Q"]) * chunks,
        bank,
        *(_padded_rows(anchors), bank, order, ranges, valid, log_sum, weights, gradient, scale),
        *(bank.shape[1], len(anchors), len(bank), chunks, *bank.stride(), *gradient.stride()),
        NEGATIVES=negatives,
        **options,
    )
    return gradient


def _padded_rows(anchors: Tensor) -> Tensor:
    """Rows whose loads are vectorised, the anchors themselves if theirs are."""
    missing = -anchors.shape[1] % ROUND.value
    return torch.nn.functional.pad(anchors, (0, missing)) if missing else anchors


def _options(
    own: Tensor, others: Tensor, parts: int, gradient: bool, tall: bool, narrow: bool
) -> tuple[dict[str, Any], int]:
    """Tile shape, warps and stages for `own` against `others`; the number of chunks.

    A kernel that sums rows holds these in registers. Whatever else takes registers makes its tiles
    smaller: loads that are not vectorised, rows converted to float32, softplus, six numbers for
    each anchor.
    """
    channels = own.shape[1]
    options = tile(own.mT[:, None].expand(parts, -1, -1, -1), others[None], tall)
    aligned = channels % ROUND.value == 0
    block = options["BLOCK_D"]
    if not options["WHOLE"]:
        block = min(next_power_of_2(channels), 256 if aligned else 128)
    if gradient:
        narrow = narrow or not aligned or own.dtype != torch.bfloat16
        options["BLOCK_K"] = min(options["BLOCK_K"], 32 if narrow else 64)
    options["num_warps"] = chained_warps(options)
    options["SECOND"] = options["PRECISION"] if own.dtype == torch.float32 else "tf32"
    chunks = max(ceil_div(channels, block), 1) if gradient else 1
    return options | {"CB": block}, chunks
