"""The pass along the first axis: the nearest True pixel of each column."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import launch, next_power_of_2

# the longest axis with steps and sites in int16
SHORT = 32767
NOWHERE: tl.constexpr = tl.constexpr(2**31 - 1)
# beyond any row; adding a row does not overflow
FAR: tl.constexpr = tl.constexpr(2**30)
# the most rows per program of the column kernels, and its pixels
SEGMENT = 128
PIXELS = 4096
# from this width on, columns are int64; the pixels of a slice of a volume are columns here
WIDE = 2**30


@triton.jit
def column_tile(
    mask, height, width, segments, BITS: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """The tile of this program: pixels with one of the bits, rows, columns, offsets, validity,
    image, segment."""
    program = tl.program_id(0).to(tl.int64)
    tile_columns = tl.cdiv(width, COLUMNS)
    column = (program % tile_columns).to(INDEX) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    image = program // tile_columns // segments
    segment = (program // tile_columns % segments).to(tl.int32)
    row = segment * ROWS + tl.arange(0, ROWS)[:, None]
    inside = (row < height) & (column < width)
    offsets = (image * height + row) * width + column
    true = tl.load(mask + offsets, mask=inside, other=0) & BITS != 0
    return true, row, column, offsets, inside, image, segment


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["segments"])
def _ends_kernel(
    mask,
    ends,
    height,
    width,
    segments,
    BITS: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The first and last True row of a segment, in each column: ends [N, segments, 2, W]."""
    true, row, column, _, _, image, segment = column_tile(
        mask, height, width, segments, BITS, INDEX, ROWS, COLUMNS
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
    SITES: tl.constexpr,
    LABELS: tl.constexpr,
    BORDER: tl.constexpr,
    BITS: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The distance of each pixel of a segment to the nearest True pixel of its column, or -1.

    SITES: the row of that pixel instead, the first of two. LABELS: the mask is of changes; the
    distance to the nearest pixel with another label.
    """
    true, row, column, offsets, inside, image, segment = column_tile(
        mask, height, width, segments, BITS, INDEX, ROWS, COLUMNS
    )
    ends += image * segments * 2 * width
    other = tl.arange(0, CHUNK)[:, None]
    # the rows of the nearest True pixels in the segments before and after
    UP: tl.constexpr = 1 if LABELS else 0
    above = tl.full([1, COLUMNS], UP - 1 if BORDER else -FAR, tl.int32)
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
    above = tl.associative_scan(tl.where(true, row, above), 0, larger)
    below_row = row
    if LABELS:
        # a change has another label above it, so the next one is below this row
        below_row = row + 1
        known = (below_row < height) & (column < width)
        true = tl.load(mask + offsets + width, mask=known, other=0) & BITS != 0
    below = tl.associative_scan(tl.where(true, below_row, below), 0, smaller, reverse=True)
    nearest = tl.minimum(row - above + UP, below - row)
    found = nearest < FAR
    if SITES:
        nearest = tl.where(row - above == nearest, above, below)
    nearest = tl.where(found, nearest, -1)
    tl.store(down + offsets, nearest.to(down.dtype.element_ty), mask=inside)


def along_columns(
    mask: Tensor, border: bool = False, sites: bool = False, change: int = 0
) -> Tensor:
    """The distance of each pixel to the nearest True pixel of its column, or -1; int16 or int32.

    `mask` is uint8 [N, H, W]. With `sites`, the row of that pixel instead, the first of two. With
    the bit `change`, the mask is of changes, and the nearest pixel is one with another label.
    """
    images, height, width = mask.shape
    down = torch.empty_like(mask, dtype=torch.int16 if height <= SHORT else torch.int32)
    rows = min(next_power_of_2(height), SEGMENT)
    shape = {
        "BITS": change or 255,
        "INDEX": tl.int32 if width < WIDE else tl.int64,
        "ROWS": rows,
        "COLUMNS": min(next_power_of_2(width), PIXELS // rows),
    }
    segments = triton.cdiv(height, rows)
    others = segments > 1
    tiles = images * segments * triton.cdiv(width, shape["COLUMNS"])
    ends = mask.new_empty((images, segments if others else 0, 2, width), dtype=torch.int32)
    args = (height, width, segments)
    if others:
        launch(_ends_kernel, tiles, mask, mask, ends, *args, **shape, num_warps=8)
    launch(
        _columns_kernel,
        tiles,
        mask,
        *(mask, ends, down, *args),
        SITES=sites,
        LABELS=change > 0,
        BORDER=border,
        CHUNK=16 if others else 1,
        **shape,
        num_warps=8,
    )
    return down
