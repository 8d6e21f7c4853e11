"""click_maps: a tile of a map compares its pixels with the few clicks that can be the nearest.

A tile lies in one slice: one depth of one map.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import launch, next_power_of_2
from ..ops import ENCODINGS

EUCLIDEAN: tl.constexpr = tl.constexpr(ENCODINGS.index("euclidean"))
DISK: tl.constexpr = tl.constexpr(ENCODINGS.index("disk"))
TANH: tl.constexpr = tl.constexpr(ENCODINGS.index("tanh"))


@triton.jit
def squared_distances(points, at, known, depth, row, column, AXES: tl.constexpr):
    """Squared distances of (depth, row, column) to the clicks `at`; +inf if not `known`."""
    r = tl.load(points + AXES * at + (AXES - 2), mask=known, other=float("inf"))
    c = tl.load(points + AXES * at + (AXES - 1), mask=known, other=float("inf"))
    squared = (row - r) * (row - r)
    if AXES == 3:
        z = tl.load(points + AXES * at, mask=known, other=float("inf"))
        squared += (depth - z) * (depth - z)
    # the columns last, as in the reference: the order decides how the sum is rounded
    return squared + (column - c) * (column - c)


@triton.jit(do_not_specialize=["clicks"])
def _click_maps_kernel(
    points,
    labels,
    maps,
    clicks,
    depths,
    height,
    width,
    scale,
    half_diagonal,
    AXES: tl.constexpr,
    ENCODING: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One tile of one slice. `scale` is the limit or the divisor of the encoding."""
    program = tl.program_id(0).to(tl.int64)
    tile_columns, tile_rows = tl.cdiv(width, COLUMNS), tl.cdiv(height, ROWS)
    left = (program % tile_columns).to(tl.int32) * COLUMNS
    plane = program // tile_columns
    top = (plane % tile_rows).to(tl.int32) * ROWS
    plane //= tile_rows
    volume = plane
    depth = 0.0
    if AXES == 3:
        volume = plane // depths
        depth = (plane % depths).to(tl.float32)
    points += volume // 2 * clicks * AXES
    labels += volume // 2 * clicks
    label = 1 - volume % 2
    middle = top + (ROWS - 1) / 2
    center = left + (COLUMNS - 1) / 2

    lane = tl.arange(0, CHUNK)
    nearest = tl.full([CHUNK], float("inf"), tl.float32)
    for first in range(0, clicks, CHUNK):
        at = first + lane
        own = tl.load(labels + at, mask=at < clicks, other=-1) == label
        d2 = squared_distances(points, at, own, depth, middle, center, AXES)
        nearest = tl.minimum(nearest, tl.where(d2 == d2, d2, float("inf")))
    # the slack is far above the rounding errors of float32, so that no click is lost
    reach = (tl.sqrt(tl.min(nearest, axis=0)) + 2 * half_diagonal) * (1 + 1e-5) + 1e-3
    reach *= reach

    row = (top + tl.arange(0, ROWS))[:, None]
    column = (left + tl.arange(0, COLUMNS))[None, :]
    best = tl.full([ROWS, COLUMNS], float("inf"), tl.float32)
    for first in range(0, clicks, CHUNK):
        at = first + lane
        own = tl.load(labels + at, mask=at < clicks, other=-1) == label
        from_middle = squared_distances(points, at, own, depth, middle, center, AXES)
        # false for NaN
        near = own & (from_middle <= reach)
        i = tl.min(tl.where(near, lane, CHUNK), axis=0)
        while i < CHUNK:
            d2 = squared_distances(
                points, first + i, True, depth, row.to(tl.float32), column.to(tl.float32), AXES
            )
            best = tl.minimum(best, d2)
            i = tl.min(tl.where(near & (lane > i), lane, CHUNK), axis=0)

    if ENCODING == EUCLIDEAN:
        value = tl.minimum(tl.sqrt_rn(best), scale)
    elif ENCODING == DISK:
        value = tl.where(best <= scale, 1.0, 0.0)
    elif ENCODING == TANH:
        fading = tl.exp(-4 * (tl.sqrt_rn(best) / scale))
        value = (1 - fading) / (1 + fading)
    else:
        value = tl.exp(-(best / scale))
    where = maps + (plane * height + row) * width + column
    tl.store(where, value, mask=(row < height) & (column < width))


def click_maps(
    points: Tensor,
    labels: Tensor,
    depth: int,
    height: int,
    width: int,
    encoding: int,
    radius: float,
    truncate: float,
) -> Tensor:
    batch, clicks, axes = points.shape
    maps = points.new_empty((batch, 2, *(depth, height, width)[-axes:]))
    slices = batch * 2 * (depth if axes == 3 else 1)
    rows, columns = min(next_power_of_2(height), 32), min(next_power_of_2(width), 64)
    scale = (truncate, radius**2, radius, 2 * radius**2)[encoding]
    if encoding != EUCLIDEAN.value:
        # neither 0 nor infinite in float32, so that quotients are not NaN
        scale = min(max(scale, 1e-37), 1e37)
    if maps.numel():
        launch(
            _click_maps_kernel,
            slices * triton.cdiv(height, rows) * triton.cdiv(width, columns),
            points,
            *(points, labels, maps, clicks, depth, height, width, scale),
            ((rows - 1) ** 2 + (columns - 1) ** 2) ** 0.5 / 2,
            AXES=axes,
            ENCODING=encoding,
            ROWS=rows,
            COLUMNS=columns,
            CHUNK=128,
            # the bits of eager PyTorch: they decide whether a pixel on the edge is in the disk
            enable_fp_fusion=False,
        )
    return maps
