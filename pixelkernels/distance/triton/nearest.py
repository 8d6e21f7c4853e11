"""nearest_true: the transform that keeps the sites of each pass, and computes costs from them."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import NOWHERE, SHORT, along_columns
from .layout import in_memory_of, transpose
from .transform import (
    BLOCK,
    costs_are_integers,
    find_anchors,
    launch_along_lines,
    nearest_of_block,
    root,
)


@triton.jit(do_not_specialize=["blocks", "bisection", "plane"])
def _nearest_kernel(
    words,
    anchors,
    width,
    blocks,
    bisection,
    distance,
    indices,
    inner,
    outer,
    plane,
    first_spacing: tl.float64,
    second_spacing: tl.float64,
    column_spacing: tl.float64,
    SITES: tl.constexpr,
    COST: tl.constexpr,
    LAST: tl.constexpr,
    SQUARED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One line of outer x inner: the nearest columns of its anchors, then those of all pixels.

    LAST: of the passes; an earlier one stores words of SITES + 1 sites, or -1 without any, in the
    place of the indices.
    """
    FARTHEST: tl.constexpr = NOWHERE if COST.is_int() else float("inf")
    row = tl.program_id(0).to(tl.int64)
    place = ((row // inner % outer).to(tl.int32), (row % inner).to(tl.int32))
    image = row // inner // outer
    words += row * width
    anchors += row * blocks
    distance += row * width
    indices += row * width
    if LAST:
        # [N, SITES + 1, outer, inner, width]
        indices += image * SITES * plane
    spacing = (first_spacing, second_spacing, column_spacing)
    find_anchors(words, anchors, width, blocks, bisection, place, spacing, SITES, COST, CHUNK)
    for i in range(0, blocks):
        best, site = nearest_of_block(
            words, anchors, i, width, blocks, place, spacing, SITES, COST, True
        )
        x = i * BLOCK + tl.arange(0, BLOCK)
        inside, found = x < width, best < FARTHEST
        earlier = tl.load(words + site, mask=found, other=-1)
        site = tl.where(found, site, -1)
        if not LAST:
            pair = indices.dtype.element_ty
            earlier = earlier.to(pair) << (pair.primitive_bitwidth // 2)
            tl.store(indices + x, earlier | site, mask=inside)
        else:
            if SITES == 1:
                tl.store(indices + x, earlier, mask=inside)
                tl.store(indices + plane + x, site, mask=inside)
            else:
                BITS: tl.constexpr = earlier.dtype.primitive_bitwidth // 2
                lower = tl.where(found, earlier & (2**BITS - 1), -1)
                tl.store(indices + x, earlier >> BITS, mask=inside)
                tl.store(indices + plane + x, lower, mask=inside)
                tl.store(indices + plane + plane + x, site, mask=inside)
            tl.store(distance + x, best if SQUARED else root(best, COST), mask=inside)


def pairs_of_slices(
    mask: Tensor, distance: Tensor, indices: Tensor, spacings: tuple[float, ...], **options: Any
) -> Tensor:
    """The nearest True voxels along depth and rows, or -1, of a mask [N, D, H, W] of uint8.

    The outputs of the transform hold what is no longer needed when they are written.
    """
    images, depth, height, width = mask.shape
    turned = transpose(mask, in_memory_of(distance, (images, depth, width, height), torch.uint8))
    sites = along_columns(turned.view(images, depth, -1), sites=True).view(turned.shape)
    dtype = torch.int32 if max(depth, height) <= SHORT else torch.int64
    pairs = in_memory_of(indices, turned.shape, dtype)
    launch_along_lines(
        _nearest_kernel,
        sites,
        *(distance, pairs, width, depth, 0),
        *(spacings[0], 0.0, spacings[1]),
        SITES=1,
        LAST=False,
        SQUARED=False,
        **options,
    )
    del sites  # before the next tensor takes memory
    return transpose(pairs, torch.empty_like(mask, dtype=dtype))


def nearest_true(
    mask: Tensor,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
) -> tuple[Tensor, Tensor]:
    images, *space = mask.shape
    distance = torch.empty_like(mask, dtype=torch.int32 if squared else torch.float32)
    indices = distance.new_empty((images, len(space), *space), dtype=torch.int32)
    if mask.numel() == 0:
        return distance, indices
    spacings = (depth_spacing, row_spacing, column_spacing)[3 - len(space) :]
    exact = costs_are_integers(mask, spacings)
    options = {
        "COST": tl.int32 if exact else tl.float64,
        # the bits of eager PyTorch, so that it chooses the same pixel
        "enable_fp_fusion": False,
    }
    # Triton cannot load bool
    true = mask.view(torch.uint8)
    if len(space) == 3:
        words = pairs_of_slices(true, distance, indices, spacings, **options)
        outer, inner = space[:2]
    else:
        words = along_columns(true, sites=True)
        outer, inner = space[0], 1
        spacings = (row_spacing, 0.0, column_spacing)
    launch_along_lines(
        _nearest_kernel,
        words,
        *(distance, indices, inner, outer, mask[0].numel()),
        *spacings,
        SITES=len(space) - 1,
        LAST=True,
        SQUARED=squared,
        **options,
    )
    return distance, indices
