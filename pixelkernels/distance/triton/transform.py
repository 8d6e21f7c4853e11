"""distance_transform: distances along columns, then the nearest column for each pixel of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import launch, next_power_of_2

# the longest sides with squared distances in int32 and distances in int16
SHORT = 32767
NOWHERE: tl.constexpr = tl.constexpr(2**31 - 1)
# beyond any row; adding a row does not overflow
FAR: tl.constexpr = tl.constexpr(2**30)
# rows per program of the column kernels
SEGMENT = 128
# pixels between anchors: one per thread of a warp
BLOCK: tl.constexpr = tl.constexpr(32)


@triton.jit
def column_tile(mask, height, width, segments, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The tile of this program: True pixels, rows, columns, offsets, validity, image, segment."""
    program = tl.program_id(0).to(tl.int64)
    tile_columns = tl.cdiv(width, COLUMNS)
    column = (program % tile_columns).to(tl.int32) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    image = program // tile_columns // segments
    segment = (program // tile_columns % segments).to(tl.int32)
    row = segment * ROWS + tl.arange(0, ROWS)[:, None]
    inside = (row < height) & (column < width)
    offsets = (image * height + row) * width + column
    true = tl.load(mask + offsets, mask=inside, other=0) != 0
    return true, row, column, offsets, inside, image, segment


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["segments"])
def _ends_kernel(mask, ends, height, width, segments, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The first and last True row of a segment, in each column: ends [N, segments, 2, W]."""
    true, row, column, _, _, image, segment = column_tile(
        mask, height, width, segments, ROWS, COLUMNS
    )
    ends += (image * segments + segment) * 2 * width
    first = tl.min(tl.where(true, row, NOWHERE), axis=0, keep_dims=True)
    last = tl.max(tl.where(true, row, -FAR), axis=0, keep_dims=True)
    tl.store(ends + column, first, mask=column < width)
    tl.store(ends + width + column, last, mask=column < width)


@triton.jit(do_not_specialize=["segments"])
def _columns_kernel(
    mask,
    ends,
    down,
    height,
    width,
    segments,
    NONE: tl.constexpr,
    BORDER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The distance of each pixel of a segment to the nearest True pixel of its column, or NONE."""
    true, row, column, offsets, inside, image, segment = column_tile(
        mask, height, width, segments, ROWS, COLUMNS
    )
    ends += image * segments * 2 * width
    other = tl.arange(0, CHUNK)[:, None]
    # the rows of the nearest True pixels in the segments before and after
    above = tl.full([1, COLUMNS], -1 if BORDER else -FAR, tl.int32)
    below = tl.full([1, COLUMNS], 0, tl.int32) + (height if BORDER else NOWHERE)
    for s in range(0, segment, CHUNK):
        known = (s + other < segment) & (column < width)
        last = ends + (2 * (s + other) + 1).to(tl.int64) * width + column
        last = tl.load(last, mask=known, other=-FAR)
        above = tl.maximum(above, tl.max(last, axis=0, keep_dims=True))
    for s in range(segment + 1, segments, CHUNK):
        known = (s + other < segments) & (column < width)
        first = ends + (2 * (s + other)).to(tl.int64) * width + column
        first = tl.load(first, mask=known, other=NOWHERE)
        below = tl.minimum(below, tl.min(first, axis=0, keep_dims=True))
    up = row - tl.associative_scan(tl.where(true, row, above), 0, larger)
    distance = tl.associative_scan(tl.where(true, row, below), 0, smaller, reverse=True) - row
    distance = tl.minimum(tl.minimum(up, distance), NONE)
    tl.store(down + offsets, distance.to(down.dtype.element_ty), mask=inside)


@triton.jit
def nearest_column(
    down, x, first, last, row_spacing, column_spacing, NONE: tl.constexpr, EXACT: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """The first q in [first, last] that minimises the squared distance of x to column q."""
    lane = tl.arange(0, CHUNK)
    if EXACT:
        best = tl.full([CHUNK], NOWHERE, tl.int32)
    else:
        best = tl.full([CHUNK], float("inf"), tl.float32)
    argmin = tl.full([CHUNK], 0, tl.int32) + first
    for start in range(first, last + 1, CHUNK):
        column = start + lane
        k = tl.load(down + column, mask=column <= last, other=NONE).to(tl.int32)
        if EXACT:
            d2 = tl.where(k == NONE, NOWHERE, k * k + (column - x) * (column - x))
        else:
            rows = row_spacing * k.to(tl.float32)
            columns = column_spacing * (column - x).to(tl.float32)
            d2 = tl.where(k == NONE, float("inf"), rows * rows + columns * columns)
        argmin = tl.where(d2 < best, column, argmin)
        best = tl.minimum(best, d2)
    # without True pixels, `first` remains, which keeps ranges short
    return tl.min(tl.where(best == tl.min(best, axis=0), argmin, last), axis=0)


@triton.jit
def block_minimum(
    down, x0, first, end, row_spacing, column_spacing, NONE: tl.constexpr, EXACT: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """min d^2 of the pixels x0 + x, x < BLOCK, over the columns in [first, end).

    EXACT: min of d^2 - x^2 - 2^30 = down^2 + q^2 - 2^30 - 2 q x, with q relative to x0: one
    multiplication and one minimum per pixel and column. It does not overflow: d^2 < 2^31 and
    q x < 2^20. Without a True pixel it is within 2^21 of 3 * 2^29; else it is at most 2^30.
    """
    lane = tl.arange(0, CHUNK)
    x = tl.arange(0, BLOCK)
    # The conversion through float32 is exact and free. Without it, Triton distributes the int16
    # over the threads before extending it, and every thread computes every `level`.
    k = tl.load(down + first + lane, mask=first + lane < end, other=NONE)
    k = k.to(tl.float32).to(tl.int32) if EXACT else k.to(tl.int32)
    q = first - x0 + lane
    if EXACT:
        level = tl.where(k == NONE, 3 * 2**29, k * k + q * q - 2**30)
        least = tl.min(level[:, None] + lane[:, None] * (-2 * x)[None, :], axis=0)
        least -= 2 * x * (first - x0)
    else:
        rows = row_spacing * k.to(tl.float32)
        rows = tl.where(k == NONE, float("inf"), rows * rows)
        columns = column_spacing * (q[:, None] - x[None, :]).to(tl.float32)
        least = tl.min(rows[:, None] + columns * columns, axis=0)
    return least


@triton.jit
def root(squares):
    """The square root, rounded once also above 2^24, beyond the integers of float32; or +inf."""
    found = squares < NOWHERE
    distance = tl.sqrt_rn(squares.to(tl.float32))
    if tl.max(tl.where(found, squares, 0), axis=0) > 2**24:
        distance = tl.sqrt(squares.to(tl.float64)).to(tl.float32)
    return tl.where(found, distance, float("inf"))


@triton.jit(do_not_specialize=["halving", "blocks", "bisection"])
def _rows_kernel(
    down,
    anchors,
    result,
    width,
    blocks,
    bisection,
    row_spacing,
    column_spacing,
    NONE: tl.constexpr,
    EXACT: tl.constexpr,
    SQUARED: tl.constexpr,
    BORDER: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One row: the nearest columns of its anchors, then the distances of all pixels.

    Anchor i is the first pixel of block i. Its argmin is found in the step of the highest power of
    two that divides i + 1; steps start from `bisection`, the highest power up to the number of
    blocks.
    """
    row = tl.program_id(0).to(tl.int64)
    down += row * width
    anchors += row * blocks
    result += row * width
    step = bisection
    while step > 0:
        for i in range(step - 1, blocks, 2 * step):
            first = tl.load(anchors + (i - step), mask=i >= step, other=0)
            last = tl.load(anchors + (i + step), mask=i + step < blocks, other=width - 1)
            argmin = nearest_column(
                down, i * BLOCK, first, last, row_spacing, column_spacing, NONE, EXACT, CHUNK
            )
            tl.store(anchors + i, argmin)
        # all threads load what one thread stored
        tl.debug_barrier()
        step //= 2

    x = tl.arange(0, BLOCK)
    for i in range(0, blocks):
        x0 = i * BLOCK
        first = tl.load(anchors + i)
        last = tl.load(anchors + (i + 1), mask=i + 1 < blocks, other=width - 1)
        # on a dense mask this leaves 32 columns for the loop: one iteration
        best = block_minimum(down, x0, last, last + 1, row_spacing, column_spacing, NONE, EXACT, 1)
        for start in range(first, last, BLOCK):
            more = block_minimum(
                down, x0, start, last, row_spacing, column_spacing, NONE, EXACT, BLOCK
            )
            best = tl.minimum(best, more)
        if EXACT:
            nothing = best > 2**30
            best = tl.where(nothing, NOWHERE, best + 2**30 + x * x)
        if BORDER:
            side = tl.minimum(x0 + x + 1, width - x0 - x)
            if not EXACT:
                side = column_spacing * side.to(tl.float32)
            best = tl.minimum(best, side * side)
        if not SQUARED:
            best = root(best) if EXACT else tl.sqrt_rn(best)
        tl.store(result + x0 + x, best, mask=x0 + x < width)


def distance_transform(
    mask: Tensor, squared: bool, row_spacing: float, column_spacing: float, border: bool
) -> Tensor:
    images, height, width = mask.shape
    result = torch.empty_like(mask, dtype=torch.int32 if squared else torch.float32)
    if mask.numel() == 0:
        return result
    short = height <= SHORT
    none = SHORT if short else FAR.value
    down = torch.empty_like(mask, dtype=torch.int16 if short else torch.int32)
    shape = {
        "ROWS": min(next_power_of_2(height), SEGMENT),
        "COLUMNS": min(next_power_of_2(width), 32),
    }
    segments = triton.cdiv(height, shape["ROWS"])
    tiles = images * segments * triton.cdiv(width, shape["COLUMNS"])
    ends = torch.empty((images, segments, 2, width), dtype=torch.int32, device=mask.device)
    args = (height, width, segments)
    # Triton cannot load bool
    true = mask.view(torch.uint8)
    if segments > 1:
        launch(_ends_kernel, tiles, mask, true, ends, *args, **shape, num_warps=8)
    launch(
        _columns_kernel,
        tiles,
        mask,
        *(true, ends, down, *args),
        NONE=none,
        BORDER=border,
        CHUNK=16,
        **shape,
        num_warps=8,
    )
    blocks = triton.cdiv(width, BLOCK.value)
    anchors = torch.empty((images * height, blocks), dtype=torch.int32, device=mask.device)
    launch(
        _rows_kernel,
        images * height,
        mask,
        *(down, anchors, result, width, blocks, next_power_of_2(blocks + 1) // 2),
        *(row_spacing, column_spacing),
        NONE=none,
        EXACT=row_spacing == column_spacing == 1 and max(height, width) <= SHORT,
        SQUARED=squared,
        BORDER=border,
        CHUNK=128,
        num_warps=1,
    )
    return result
