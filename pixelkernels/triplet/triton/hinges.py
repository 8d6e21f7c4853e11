"""triplet_hinges: the distances of a tile of rows, and the sum of each pixel's gradients."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import ceil_div, flat_offsets, launch, load_tile, next_power_of_2, strides
from .. import reference


@triton.jit
def set_of(pair, SETS: tl.constexpr, OTHER: tl.constexpr):
    """One of the two sets of a pair; hinge h of reference.HINGES has the pairs 2h and 2h + 1."""
    if SETS == 3:
        return pair + 1 if OTHER else 0
    if OTHER:
        return 1 if pair == 0 or pair == 3 else 2 if pair == 1 else 3
    return 0 if pair < 2 else 2


@triton.jit
def pixels_of(sets, row, valid, which, rows):
    return tl.load(sets + which * rows + row, mask=valid, other=-1)


@triton.jit
def vectors_of(
    features, pixel, valid, first, channels, width, stride_c, stride_h, stride_w,
    FLAT: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    offsets = flat_offsets(pixel, width, stride_h, stride_w, FLAT)
    return load_tile(features, offsets, valid, first, channels, stride_c, CB).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "tiles"])
def _hinges_kernel(
    features,
    sets,
    hinges,
    distances,
    margin,
    eps,
    channels,
    pixels,
    width,
    rows,
    tiles,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    SETS: tl.constexpr,
    SQUARED: tl.constexpr,
    FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of rows: the distances of the pairs of sets, and the hinges."""
    program = tl.program_id(0).to(tl.int64)
    image = program // tiles
    row = program % tiles * P + tl.arange(0, P)
    features += image * stride_b
    sets += image * SETS * rows
    valid = row < rows
    for i in tl.static_range(SETS):
        pixel = pixels_of(sets, row, row < rows, i, rows)
        valid &= (pixel >= 0) & (pixel < pixels)
    for hinge in tl.static_range(SETS - 2):
        own = tl.zeros([P], tl.float32)
        other = tl.zeros([P], tl.float32)
        a = pixels_of(sets, row, valid, set_of(2 * hinge, SETS, False), rows)
        p = pixels_of(sets, row, valid, set_of(2 * hinge, SETS, True), rows)
        n = pixels_of(sets, row, valid, set_of(2 * hinge + 1, SETS, True), rows)
        for c0 in range(0, channels, CB):
            known = (c0 + tl.arange(0, CB) < channels)[None, :]
            u = vectors_of(
                features, a, valid, c0, channels, width, stride_c, stride_h, stride_w, FLAT, CB
            )
            v = vectors_of(
                features, p, valid, c0, channels, width, stride_c, stride_h, stride_w, FLAT, CB
            )
            w = vectors_of(
                features, n, valid, c0, channels, width, stride_c, stride_h, stride_w, FLAT, CB
            )
            near = tl.where(known, u - v + eps, 0.0)
            far = tl.where(known, u - w + eps, 0.0)
            own += tl.sum(near * near, axis=1)
            other += tl.sum(far * far, axis=1)
        if not SQUARED:
            own = tl.sqrt_rn(own)
            other = tl.sqrt_rn(other)
        hinge_value = own - other + margin
        # keep NaN
        hinge_value = tl.where((hinge_value < 0) | ~valid, 0.0, hinge_value)
        to = image * (SETS - 2) * rows + hinge * rows + row
        tl.store(hinges + to, hinge_value, mask=row < rows)
        to = image * 2 * (SETS - 2) * rows + 2 * hinge * rows + row
        tl.store(distances + to, tl.where(valid, own, 0.0), mask=row < rows)
        tl.store(distances + to + rows, tl.where(valid, other, 0.0), mask=row < rows)


@triton.jit(do_not_specialize=["rows", "tiles", "chunks"])
def _hinges_gradient_kernel(
    grad,
    features,
    sets,
    distances,
    keys,
    order,
    gradient,
    margin,
    eps,
    channels,
    pixels,
    width,
    rows,
    tiles,
    chunks,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    grad_b,
    grad_c,
    grad_h,
    grad_w,
    SETS: tl.constexpr,
    SQUARED: tl.constexpr,
    FLAT: tl.constexpr,
    GRAD_FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of the entries of an image, sorted by pixel, and one chunk of channels.

    The lane of a pixel's first entry adds the contributions of all its entries, in order. `keys`
    and `order` are those of one sort of all images: see triplet_hinges_backward.
    """
    program = tl.program_id(0).to(tl.int64)
    first = (program % chunks).to(tl.int32) * CB
    slot = program // chunks
    image = slot // tiles
    count = SETS * rows
    entry = slot % tiles * P + tl.arange(0, P)
    features += image * stride_b
    sets += image * count
    distances += image * 2 * (SETS - 2) * rows
    grad += image * (SETS - 2) * rows
    keys += image * count
    order += image * count
    first_key = image * pixels + image
    key = tl.load(keys + entry, mask=entry < count, other=first_key + pixels)
    before = tl.load(keys + entry - 1, mask=(entry > 0) & (entry < count), other=-1)
    pixel = key.to(tl.int64) - first_key
    head = (pixel < pixels) & (before != key)
    own = vectors_of(
        features, pixel, head, first, channels, width, stride_c, stride_h, stride_w, FLAT, CB
    )
    total = tl.zeros([P, CB], tl.float32)
    more = head
    step = 0
    while tl.max(more.to(tl.int32), axis=0) > 0:
        unsorted = tl.load(order + entry + step, mask=more, other=0) - image * count
        which = unsorted // rows
        row = unsorted % rows
        for p in tl.static_range(2 * (SETS - 2)):
            one = set_of(p, SETS, False)
            other = set_of(p, SETS, True)
            used = more & ((which == one) | (which == other))
            near = tl.load(distances + (p // 2 * 2) * rows + row, mask=used, other=0.0)
            far = tl.load(distances + (p // 2 * 2 + 1) * rows + row, mask=used, other=0.0)
            g = tl.load(grad + (p // 2) * rows + row, mask=used, other=0.0)
            g = tl.where(near - far + margin >= 0, g, 0.0)
            length = far if p % 2 else near
            slope = tl.where(length == 0, 0.0, tl.div_rn(1.0, tl.where(length == 0, 1.0, length)))
            if SQUARED:
                slope = tl.full([P], 2.0, tl.float32)
            factor = (-g if p % 2 else g) * slope
            partner = tl.where(which == one, other, one)
            at = pixels_of(sets, row, used, partner, rows)
            partner_vector = vectors_of(
                features, at, used, first, channels, width, stride_c, stride_h, stride_w, FLAT, CB
            )
            shift = tl.where(which == one, eps, -eps)
            part = factor[:, None] * (own - partner_vector + shift[:, None])
            total += tl.where(used[:, None], part, 0.0)
        step += 1
        after = tl.load(keys + entry + step, mask=more & (entry + step < count), other=-1)
        more &= after == key
    c = first + tl.arange(0, CB)
    to = flat_offsets(pixel, width, grad_h, grad_w, GRAD_FLAT)
    to = gradient + image * grad_b + (to[:, None] + c[None, :].to(tl.int64) * grad_c)
    tl.store(to, total, mask=head[:, None] & (c < channels)[None, :])


def triplet_hinges(
    features: Tensor,
    first: Tensor,
    second: Tensor,
    third: Tensor,
    fourth: Tensor | None,
    margin: float,
    squared: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    sets = reference.stack_sets(first, second, third, fourth)
    batch, count, rows = sets.shape
    _, channels, height, width = features.shape
    hinges = features.new_empty((batch, count - 2, rows), dtype=torch.float32)
    distances = hinges.new_empty((batch, 2 * (count - 2), rows))
    if hinges.numel():
        steps, flat = strides(features)
        block = min(next_power_of_2(channels), 64)
        tile = 16
        tiles = ceil_div(rows, tile)
        launch(
            _hinges_kernel,
            batch * tiles,
            features,
            *(features, sets, hinges, distances, margin, 0.0 if squared else eps),
            *(channels, height * width, width, rows, tiles, *steps),
            SETS=count,
            SQUARED=squared,
            FLAT=flat,
            P=tile,
            CB=block,
        )
    return hinges, distances, reference.weights(features, sets)


def triplet_hinges_backward(
    grad_hinges: Tensor,
    features: Tensor,
    first: Tensor,
    second: Tensor,
    third: Tensor,
    fourth: Tensor | None,
    distances: Tensor,
    margin: float,
    squared: bool,
    eps: float,
) -> Tensor:
    sets = reference.stack_sets(first, second, third, fourth)
    batch, count, rows = sets.shape
    _, channels, height, width = features.shape
    gradient = torch.zeros_like(features)
    if gradient.numel() == 0 or rows == 0:
        return gradient
    pixels = height * width
    valid = ((sets >= 0) & (sets < pixels)).all(1, keepdim=True)
    # One sort of all images takes a third of the launches of a sort per image: a radix sort of one
    # row, which has half as many passes if the keys are int32. Absent entries are an image's last.
    first_key = torch.arange(batch, device=sets.device)[:, None, None] * (pixels + 1)
    keys = torch.where(valid, sets, pixels) + first_key
    if batch * (pixels + 1) < 2**31:
        keys = keys.int()
    keys, order = keys.flatten().sort(stable=True)
    steps, flat = strides(features)
    grad_steps, grad_flat = strides(gradient)
    block = min(next_power_of_2(channels), 64)
    tile, chunks = 16, ceil_div(channels, block)
    tiles = ceil_div(count * rows, tile)
    launch(
        _hinges_gradient_kernel,
        batch * tiles * chunks,
        features,
        *(grad_hinges, features, sets, distances, keys, order, gradient),
        *(margin, 0.0 if squared else eps, channels, pixels, width, rows, tiles, chunks),
        *(*steps, *grad_steps),
        SETS=count,
        SQUARED=squared,
        FLAT=flat,
        GRAD_FLAT=grad_flat,
        P=tile,
        CB=block,
    )
    return gradient
