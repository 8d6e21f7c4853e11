"""distance_transform: along the first axis, then the nearest column for each pixel of a line."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import launch, next_power_of_2
from ..._core.validation import LONGEST_SIDES
from .columns import FAR, NOWHERE, along_columns, larger, smaller
from .labels import ALONG_COLUMNS, ALONG_DEPTH, ALONG_ROWS, BACKGROUND, find_changes
from .layout import in_memory_of, transpose

# pixels between anchors: one per thread of a warp
BLOCK: tl.constexpr = tl.constexpr(32)


@triton.jit
def squares(steps, spacing, COST: tl.constexpr):
    """The squared lengths of steps, in the dtype of costs: integers, or rounded once and again."""
    length = steps
    if COST.is_floating():
        length = spacing * steps.to(COST)
    return length * length


@triton.jit
def earlier_costs(words, place, spacing, SITES: tl.constexpr, COST: tl.constexpr):
    """What the axes of earlier passes add to the costs of columns, and which columns have no site.

    SITES: 0 if words are these costs; 1 if they are sites along the first axis; 2 if they are pairs
    of sites, that along the first axis in the upper half, that along the second in the lower.
    """
    nothing = words < 0
    if SITES == 0:
        cost = words
    elif SITES == 1:
        cost = squares(words.to(tl.int32) - place[0], spacing[0], COST)
    else:
        BITS: tl.constexpr = words.dtype.primitive_bitwidth // 2
        upper, lower = (words >> BITS).to(tl.int32), (words & (2**BITS - 1)).to(tl.int32)
        cost = squares(upper - place[0], spacing[0], COST)
        cost += squares(lower - place[1], spacing[1], COST)
    return cost, nothing


@triton.jit
def nearest_column(
    line, x, first, last, place, spacing, SITES: tl.constexpr, COST: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """The first q in [first, last] that minimises the cost of column q for pixel x."""
    FARTHEST: tl.constexpr = NOWHERE if COST.is_int() else float("inf")
    lane = tl.arange(0, CHUNK)
    best = tl.full([CHUNK], FARTHEST, COST)
    argmin = tl.full([CHUNK], 0, tl.int32) + first
    for start in range(first, last + 1, CHUNK):
        column = start + lane
        words = tl.load(line + column, mask=column <= last, other=-1)
        cost, nothing = earlier_costs(words, place, spacing, SITES, COST)
        cost = tl.where(nothing, FARTHEST, cost + squares(column - x, spacing[2], COST))
        argmin = tl.where(cost < best, column, argmin)
        best = tl.minimum(best, cost)
    # without True pixels, `first` remains, which keeps ranges short
    return tl.min(tl.where(best == tl.min(best, axis=0), argmin, last), axis=0)


@triton.jit
def find_anchors(
    line, anchors, width, blocks, bisection, place, spacing, SITES: tl.constexpr,
    COST: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The nearest column of each anchor of a line at `place`, its coordinates on earlier axes.

    Anchor i is the first pixel of block i. Its argmin is found in the step of the highest power of
    two that divides i + 1; steps start from `bisection`, the highest power up to the number of
    blocks.
    """
    step = bisection
    while step > 0:
        for i in range(step - 1, blocks, 2 * step):
            first = tl.load(anchors + (i - step), mask=i >= step, other=0)
            last = tl.load(anchors + (i + step), mask=i + step < blocks, other=width - 1)
            argmin = nearest_column(
                line, i * BLOCK, first, last, place, spacing, SITES, COST, CHUNK
            )
            tl.store(anchors + i, argmin)
        # all threads load what one thread stored
        tl.debug_barrier()
        step //= 2


@triton.jit
def nearest_in_chunk(
    line, x0, first, end, place, spacing, SITES: tl.constexpr, COST: tl.constexpr,
    ARGMIN: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The least cost of the pixels x0 + x, x < BLOCK, over the columns in [first, end).

    With ARGMIN, also the first column that has it.

    int32: the cost less x^2 + 2^30, which is cost + q^2 - 2^30 - 2 q x for an earlier cost and q
    relative to x0: one multiplication and one minimum per pixel and column. It does not overflow:
    costs are below 2^31 and q x below 2^20. Without a True pixel it is within 2^21 of 3 * 2^29;
    else it is at most 2^30.
    """
    lane = tl.arange(0, CHUNK)
    x = tl.arange(0, BLOCK)
    words = tl.load(line + first + lane, mask=first + lane < end, other=-1)
    if words.dtype == tl.int16:
        # The conversion through float32 is exact and free. Without it, Triton distributes the int16
        # over the threads before extending it, and every thread computes every `level`.
        words = words.to(tl.float32).to(tl.int32)
    cost, nothing = earlier_costs(words, place, spacing, SITES, COST)
    if COST.is_int():
        q = first - x0 + lane
        level = tl.where(nothing, 3 * 2**29, cost + q * q - 2**30)
        costs = level[:, None] + lane[:, None] * (-2 * x)[None, :]
    else:
        cost = tl.where(nothing, float("inf"), cost)
        # one conversion per pixel and constants: a GPU converts few integers per clock
        steps = lane.to(COST)[:, None] - (x + x0 - first).to(COST)[None, :]
        costs = cost[:, None] + squares(steps, spacing[2], COST)
    if ARGMIN:
        least, argmin = tl.min(costs, axis=0, return_indices=True)
    else:
        least = tl.min(costs, axis=0)
        argmin = x
    if COST.is_int():
        least -= 2 * x * (first - x0)
    return least, first + argmin


@triton.jit
def nearest_of_block(
    line, anchors, i, width, blocks, place, spacing, SITES: tl.constexpr, COST: tl.constexpr,
    ARGMIN: tl.constexpr,
):  # fmt: skip
    """The least costs of the pixels of block i; with ARGMIN, also the first columns of these."""
    x0 = i * BLOCK
    first = tl.load(anchors + i)
    last = tl.load(anchors + (i + 1), mask=i + 1 < blocks, other=width - 1)
    # on a dense mask this leaves 32 columns for the loop: one iteration
    best, argmin = nearest_in_chunk(
        line, x0, last, last + 1, place, spacing, SITES, COST, ARGMIN, 1
    )
    for start in range(first, last, BLOCK):
        cost, q = nearest_in_chunk(
            line, x0, start, last, place, spacing, SITES, COST, ARGMIN, BLOCK
        )
        if ARGMIN:
            argmin = tl.where((cost < best) | ((cost == best) & (q < argmin)), q, argmin)
        best = tl.minimum(best, cost)
    if COST.is_int():
        x = tl.arange(0, BLOCK)
        best = tl.where(best > 2**30, NOWHERE, best + 2**30 + x * x)
    return best, argmin


@triton.jit
def root(cost, COST: tl.constexpr):
    """The square root in float32, rounded once; or +inf."""
    if COST.is_int():
        found = cost < NOWHERE
        distance = tl.sqrt_rn(cost.to(tl.float32))
        # beyond the integers of float32
        if tl.max(tl.where(found, cost, 0), axis=0) > 2**24:
            distance = tl.sqrt(cost.to(tl.float64)).to(tl.float32)
        distance = tl.where(found, distance, float("inf"))
    elif COST.is_fp32():
        distance = tl.sqrt_rn(cost)
    else:
        distance = tl.sqrt(cost).to(tl.float32)
    return distance


@triton.jit(do_not_specialize=["blocks", "bisection"])
def _rows_kernel(
    words,
    anchors,
    width,
    blocks,
    bisection,
    mask,
    result,
    first_spacing,
    column_spacing,
    SITES: tl.constexpr,
    COST: tl.constexpr,
    CHANGE: tl.constexpr,
    LAST: tl.constexpr,
    SQUARED: tl.constexpr,
    BORDER: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One line: the nearest columns of its anchors, then the distances of all pixels.

    LAST: of the passes; an earlier one stores costs, or -1 without a True pixel. CHANGE: the bit of
    a mask of changes; a square is at most that of the steps to another label along the line. That
    suffices: a column with another label is at least as many steps away, so its cost may count.
    """
    FARTHEST: tl.constexpr = NOWHERE if COST.is_int() else float("inf")
    row = tl.program_id(0).to(tl.int64)
    words += row * width
    anchors += row * blocks
    result += row * width
    # a distance in steps is a site seen from 0
    place, spacing = (0, 0), (first_spacing, 0.0, column_spacing)
    find_anchors(words, anchors, width, blocks, bisection, place, spacing, SITES, COST, CHUNK)
    lane = tl.arange(0, BLOCK)
    if CHANGE:
        mask += row * width
        # the next change of every pixel, from the last block to the first, in place of the result
        change = tl.zeros([BLOCK], tl.int32) + (width if BORDER else NOWHERE)
        for i in range(0, blocks):
            x = (blocks - 1 - i) * BLOCK + lane
            changed = tl.load(mask + x + 1, mask=x + 1 < width, other=0) & CHANGE != 0
            change = tl.where(changed, x + 1, change)
            change = tl.associative_scan(change, 0, smaller, reverse=True)
            tl.store(result + x, change.to(result.dtype.element_ty, bitcast=True), mask=x < width)
            change = tl.zeros([BLOCK], tl.int32) + tl.min(change, axis=0)
        tl.debug_barrier()
        # of the last change
        change = tl.full([BLOCK], 0 if BORDER else -FAR, tl.int32)
    for i in range(0, blocks):
        x = i * BLOCK + lane
        best, _ = nearest_of_block(
            words, anchors, i, width, blocks, place, spacing, SITES, COST, False
        )
        if CHANGE:
            bits = tl.load(mask + x, mask=x < width, other=0)
            change = tl.associative_scan(tl.where(bits & CHANGE != 0, x, change), 0, larger)
            after = tl.load(result + x, mask=x < width, other=0).to(tl.int32, bitcast=True)
            steps = tl.minimum(x - change + 1, after - x)
            change = tl.zeros([BLOCK], tl.int32) + tl.max(change, axis=0)
            square = squares(steps, column_spacing, COST)
            best = tl.minimum(best, tl.where(steps < FAR, square, FARTHEST))
            if LAST:
                best = tl.where(bits & BACKGROUND != 0, 0, best)
        elif BORDER:
            side = tl.minimum(x + 1, width - x)
            best = tl.minimum(best, squares(side, column_spacing, COST))
        if not LAST:
            best = tl.where(best == FARTHEST, -1, best)
        elif not SQUARED:
            best = root(best, COST)
        tl.store(result + x, best, mask=x < width)


def costs_are_integers(mask: Tensor, spacings: tuple[float, ...]) -> bool:
    """Whether squared distances in a mask [N, *space] are integers, and fit in int32."""
    return set(spacings) == {1} and max(mask.shape[1:]) <= LONGEST_SIDES[len(spacings)]


def launch_along_lines(kernel: Any, words: Tensor, *args: Any, **options: Any) -> None:
    """Run a kernel on each line of `words` [..., W]; `args` follow those of the search."""
    width = words.shape[-1]
    lines, blocks = words.numel() // width, triton.cdiv(width, BLOCK.value)
    anchors = torch.empty((lines, blocks), dtype=torch.int32, device=words.device)
    search = (words, anchors, width, blocks, next_power_of_2(blocks + 1) // 2)
    launch(kernel, lines, words, *search, *args, **options, CHUNK=128, num_warps=1)


def squares_of_slices(
    mask: Tensor, memory: Tensor, spacings: tuple[float, ...], labels: bool, **options: Any
) -> Tensor:
    """The squared distances along depth and rows, or -1, of a mask [N, D, H, W] of uint8.

    The result of the transform, `memory`, holds what is no longer needed when that is written.
    """
    images, depth, height, width = mask.shape
    shape = (images, depth, width, height)
    # changes are read again along the rows
    turned = mask.new_empty(shape) if labels else in_memory_of(memory, shape, torch.uint8)
    transpose(mask, turned)
    columns = turned.view(images, depth, -1)
    steps = along_columns(columns, options["BORDER"], change=ALONG_DEPTH if labels else 0)
    dtype = torch.int32 if options["COST"] == tl.int32 else torch.float32
    costs = in_memory_of(memory, turned.shape, dtype)
    launch_along_lines(
        _rows_kernel,
        steps.view(turned.shape),
        *(turned, costs, *spacings[:2]),
        SITES=1,
        CHANGE=ALONG_ROWS if labels else 0,
        LAST=False,
        SQUARED=True,
        **options,
    )
    del steps, turned, columns  # before the next tensor takes memory
    return transpose(costs, torch.empty_like(mask, dtype=dtype))


def distance_transform(
    mask: Tensor,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
    border: bool,
) -> Tensor:
    # Triton cannot load bool
    return _transform(
        mask.view(torch.uint8),
        squared,
        (depth_spacing, row_spacing, column_spacing),
        border,
        labels=False,
    )


def label_distance(
    labels: Tensor,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
    border: bool,
    background: bool,
) -> Tensor:
    changes = find_changes(labels, background) if labels.numel() else labels.byte()
    return _transform(
        changes, squared, (depth_spacing, row_spacing, column_spacing), border, labels=True
    )


def _transform(
    mask: Tensor, squared: bool, spacings: tuple[float, ...], border: bool, labels: bool
) -> Tensor:
    """The distances in a mask of uint8, or of labels from their changes."""
    result = torch.empty_like(mask, dtype=torch.int32 if squared else torch.float32)
    if mask.numel() == 0:
        return result
    spacings = spacings[4 - mask.dim() :]
    exact = costs_are_integers(mask, spacings)
    options = {"COST": tl.int32 if exact else tl.float32, "BORDER": border}
    sites = 1
    if mask.dim() == 3:
        words = along_columns(mask, border, change=ALONG_ROWS if labels else 0)
    else:
        words = squares_of_slices(mask, result, spacings, labels, **options)
        sites = 0
    launch_along_lines(
        _rows_kernel,
        words,
        *(mask, result, *spacings[-2:]),
        SITES=sites,
        CHANGE=ALONG_COLUMNS if labels else 0,
        LAST=True,
        SQUARED=squared,
        **options,
    )
    return result
