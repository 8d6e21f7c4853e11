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
    mask: Tensor,
    memory: Tensor,
    pairs_memory: Tensor,
    spacings: tuple[float, ...],
    **options: Any,
) -> Tensor:
    """The nearest True voxels along depth and rows, or -1, of a mask [N, D, H, W] of uint8.

    The memory of outputs holds what is no longer needed when they are written. The mask may be in
    that of the pairs.
    """
    images, depth, height, width = mask.shape
    turned = transpose(mask, in_memory_of(memory, (images, depth, width, height), torch.uint8))
    sites = along_columns(turned.view(images, depth, -1), sites=True).view(turned.shape)
    dtype = dtype_of_pairs(mask)
    pairs = in_memory_of(pairs_memory, turned.shape, dtype)
    launch_along_lines(
        _nearest_kernel,
        sites,
        *(pairs, pairs, width, depth, 0),
        *(spacings[0], 0.0, spacings[1]),
        SITES=1,
        LAST=False,
        SQUARED=False,
        **options,
    )
    del sites  # before the next tensor takes memory
    return transpose(pairs, mask.new_empty(mask.shape, dtype=dtype))


def dtype_of_pairs(mask: Tensor) -> torch.dtype:
    return torch.int32 if max(mask.shape[1:3]) <= SHORT else torch.int64


@triton.jit(do_not_specialize=["blocks", "bisection", "plane", "limit"])
def _labels_kernel(
    words,
    anchors,
    width,
    blocks,
    bisection,
    labels,
    result,
    limit,
    inner,
    outer,
    plane,
    first_spacing: tl.float64,
    second_spacing: tl.float64,
    column_spacing: tl.float64,
    SITES: tl.constexpr,
    COST: tl.constexpr,
    SQUARED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One line of outer x inner: the labels of the nearest pixels, up to the limit."""
    row = tl.program_id(0).to(tl.int64)
    place = ((row // inner % outer).to(tl.int32), (row % inner).to(tl.int32))
    words += row * width
    anchors += row * blocks
    labels += row // inner // outer * plane
    result += row * width
    spacing = (first_spacing, second_spacing, column_spacing)
    find_anchors(words, anchors, width, blocks, bisection, place, spacing, SITES, COST, CHUNK)
    for i in range(0, blocks):
        best, site = nearest_of_block(
            words, anchors, i, width, blocks, place, spacing, SITES, COST, True
        )
        x = i * BLOCK + tl.arange(0, BLOCK)
        found = best < NOWHERE if COST.is_int() else best < float("inf")
        found = found & ((best if SQUARED else root(best, COST)) <= limit)
        earlier = tl.load(words + site, mask=found, other=0)
        line = earlier.to(tl.int64)
        if SITES == 2:
            BITS: tl.constexpr = earlier.dtype.primitive_bitwidth // 2
            line = (earlier >> BITS).to(tl.int64) * inner + (earlier & (2**BITS - 1))
        label = tl.load(labels + line * width + site, mask=found, other=0)
        tl.store(result + x, label, mask=x < width)


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
    spacings = (depth_spacing, row_spacing, column_spacing)
    words, lines, options = _words_of_lines(mask, distance, indices, spacings)
    launch_along_lines(
        _nearest_kernel, words, distance, indices, *lines, LAST=True, SQUARED=squared, **options
    )
    return distance, indices


def expand_labels(
    labels: Tensor,
    limit: float,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
) -> Tensor:
    result = torch.empty_like(labels)
    if labels.numel() == 0:
        return result
    spacings = (depth_spacing, row_spacing, column_spacing)
    dtype = dtype_of_pairs(labels) if labels.dim() == 4 else torch.bool
    memory = torch.empty_like(labels, dtype=dtype)
    mask = torch.ne(labels, 0, out=in_memory_of(memory, labels.shape, torch.bool))
    words, lines, options = _words_of_lines(mask, result, memory, spacings)
    # Triton cannot load bool
    args = (x.view(torch.uint8) if x.dtype == torch.bool else x for x in (labels, result))
    bound = int(limit) if squared else limit
    launch_along_lines(_labels_kernel, words, *args, bound, *lines, SQUARED=squared, **options)
    return result


def _words_of_lines(
    mask: Tensor, memory: Tensor, pairs_memory: Tensor, spacings: tuple[float, ...]
) -> tuple[Tensor, tuple[float, ...], dict[str, Any]]:
    """For the last pass: the words of the earlier ones; the numbers of inner and outer lines, the
    pixels of an image and the spacings; and the options of the kernels."""
    _, *space = mask.shape
    exact = costs_are_integers(mask, spacings[3 - len(space) :])
    options = {
        "COST": tl.int32 if exact else tl.float64,
        # the bits of eager PyTorch, so that it chooses the same pixel
        "enable_fp_fusion": False,
    }
    # Triton cannot load bool
    true = mask.view(torch.uint8)
    if len(space) == 3:
        words = pairs_of_slices(true, memory, pairs_memory, spacings, **options)
        lines = (space[1], space[0], mask[0].numel(), *spacings)
    else:
        words = along_columns(true, sites=True)
        lines = (1, space[0], mask[0].numel(), spacings[1], 0.0, spacings[2])
    return words, lines, {**options, "SITES": len(space) - 1}
