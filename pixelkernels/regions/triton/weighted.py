"""weighted_mean and background_distance: a weighted mean per image, distances to it, gradients.

A pixel of weight exactly 0 is excluded from every sum by a select, so its NaN does not spread. The
gradient in its weight is that of the formula, or 0 if it would not be finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, load_tile, next_power_of_2, pixel_offsets, strides
from ._common import pixel_tile, split, tile, tl, triton


@triton.jit
def distance_slope(grad, distance, SQUARED: tl.constexpr):
    """c_i, the factor of f_i - mean in the gradient: 0 if the gradient or the distance is 0."""
    if SQUARED:
        return 2 * grad
    return tl.where((grad == 0) | (distance == 0), 0.0, tl.div_rn(grad, distance))


@triton.jit(do_not_specialize=["blocks", "chunks"])
def _weighted_sums_kernel(
    features,
    weights,
    distance,
    mean,
    sums,
    totals,
    channels,
    pixels,
    width,
    blocks,
    chunks,
    pixels_per_block,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    SLOPES: tl.constexpr,
    SQUARED: tl.constexpr,
    FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One block of pixels, one chunk of channels: sum_i w_i f_i and sum_i w_i.

    SLOPES: `weights` is the gradient of the distances; the sums are of c_i (f_i - mean) and c_i.
    """
    program = tl.program_id(0).to(tl.int64)
    chunk = (program % chunks).to(tl.int32)
    slot = program // chunks
    block, image = slot % blocks, slot // blocks
    features += image * stride_b
    c = chunk * CB + tl.arange(0, CB)
    center = tl.zeros([CB], tl.float32)
    if SLOPES:
        center = tl.load(mean + image * channels + c, mask=c < channels, other=0.0)
    acc = tl.zeros([P, CB], tl.float32)
    total = tl.zeros([P], tl.float32)
    begin = block * pixels_per_block
    end = tl.minimum(begin + pixels_per_block, pixels)
    for i in range(0, tl.cdiv(end - begin, P).to(tl.int32)):
        start = begin + i * P
        pixel = start + tl.arange(0, P)
        inside = pixel < end
        w = tl.load(weights + image * pixels + pixel, mask=inside, other=0.0)
        if SLOPES:
            d = tl.load(distance + image * pixels + pixel, mask=inside, other=0.0)
            w = distance_slope(w, d, SQUARED)
        offsets = pixel_offsets(start, width, stride_h, stride_w, P, FLAT)
        x = load_tile(features, offsets, inside, chunk * CB, channels, stride_c, CB)
        x = x.to(tl.float32) - center[None, :]
        acc += tl.where((w != 0)[:, None], x * w[:, None], 0.0)
        total += w
    tl.store(sums + slot * channels + c, tl.sum(acc, axis=0), mask=c < channels)
    tl.store(totals + slot, tl.sum(total, axis=0), mask=chunk == 0)


@triton.jit(do_not_specialize=["blocks", "chunks"])
def _merge_sums_kernel(
    sums,
    totals,
    result,
    total,
    channels,
    blocks,
    chunks,
    eps,
    SLOPES: tl.constexpr,
    NB: tl.constexpr,
    CB: tl.constexpr,
):
    """One chunk of channels of one image: the sum over its blocks, divided by total + eps.

    SLOPES: divided by -total, which is given.
    """
    program = tl.program_id(0).to(tl.int64)
    image, chunk = program // chunks, (program % chunks).to(tl.int32)
    c = chunk * CB + tl.arange(0, CB)
    acc = tl.zeros([CB], tl.float32)
    weight = tl.zeros([NB], tl.float32)
    for k0 in range(0, blocks, NB):
        slot = image * blocks + k0 + tl.arange(0, NB)
        inside = k0 + tl.arange(0, NB) < blocks
        rows = sums + slot[:, None] * channels + c[None, :]
        rows = tl.load(rows, mask=inside[:, None] & (c < channels)[None, :], other=0.0)
        acc += tl.sum(rows, axis=0)
        if not SLOPES:
            weight += tl.load(totals + slot, mask=inside, other=0.0)
    if SLOPES:
        divisor = tl.load(total + image)
        # without weights every distance is the constant 0
        acc = tl.where(divisor != 0, -tl.div_rn(acc, tl.zeros_like(acc) + divisor), 0.0)
    else:
        total_weight = tl.sum(weight, axis=0)
        tl.store(total + image, total_weight, mask=chunk == 0)
        divisor = total_weight + eps
        divisor = tl.where(divisor == 0, 1.0, divisor)
        acc = tl.div_rn(acc, tl.zeros_like(acc) + divisor)
    tl.store(result + image * channels + c, acc, mask=c < channels)


@triton.jit(do_not_specialize=["tiles"])
def _background_distance_kernel(
    features,
    mean,
    total,
    distance,
    channels,
    pixels,
    width,
    tiles,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    SQUARED: tl.constexpr,
    FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of pixels: the distance to the image's mean."""
    program = tl.program_id(0).to(tl.int64)
    start = program % tiles * P
    image = program // tiles
    features += image * stride_b
    pixel = start + tl.arange(0, P)
    inside = pixel < pixels
    offsets = pixel_offsets(start, width, stride_h, stride_w, P, FLAT)
    acc = tl.zeros([P], tl.float32)
    for c0 in range(0, channels, CB):
        c = c0 + tl.arange(0, CB)
        x = load_tile(features, offsets, inside, c0, channels, stride_c, CB).to(tl.float32)
        x -= tl.load(mean + image * channels + c, mask=c < channels, other=0.0)[None, :]
        acc += tl.sum(x * x, axis=1)
    if not SQUARED:
        acc = tl.sqrt_rn(acc)
    acc = tl.where(tl.load(total + image) != 0, acc, 0.0)
    tl.store(distance + image * pixels + pixel, acc, mask=inside)


@triton.jit(do_not_specialize=["tiles"])
def _weighted_gradient_kernel(
    features,
    weights,
    grad_distance,
    distance,
    mean,
    total,
    mean_term,
    gradient,
    grad_weights,
    channels,
    pixels,
    width,
    tiles,
    eps,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    grad_b,
    grad_c,
    grad_h,
    grad_w,
    READS: tl.constexpr,
    DISTANCE: tl.constexpr,
    SQUARED: tl.constexpr,
    FLAT: tl.constexpr,
    GRAD_FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of pixels: d f_i = w_i T, and d w_i = (f_i - mean) . T if READS.

    DISTANCE: plus c_i (f_i - mean) in d f_i; T is `mean_term`. Otherwise T is
    `mean_term` / (total + eps).
    """
    program = tl.program_id(0).to(tl.int64)
    start = program % tiles * P
    image = program // tiles
    features += image * stride_b
    gradient += image * grad_b
    pixel = start + tl.arange(0, P)
    inside = pixel < pixels
    offsets = pixel_offsets(start, width, stride_h, stride_w, P, FLAT)
    grad_offsets = pixel_offsets(start, width, grad_h, grad_w, P, GRAD_FLAT)
    w = tl.load(weights + image * pixels + pixel, mask=inside, other=0.0)
    slope = tl.zeros([P], tl.float32)
    share = 1.0
    total_weight = tl.load(total + image)
    if DISTANCE:
        slope = tl.load(grad_distance + image * pixels + pixel, mask=inside, other=0.0)
        d = tl.load(distance + image * pixels + pixel, mask=inside, other=0.0)
        slope = tl.where(total_weight != 0, distance_slope(slope, d, SQUARED), 0.0)
    else:
        divisor = total_weight + eps
        share = tl.where(divisor == 0, 0.0, tl.div_rn(1.0, tl.where(divisor == 0, 1.0, divisor)))
    acc = tl.zeros([P], tl.float32)
    for c0 in range(0, channels, CB):
        c = c0 + tl.arange(0, CB)
        t = share * tl.load(mean_term + image * channels + c, mask=c < channels, other=0.0)
        if READS:
            x = load_tile(features, offsets, inside, c0, channels, stride_c, CB).to(tl.float32)
            x -= tl.load(mean + image * channels + c, mask=c < channels, other=0.0)[None, :]
            acc += tl.sum(x * t[None, :], axis=1)
        value = tl.where((w != 0)[:, None], w[:, None] * t[None, :], 0.0)
        if DISTANCE:
            value += tl.where((slope != 0)[:, None], slope[:, None] * x, 0.0)
        where = gradient + (grad_offsets[:, None] + c[None, :].to(tl.int64) * grad_c)
        tl.store(where, value, mask=inside[:, None] & (c < channels)[None, :])
    if READS:
        acc = tl.where((w == 0) & ~(tl.abs(acc) < float("inf")), 0.0, acc)
        tl.store(grad_weights + image * pixels + pixel, acc, mask=inside)


def weighted_mean(features: Tensor, weights: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    mean = features.new_zeros(features.shape[:2], dtype=torch.float32)
    total = features.new_zeros(features.shape[:1], dtype=torch.float32)
    if weights.numel():
        _merged_sums(features, weights, None, None, False, mean, total, eps)
    return mean, total


def weighted_mean_backward(
    grad_mean: Tensor, features: Tensor, weights: Tensor, mean: Tensor, total: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return _gradients(features, weights, None, None, mean, total, grad_mean, eps, False)


def weighted_mean_share(
    grad_mean: Tensor, features: Tensor, weights: Tensor, total: Tensor, eps: float
) -> Tensor:
    return _gradients(features, weights, None, None, None, total, grad_mean, eps, False)[0]


def background_distance(
    features: Tensor, weights: Tensor, squared: bool
) -> tuple[Tensor, Tensor, Tensor]:
    mean, total = weighted_mean(features, weights, 0.0)
    distance = torch.empty_like(weights)
    if distance.numel():
        batch, channels, height, width = features.shape
        shape = pixel_tile(features)
        tiles = ceil_div(height * width, shape["P"])
        steps, flat = strides(features)
        launch(
            _background_distance_kernel,
            batch * tiles,
            features,
            *(features, mean, total, distance, channels, height * width, width, tiles, *steps),
            SQUARED=squared,
            FLAT=flat,
            **shape,
        )
    return distance, mean, total


def background_distance_backward(
    grad_distance: Tensor,
    features: Tensor,
    weights: Tensor,
    distance: Tensor,
    mean: Tensor,
    total: Tensor,
    squared: bool,
) -> tuple[Tensor, Tensor]:
    mean_term = torch.zeros_like(mean)
    if weights.numel():
        _merged_sums(features, grad_distance, distance, mean, squared, mean_term, total, 0.0)
    return _gradients(
        features, weights, grad_distance, distance, mean, total, mean_term, 0.0, squared
    )


def _merged_sums(
    features: Tensor,
    weights: Tensor,
    distance: Tensor | None,
    mean: Tensor | None,
    squared: bool,
    result: Tensor,
    total: Tensor,
    eps: float,
) -> None:
    """Write the weighted means [B, C] to `result`, or T of the gradient if `distance` is given."""
    batch, channels, height, width = features.shape
    pixels = height * width
    shape = tile(channels, 32)
    chunks = max(ceil_div(channels, shape["CB"]), 1)
    blocks, per_block = split(batch, pixels, channels, chunks, 1)
    sums = features.new_empty((batch, blocks, channels), dtype=torch.float32)
    totals = features.new_empty((batch, blocks), dtype=torch.float32)
    slopes = distance is not None
    steps, flat = strides(features)
    launch(
        _weighted_sums_kernel,
        batch * blocks * chunks,
        features,
        *(features, weights, distance if slopes else weights, mean if slopes else sums),
        *(sums, totals),
        *(channels, pixels, width, blocks, chunks, per_block, *steps),
        SLOPES=slopes,
        SQUARED=squared,
        FLAT=flat,
        **shape,
    )
    block = min(next_power_of_2(channels), 32)
    chunks = max(ceil_div(channels, block), 1)
    launch(
        _merge_sums_kernel,
        batch * chunks,
        features,
        *(sums, totals, result, total, channels, blocks, chunks, eps),
        SLOPES=slopes,
        NB=min(next_power_of_2(blocks), 4096 // block),
        CB=block,
    )


def _gradients(
    features: Tensor,
    weights: Tensor,
    grad_distance: Tensor | None,
    distance: Tensor | None,
    mean: Tensor | None,
    total: Tensor,
    mean_term: Tensor,
    eps: float,
    squared: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of features and weights; without `mean`, of the features alone."""
    gradient, grad_weights = torch.empty_like(features), torch.empty_like(weights)
    if weights.numel() == 0:
        return gradient, grad_weights
    batch, channels, height, width = features.shape
    pixels = height * width
    shape = pixel_tile(features)
    tiles = ceil_div(pixels, shape["P"])
    (steps, flat), (grad_steps, grad_flat) = strides(features), strides(gradient)
    has_distance = distance is not None
    launch(
        _weighted_gradient_kernel,
        batch * tiles,
        features,
        *(features, weights, grad_distance if has_distance else weights),
        *(distance if has_distance else weights, total if mean is None else mean, total, mean_term),
        *(gradient, grad_weights),
        *(channels, pixels, width, tiles, eps, *steps, *grad_steps),
        READS=mean is not None,
        DISTANCE=has_distance,
        SQUARED=squared,
        FLAT=flat,
        GRAD_FLAT=grad_flat,
        **shape,
    )
    return gradient, grad_weights
