"""Shared by the region kernels: labels, small functions, tile shapes, blocks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import ceil_div, next_power_of_2

# programs of one warp that fill a large GPU; more only lengthen the merge
PROGRAMS = 4096
BLOCKS_PER_IMAGE = 2048
# values of a tile per thread
VALUES = 32
WARP = 32


# modes: what the pixels of a region contribute
MOMENTS: tl.constexpr = tl.constexpr(0)  # count, mean and spread of the features
UNIT_MOMENTS: tl.constexpr = tl.constexpr(1)  # the same of x / |x|
PULL_1: tl.constexpr = tl.constexpr(2)  # sums of h_i u_i and h_i^2, norm 1
PULL_2: tl.constexpr = tl.constexpr(3)  # the same, norm 2


@triton.jit
def load_labels(labels, pixel, inside, num_regions):
    """Labels as int32; num_regions at ignored pixels."""
    label = tl.load(labels + pixel, mask=inside, other=0)
    known = inside & (label >= 0) & (label < num_regions)
    return tl.where(known, label, num_regions).to(tl.int32)


@triton.jit
def gather_rows(table, label, known, first_channel, channels, table_r, table_c, CB: tl.constexpr):
    """The table row of each pixel's region [P, CB]; 0 at ignored pixels."""
    c = first_channel + tl.arange(0, CB)
    where = table + (label.to(tl.int64)[:, None] * table_r + c[None, :].to(tl.int64) * table_c)
    return tl.load(where, mask=known[:, None] & (c[None, :] < channels), other=0.0)


@triton.jit
def hinge(distance, delta):
    """[distance - delta]_+; NaN where the distance is NaN."""
    return tl.where(distance <= delta, 0.0, distance - delta)


@triton.jit
def sign(x):
    """The sign of x; 0 at 0 and at NaN, where the hinge it is multiplied with is NaN."""
    return tl.where(x > 0, 1.0, 0.0) - tl.where(x < 0, 1.0, 0.0)


def tile(channels: int, widest: int) -> dict[str, int]:
    """Tile shape [P, CB], with CB <= `widest`, and warps of the kernels that sum over pixels.

    One warp if it can hold the channels, so that no reduction crosses warps. The widest tiles get
    more warps than their values need, because addresses take registers too.
    """
    block = min(next_power_of_2(channels), widest)
    pixels = min(max(WARP * VALUES // block, 32), 128)
    warps = max(1, pixels * block // (WARP * VALUES))
    return {"P": pixels, "CB": block, "num_warps": 8 if warps == 4 else warps}


def pixel_tile(features: Tensor) -> dict[str, int]:
    """Tile shape [P, CB] and warps of the kernels that map pixels to pixels.

    If the threads of a warp hold different channels, each thread has values of all pixels of the
    tile, so tiles are smaller.
    """
    block = min(next_power_of_2(features.shape[1]), 64)
    values = 2048 if pixels_are_adjacent(features) else 1024
    return {"P": min(max(values // block, 16), 512), "CB": block, "num_warps": 4}


def pixels_are_adjacent(features: Tensor) -> bool:
    """Whether adjacent threads hold different pixels (NCHW), or channels (channels_last)."""
    return features.stride(3) <= features.stride(1)


def split(
    images: int, pixels: int, channels: int, chunks: int, num_regions: int
) -> tuple[int, int]:
    """Blocks per image, and pixels per block, a multiple of 128.

    Enough programs to fill a GPU; partials (per region two rows of C floats, and two scalars per
    chunk of channels) below a quarter of the float32 features.
    """
    fill = images * pixels * chunks // PROGRAMS
    memory = ceil_div(8 * num_regions * (channels + chunks), max(channels, 1))
    least = max(256, fill, memory, pixels // BLOCKS_PER_IMAGE)
    per_block = 128 * ceil_div(pixels, 128 * max(pixels // least, 1))
    return ceil_div(pixels, per_block), per_block


def as_bytes(labels: Tensor) -> Tensor:
    """bool labels as uint8: Triton cannot load bool."""
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels
