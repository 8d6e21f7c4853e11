"""region_stats and region_pull: sums over the pixels of each region, in blocks, then merged."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, load_tile, next_power_of_2, pixel_offsets, strides
from ._common import (
    MOMENTS,
    PULL_1,
    PULL_2,
    UNIT_MOMENTS,
    as_bytes,
    gather_rows,
    hinge,
    load_labels,
    sign,
    split,
    tile,
    tl,
    triton,
)


@triton.jit
def truncate_to_bfloat16(x):
    """x truncated to the 8 significant bits of bfloat16."""
    return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["blocks", "num_regions", "chunks"])
def _region_partials_kernel(
    features,
    labels,
    means,
    shifts,
    sums,
    counts,
    spreads,
    num_regions,
    channels,
    pixels,
    width,
    blocks,
    chunks,
    pixels_per_block,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    delta,
    MODE: tl.constexpr,
    FLAT: tl.constexpr,
    WHOLE: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One block of pixels, one chunk of channels: per region a count, a row of sums and a scalar.

    Moments: the sums are of x - shift. The scalar is the sum of squared distances to the mean of
    the block, merged tile by tile (Chan et al.), without cancellation. The shift is close to the
    mean of a tile with many pixels of the region, and equal to the value of a constant region.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = program % chunks
    block = program // chunks % blocks
    image = program // chunks // blocks
    first_channel = (chunk * CB).to(tl.int32)
    c = first_channel + tl.arange(0, CB)
    rows = program // chunks * num_regions * channels + c
    features += image * stride_b
    labels += image * pixels
    means += image * num_regions * channels
    counts += program * num_regions
    spreads += program * num_regions

    for r in range(0, num_regions, P):
        lane = r + tl.arange(0, P)
        tl.store(counts + lane, tl.zeros([P], tl.int32), mask=lane < num_regions)

    # the accumulators of the current region, which rarely changes
    current = num_regions
    count = 0
    spread = 0.0
    total = tl.zeros([CB], tl.float32)
    shift = tl.zeros([CB], tl.float32)

    begin = block * pixels_per_block
    end = tl.minimum(begin + pixels_per_block, pixels)
    inside = begin + tl.arange(0, P) < end
    label_ahead = load_labels(labels, begin + tl.arange(0, P), inside, num_regions)
    offsets = pixel_offsets(begin, width, stride_h, stride_w, P, FLAT)
    x_ahead = load_tile(features, offsets, inside, first_channel, channels, stride_c, CB)
    for i in range(0, tl.cdiv(end - begin, P).to(tl.int32)):
        label = label_ahead
        x = x_ahead.to(tl.float32)
        if not WHOLE:
            here = pixel_offsets(begin + i * P, width, stride_h, stride_w, P, FLAT)
            inside_here = begin + i * P + tl.arange(0, P) < end
        # prefetch the next tile
        ahead = begin + (i + 1) * P
        inside = ahead + tl.arange(0, P) < end
        label_ahead = load_labels(labels, ahead + tl.arange(0, P), inside, num_regions)
        offsets = pixel_offsets(ahead, width, stride_h, stride_w, P, FLAT)
        x_ahead = load_tile(features, offsets, inside, first_channel, channels, stride_c, CB)

        if MODE == UNIT_MOMENTS:
            square = tl.zeros([P], tl.float32)
            if WHOLE:
                square = tl.sum(x * x, axis=1)
            else:
                for c0 in range(0, channels, 32):
                    y = load_tile(features, here, inside_here, c0, channels, stride_c, 32)
                    y = y.to(tl.float32)
                    square += tl.sum(y * y, axis=1)
            norm = tl.sqrt_rn(square)
            x = x * tl.div_rn(1.0, tl.where(norm == 0, 1.0, norm))[:, None]
        if MODE >= PULL_1:
            known = label < num_regions
            distance = tl.zeros([P], tl.float32)
            if not WHOLE:
                for c0 in range(0, channels, 32):
                    y = load_tile(features, here, inside_here, c0, channels, stride_c, 32)
                    m = gather_rows(means, label, known, c0, channels, channels, 1, 32)
                    y = y.to(tl.float32) - m
                    distance += tl.sum(y * y if MODE == PULL_2 else tl.abs(y), axis=1)
            x -= gather_rows(means, label, known, first_channel, channels, channels, 1, CB)
            if WHOLE:
                distance = tl.sum(x * x if MODE == PULL_2 else tl.abs(x), axis=1)
            if MODE == PULL_2:
                distance = tl.sqrt_rn(distance)
            pull = hinge(distance, delta)
            if MODE == PULL_2:
                x *= tl.where(distance == 0, 0.0, tl.div_rn(pull, distance))[:, None]
            else:
                x = sign(x) * pull[:, None]

        region = tl.min(label, axis=0)
        while region < num_regions:
            mine = label == region
            count_here = tl.sum(mine.to(tl.int32), axis=0)
            if region != current:
                known_before = current < num_regions
                row = rows + current.to(tl.int64) * channels
                tl.store(sums + row, total, mask=(c < channels) & known_before)
                tl.store(counts + current, count, mask=known_before)
                tl.store(spreads + current, spread, mask=known_before)
                # other threads may load what was just stored
                tl.debug_barrier()
                current = region
                row = rows + region.to(tl.int64) * channels
                count = tl.load(counts + region)
                spread = tl.load(spreads + region, mask=count > 0, other=0.0)
                total = tl.load(sums + row, mask=(c < channels) & (count > 0), other=0.0)
                if MODE <= UNIT_MOMENTS:
                    shift = tl.load(shifts + row, mask=(c < channels) & (count > 0), other=0.0)
            if MODE <= UNIT_MOMENTS:
                if count < count_here:
                    # The new shift: a value of the region, plus its distance to the mean of this
                    # tile, truncated so that sums of small integers stay exact.
                    center = tl.max(tl.where(mine[:, None], x, -float("inf")), axis=0)
                    off = tl.sum(tl.where(mine[:, None], x - center[None, :], 0.0), axis=0)
                    center += truncate_to_bfloat16(off / count_here)
                    total += count * (shift - center)
                    shift = center
                    row = rows + region.to(tl.int64) * channels
                    tl.store(shifts + row, shift, mask=c < channels)
                deviation = tl.where(mine[:, None], x - shift[None, :], 0.0)
                sum_here = tl.sum(deviation, axis=0)
                mean_here = sum_here / count_here
                deviation = tl.where(mine[:, None], deviation - mean_here[None, :], 0.0)
                # 0 for the first tile, where total and count are 0
                gap = mean_here - total / tl.maximum(count, 1)
                between = count.to(tl.float32) * count_here / (count + count_here)
                spread += tl.sum(deviation * deviation) + tl.sum(gap * gap) * between
            else:
                sum_here = tl.sum(tl.where(mine[:, None], x, 0.0), axis=0)
                spread += tl.sum(tl.where(mine, pull * pull, 0.0), axis=0)
            total += sum_here
            count += count_here
            label = tl.where(mine, num_regions, label)
            region = tl.min(label, axis=0)

    if current < num_regions:
        tl.store(sums + rows + current.to(tl.int64) * channels, total, mask=c < channels)
        tl.store(counts + current, count)
        tl.store(spreads + current, spread)


@triton.jit(do_not_specialize=["blocks", "num_regions", "chunks"])
def _merge_moments_kernel(
    shifts,
    sums,
    counts,
    spreads,
    count,
    mean,
    variance,
    num_regions,
    channels,
    blocks,
    chunks,
    NB: tl.constexpr,
    CB: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """One region of one image: merge its blocks in order, relative to the shift of the largest."""
    program = tl.program_id(0).to(tl.int64)
    image, region = program // num_regions, program % num_regions
    j = tl.arange(0, CHUNKS)

    total = tl.zeros([], tl.int64)
    spread = 0.0
    most = 0
    largest_block = 0
    for k0 in range(0, blocks, NB):
        k = k0 + tl.arange(0, NB)
        slot = (image * blocks + k) * chunks
        n = tl.load(counts + slot * num_regions + region, mask=k < blocks, other=0)
        total += tl.sum(n.to(tl.int64), axis=0)
        most_here = tl.max(n, axis=0)
        largest_here = tl.min(tl.where(n == most_here, k, blocks), axis=0)
        largest_block = tl.where(most_here > most, largest_here, largest_block)
        most = tl.maximum(most, most_here)
        where = spreads + (slot[:, None] + j[None, :]) * num_regions + region
        within = tl.load(where, mask=(n > 0)[:, None] & (j < chunks)[None, :], other=0.0)
        spread += tl.sum(tl.sum(within, axis=1), axis=0)
    divisor = tl.maximum(total, 1).to(tl.float32)

    for c0 in range(0, channels, CB):
        c = c0 + tl.arange(0, CB)
        row = ((image * blocks + largest_block) * num_regions + region) * channels + c
        reference = tl.load(shifts + row, mask=(c < channels) & (most > 0), other=0.0)
        offset = tl.zeros([CB], tl.float32)
        for k0 in range(0, blocks, NB):
            rows = (image * blocks + k0) * num_regions + region
            n, shift, sum_ = _load_blocks(
                shifts, sums, counts, rows, blocks - k0, c, num_regions, channels, chunks, NB
            )
            from_mean = tl.where((n > 0)[:, None], shift - reference[None, :], 0.0)
            offset += tl.sum(n[:, None] * from_mean + sum_, axis=0)
        offset = offset / divisor
        between = tl.zeros([CB], tl.float32)
        for k0 in range(0, blocks, NB):
            rows = (image * blocks + k0) * num_regions + region
            n, shift, sum_ = _load_blocks(
                shifts, sums, counts, rows, blocks - k0, c, num_regions, channels, chunks, NB
            )
            from_mean = (shift - reference[None, :]) + sum_ / tl.maximum(n, 1)[:, None]
            from_mean = tl.where((n > 0)[:, None], from_mean - offset[None, :], 0.0)
            between += tl.sum(n[:, None] * from_mean * from_mean, axis=0)
        spread += tl.sum(between, axis=0)
        tl.store(mean + program * channels + c, reference + offset, mask=c < channels)
    tl.store(count + program, total)
    tl.store(variance + program, spread / divisor)


@triton.jit
def _load_blocks(
    shifts, sums, counts, row, blocks, c, num_regions, channels, chunks, NB: tl.constexpr
):
    """Count [NB], shift and sum [NB, CB] of a region in the blocks from `row` on; 0 if absent."""
    k = tl.arange(0, NB)
    # counts have one row per chunk of channels, all equal
    block, region = row // num_regions, row % num_regions
    n = tl.load(counts + (block + k) * chunks * num_regions + region, mask=k < blocks, other=0)
    where = (row + k.to(tl.int64) * num_regions)[:, None] * channels + c[None, :]
    inside = (n > 0)[:, None] & (c < channels)[None, :]
    shift = tl.load(shifts + where, mask=inside, other=0.0)
    return n, shift, tl.load(sums + where, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["blocks", "num_regions", "chunks"])
def _merge_pull_kernel(
    sums,
    counts,
    spreads,
    pull,
    direction,
    num_regions,
    channels,
    blocks,
    chunks,
    NB: tl.constexpr,
    CB: tl.constexpr,
):
    """One region of one image: the sum over its blocks, in order."""
    program = tl.program_id(0).to(tl.int64)
    image, region = program // num_regions, program % num_regions
    pulls = tl.zeros([NB], tl.float32)
    for k0 in range(0, blocks, NB):
        k = k0 + tl.arange(0, NB)
        # all chunks of channels have the same pull
        slot = (image * blocks + k) * chunks * num_regions + region
        n = tl.load(counts + slot, mask=k < blocks, other=0)
        pulls += tl.load(spreads + slot, mask=n > 0, other=0.0)
    tl.store(pull + program, tl.sum(pulls, axis=0))
    for c0 in range(0, channels, CB):
        c = c0 + tl.arange(0, CB)
        total = tl.zeros([CB], tl.float32)
        for k0 in range(0, blocks, NB):
            k = k0 + tl.arange(0, NB)
            slot = image * blocks + k
            n = tl.load(counts + slot * chunks * num_regions + region, mask=k < blocks, other=0)
            row = (slot * num_regions + region)[:, None] * channels + c[None, :]
            inside = (n > 0)[:, None] & (c < channels)[None, :]
            total += tl.sum(tl.load(sums + row, mask=inside, other=0.0), axis=0)
        tl.store(direction + program * channels + c, total, mask=c < channels)


def region_stats(
    features: Tensor, labels: Tensor, num_regions: int, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, _, _ = features.shape
    table = (batch, num_regions)
    count = features.new_zeros(table, dtype=torch.int64)
    mean = features.new_zeros((*table, channels), dtype=torch.float32)
    variance = features.new_zeros(table, dtype=torch.float32)
    if labels.numel() == 0:
        return count, mean, variance
    mode = UNIT_MOMENTS if normalize else MOMENTS
    shifts, sums, counts, spreads = _partials(features, labels, None, num_regions, mode.value, 0.0)
    _, blocks, chunks, _ = counts.shape
    launch(
        _merge_moments_kernel,
        batch * num_regions,
        features,
        *(shifts, sums, counts, spreads, count, mean, variance),
        *(num_regions, channels, blocks, chunks),
        CHUNKS=next_power_of_2(chunks),
        **_merge_tile(blocks, channels),
    )
    return count, mean, variance


def region_pull(
    features: Tensor, labels: Tensor, num_regions: int, delta: float, norm: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, mean, pull = region_stats(features, labels, num_regions, False)
    direction = torch.zeros_like(mean)
    if labels.numel() == 0:
        return count, mean, pull, direction
    mode = PULL_1 if norm == 1 else PULL_2
    _, sums, counts, spreads = _partials(features, labels, mean, num_regions, mode.value, delta)
    batch, blocks, chunks, _ = counts.shape
    channels = features.shape[1]
    launch(
        _merge_pull_kernel,
        batch * num_regions,
        features,
        *(sums, counts, spreads, pull, direction),
        *(num_regions, channels, blocks, chunks),
        **_merge_tile(blocks, channels),
    )
    return count, mean, pull, direction


def _partials(
    features: Tensor,
    labels: Tensor,
    means: Tensor | None,
    num_regions: int,
    mode: int,
    delta: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per block: shifts, sums [B, blocks, R, C] and counts, spreads [B, blocks, chunks, R]."""
    batch, channels, height, width = features.shape
    pixels = height * width
    # the other modes need all channels of a pixel in one program
    shape = tile(channels, 32 if mode == MOMENTS.value else 128)
    chunks = max(ceil_div(channels, shape["CB"]), 1)
    blocks, per_block = split(batch, pixels, channels, chunks, num_regions)
    sums = features.new_empty((batch, blocks, num_regions, channels), dtype=torch.float32)
    shifts = torch.empty_like(sums) if means is None else sums
    counts = features.new_empty((batch, blocks, chunks, num_regions), dtype=torch.int32)
    spreads = torch.empty_like(counts, dtype=torch.float32)
    steps, flat = strides(features)
    launch(
        _region_partials_kernel,
        batch * blocks * chunks,
        features,
        *(features, as_bytes(labels), sums if means is None else means),
        *(shifts, sums, counts, spreads),
        *(num_regions, channels, pixels, width, blocks, chunks, per_block, *steps, delta),
        MODE=mode,
        FLAT=flat,
        WHOLE=chunks == 1 or mode == MOMENTS.value,
        **shape,
    )
    return shifts, sums, counts, spreads


def _merge_tile(blocks: int, channels: int) -> dict[str, int]:
    block = min(next_power_of_2(channels), 256)
    return {"NB": min(next_power_of_2(blocks), max(4096 // block, 16)), "CB": block, "num_warps": 4}
