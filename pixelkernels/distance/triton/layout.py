"""Where intermediate results lie: lines made contiguous, in memory that is free for now."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import launch

# rows and columns per program
TILE = 64


@triton.jit
def _transpose_kernel(source, target, height, width, TILE: tl.constexpr):
    """A tile of target [N, W, H], from source [N, H, W]."""
    program = tl.program_id(0).to(tl.int64)
    tile_columns, tile_rows = tl.cdiv(width, TILE), tl.cdiv(height, TILE)
    column = program % tile_columns * TILE + tl.arange(0, TILE)[None, :]
    row = program // tile_columns % tile_rows * TILE + tl.arange(0, TILE)[:, None]
    plane = program // tile_columns // tile_rows
    inside = (column < width) & (row < height)
    tile = tl.load(source + (plane * height + row) * width + column, mask=inside)
    # Triton exchanges the tile in shared memory, so that loads and stores are both coalesced.
    tl.store(target + (plane * width + column) * height + row, tile, mask=inside)


def transpose(source: Tensor, target: Tensor) -> Tensor:
    """`target` [..., W, H], filled with a contiguous `source` [..., H, W]."""
    height, width = source.shape[-2:]
    programs = source.numel() // (height * width)
    programs *= triton.cdiv(height, TILE) * triton.cdiv(width, TILE)
    args = (source, target, height, width)
    launch(_transpose_kernel, programs, source, *args, TILE=TILE, num_warps=8)
    return target


def in_memory_of(output: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in the memory of an output, which is written later."""
    size = torch.Size(shape).numel() * dtype.itemsize
    return output.view(-1).view(torch.uint8)[:size].view(dtype).view(shape)
