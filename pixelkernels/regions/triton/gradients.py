"""region_stats_backward and region_pull_backward: gradients from a pixel and its region's rows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, load_tile, pixel_offsets, strides
from ._common import (
    MOMENTS,
    PULL_1,
    PULL_2,
    UNIT_MOMENTS,
    as_bytes,
    gather_rows,
    hinge,
    load_labels,
    pixel_tile,
    pixels_are_adjacent,
    sign,
    tl,
    triton,
)


@triton.jit(do_not_specialize=["num_regions"])
def _region_tables_kernel(
    mean,
    grad_mean,
    grad_pull,
    direction,
    mean_table,
    grad_table,
    num_regions,
    channels,
    table_r,
    table_c,
    HAS_MEAN: tl.constexpr,
    HAS_PULL: tl.constexpr,
    RB: tl.constexpr,
    CB: tl.constexpr,
):
    """The means, and grad_mean - 2 grad_pull direction, in the layout of the gathers."""
    program = tl.program_id(0).to(tl.int64)
    columns = tl.cdiv(channels, CB)
    rows = tl.cdiv(num_regions, RB)
    image = program // (columns * rows)
    r = program // columns % rows * RB + tl.arange(0, RB)
    c = program % columns * CB + tl.arange(0, CB)
    inside = (r < num_regions)[:, None] & (c < channels)[None, :]
    tables = image * num_regions * channels
    source = tables + r[:, None] * channels + c[None, :]
    target = tables + r[:, None] * table_r + c[None, :] * table_c
    tl.store(mean_table + target, tl.load(mean + source, mask=inside), mask=inside)
    gradient = tl.zeros([RB, CB], tl.float32)
    if HAS_MEAN:
        gradient = tl.load(grad_mean + source, mask=inside)
    if HAS_PULL:
        scale = tl.load(grad_pull + image * num_regions + r, mask=r < num_regions, other=0.0)
        pull_direction = tl.load(direction + source, mask=inside)
        # a region whose pull has gradient 0 contributes 0, even if it is NaN
        gradient -= tl.where(scale[:, None] == 0, 0.0, 2 * scale[:, None] * pull_direction)
    if HAS_MEAN or HAS_PULL:
        tl.store(grad_table + target, gradient, mask=inside)


@triton.jit(do_not_specialize=["tiles", "num_regions", "chunks"])
def _region_gradient_kernel(
    features,
    gradient,
    labels,
    count,
    mean,
    grad_rows,
    grad_scale,
    num_regions,
    channels,
    pixels,
    width,
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
    table_r,
    table_c,
    delta,
    MODE: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    FLAT: tl.constexpr,
    GRAD_FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of pixels: row_r / n_r, plus the scale of the region times the term of MODE.

    Ignored pixels get 0. Modes that need all channels of a pixel read them twice, the second time
    from the cache.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    start = program // chunks % tiles * P
    image = program // chunks // tiles
    features += image * stride_b
    gradient += image * grad_b
    mean += image * num_regions * channels
    grad_rows += image * num_regions * channels
    pixel = start + tl.arange(0, P)
    inside = pixel < pixels
    label = load_labels(labels + image * pixels, pixel, inside, num_regions)
    known = label < num_regions
    offsets = pixel_offsets(start, width, stride_h, stride_w, P, FLAT)
    grad_offsets = pixel_offsets(start, width, grad_h, grad_w, P, GRAD_FLAT)
    slot = image * num_regions + label
    n = tl.load(count + slot, mask=known, other=1).to(tl.float32)
    share = tl.div_rn(1.0, tl.maximum(n, 1.0))
    scale = tl.zeros([P], tl.float32)
    if HAS_SCALE:
        scale = 2 * tl.load(grad_scale + slot, mask=known, other=0.0)
    if MODE <= UNIT_MOMENTS:
        scale *= share

    first_channel = chunk * CB
    last_channel = tl.minimum(first_channel + CB, channels)
    inverse = tl.zeros([P], tl.float32)
    along = tl.zeros([P], tl.float32)
    if MODE != MOMENTS:
        first_channel = 0
        last_channel = channels
        square = tl.zeros([P], tl.float32)
        distance = tl.zeros([P], tl.float32)
        for c0 in range(0, channels, CB):
            x = load_tile(features, offsets, inside, c0, channels, stride_c, CB).to(tl.float32)
            m = gather_rows(mean, label, known, c0, channels, table_r, table_c, CB)
            if MODE == UNIT_MOMENTS:
                square += tl.sum(x * x, axis=1)
                if HAS_SCALE:
                    distance += tl.sum(x * m, axis=1)
                if HAS_ROWS:
                    g = gather_rows(grad_rows, label, known, c0, channels, table_r, table_c, CB)
                    along += tl.sum(x * g, axis=1)
            elif MODE == PULL_2:
                distance += tl.sum((x - m) * (x - m), axis=1)
            else:
                distance += tl.sum(tl.abs(x - m), axis=1)
        if MODE == UNIT_MOMENTS:
            # y = x * inverse, and along = y . (gradient of y)
            norm = tl.sqrt_rn(square)
            inverse = tl.div_rn(1.0, tl.where(norm == 0, 1.0, norm))
            along *= inverse * share
            along += scale * inverse * (inverse * square - distance)
        else:
            if MODE == PULL_2:
                distance = tl.sqrt_rn(distance)
            force = hinge(distance, delta)
            if MODE == PULL_2:
                force = tl.where(distance == 0, 0.0, tl.div_rn(force, distance))
            # a region whose pull has gradient 0 contributes 0, even if it is NaN
            scale = tl.where(scale == 0, 0.0, scale * force)
            pulls = scale != 0

    for c0 in range(first_channel, last_channel, CB):
        value = tl.zeros([P, CB], tl.float32)
        if HAS_ROWS:
            g = gather_rows(grad_rows, label, known, c0, channels, table_r, table_c, CB)
            value = g * share[:, None]
        if HAS_SCALE or (MODE == UNIT_MOMENTS):
            x = load_tile(features, offsets, inside, c0, channels, stride_c, CB).to(tl.float32)
        if MODE == UNIT_MOMENTS:
            x *= inverse[:, None]
        if HAS_SCALE:
            difference = x - gather_rows(mean, label, known, c0, channels, table_r, table_c, CB)
            if MODE == PULL_1:
                difference = sign(difference)
            if MODE >= PULL_1:
                difference = tl.where(pulls[:, None], difference, 0.0)
            value += scale[:, None] * difference
        if MODE == UNIT_MOMENTS:
            value = inverse[:, None] * (value - x * along[:, None])
        value = tl.where(known[:, None], value, 0.0)
        c = c0 + tl.arange(0, CB)
        where = gradient + (grad_offsets[:, None] + c[None, :].to(tl.int64) * grad_c)
        tl.store(where, value, mask=inside[:, None] & (c < channels)[None, :])


def region_stats_backward(
    grad_mean: Tensor | None,
    grad_variance: Tensor | None,
    features: Tensor,
    labels: Tensor,
    count: Tensor,
    mean: Tensor,
    normalize: bool,
) -> Tensor:
    mode = UNIT_MOMENTS if normalize else MOMENTS
    mean_table, rows, table_strides = mean, grad_mean, mean.stride()[1:]
    if pixels_are_adjacent(features) and mean.shape[1] > 4:
        mean_table, rows, table_strides = _tables(mean, grad_mean, None, None, features)
    return _gradient(
        features, labels, count, mean_table, rows, table_strides, grad_variance, mode.value, 0.0
    )


def region_pull_backward(
    grad_mean: Tensor | None,
    grad_pull: Tensor | None,
    features: Tensor,
    labels: Tensor,
    count: Tensor,
    mean: Tensor,
    direction: Tensor,
    delta: float,
    norm: int,
) -> Tensor:
    if grad_pull is None:
        return region_stats_backward(grad_mean, None, features, labels, count, mean, False)
    mean_table, rows, table_strides = _tables(mean, grad_mean, grad_pull, direction, features)
    mode = PULL_1 if norm == 1 else PULL_2
    return _gradient(
        features, labels, count, mean_table, rows, table_strides, grad_pull, mode.value, delta
    )


def _tables(
    mean: Tensor,
    grad_mean: Tensor | None,
    grad_pull: Tensor | None,
    direction: Tensor | None,
    features: Tensor,
) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
    """Means and gradient rows for the gathers, and their strides over regions and channels.

    If the threads of a warp hold different pixels, regions are contiguous.
    """
    batch, regions, channels = mean.shape
    rows = None if grad_mean is None and grad_pull is None else torch.empty_like(mean)
    table = torch.empty_like(mean)
    table_strides = (1, regions) if pixels_are_adjacent(features) else (channels, 1)
    if table.numel():
        launch(
            _region_tables_kernel,
            batch * ceil_div(regions, 32) * ceil_div(channels, 32),
            mean,
            *_present(mean, mean, grad_mean, grad_pull, direction, table, rows),
            *(regions, channels, *table_strides),
            HAS_MEAN=grad_mean is not None,
            HAS_PULL=grad_pull is not None,
            RB=32,
            CB=32,
        )
    return table, rows, table_strides


def _gradient(
    features: Tensor,
    labels: Tensor,
    count: Tensor,
    mean: Tensor,
    rows: Tensor | None,
    table_strides: tuple[int, ...],
    scale: Tensor | None,
    mode: int,
    delta: float,
) -> Tensor:
    gradient = torch.empty_like(features)
    if gradient.numel() == 0:
        return gradient
    if rows is None and scale is None:
        return gradient.zero_()
    batch, channels, height, width = features.shape
    pixels = height * width
    shape = pixel_tile(features)
    tiles = ceil_div(pixels, shape["P"])
    chunks = ceil_div(channels, shape["CB"]) if mode == MOMENTS.value else 1
    (steps, flat), (grad_steps, grad_flat) = strides(features), strides(gradient)
    launch(
        _region_gradient_kernel,
        batch * tiles * chunks,
        features,
        *(features, gradient, as_bytes(labels), count, *_present(mean, mean, rows, scale)),
        *(mean.shape[1], channels, pixels, width, tiles, chunks),
        *(*steps, *grad_steps, *table_strides, delta),
        MODE=mode,
        HAS_ROWS=rows is not None,
        HAS_SCALE=scale is not None,
        FLAT=flat,
        GRAD_FLAT=grad_flat,
        **shape,
    )
    return gradient


def _present(default: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Arguments of a launch; `default` stands for tensors that the kernel does not read."""
    return tuple(default if tensor is None else tensor for tensor in tensors)
