"""region_push: pairs of regions. region_contrast: each pixel against the means of two classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton import ceil_div, launch, load_tile, next_power_of_2, pixel_offsets, strides
from ._common import as_bytes, load_labels, pixel_tile, sign, tl, triton


@triton.jit(do_not_specialize=["num_regions"])
def _region_push_kernel(
    mean,
    present,
    push,
    gradient,
    num_regions,
    channels,
    delta,
    NORM: tl.constexpr,
    BB: tl.constexpr,
    CB: tl.constexpr,
):
    """One region a of one image against all others: its part of the push, and d push / d mean_a.

    CB covers all channels. A pair counts in both orders, also in the gradient.
    """
    program = tl.program_id(0).to(tl.int64)
    image, a = program // num_regions, program % num_regions
    c = tl.arange(0, CB)
    mean += image * num_regions * channels
    present += image * num_regions
    is_present = tl.load(present + a) != 0
    own = tl.load(mean + a * channels + c, mask=(c < channels) & is_present, other=0.0)
    loss = tl.zeros([BB], tl.float32)
    grad_mean = tl.zeros([CB], tl.float32)
    for b0 in range(0, num_regions, BB):
        b = b0 + tl.arange(0, BB)
        other = (b < num_regions) & (b != a) & is_present
        other &= tl.load(present + b, mask=other, other=0) != 0
        rows = mean + b[:, None].to(tl.int64) * channels + c[None, :]
        other_means = tl.load(rows, mask=other[:, None] & (c < channels)[None, :], other=0.0)
        gap = tl.where(other[:, None], own[None, :] - other_means, 0.0)
        if NORM == 1:
            distance = tl.sum(tl.abs(gap), axis=1)
        else:
            distance = tl.sqrt_rn(tl.sum(gap * gap, axis=1))
        force = 2 * delta - distance
        force = tl.where(other & ~(force <= 0), force, 0.0)
        loss += force * force
        if NORM == 1:
            grad_mean += tl.sum(force[:, None] * sign(gap), axis=0)
        else:
            force = tl.where(distance == 0, 0.0, tl.div_rn(force, distance))
            grad_mean += tl.sum(force[:, None] * gap, axis=0)
    tl.store(push + program, tl.sum(loss, axis=0))
    tl.store(gradient + program * channels + c, -4 * grad_mean, mask=c < channels)


@triton.jit(do_not_specialize=["tiles"])
def _region_contrast_kernel(
    features,
    labels,
    mean,
    scores,
    channels,
    pixels,
    width,
    tiles,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    NORMALIZE: tl.constexpr,
    FLAT: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
):
    """One tile of pixels: squared distance to the own mean minus that to the other mean."""
    program = tl.program_id(0).to(tl.int64)
    start = program % tiles * P
    image = program // tiles
    features += image * stride_b
    mean += image * 2 * channels
    pixel = start + tl.arange(0, P)
    inside = pixel < pixels
    label = load_labels(labels + image * pixels, pixel, inside, 2)
    offsets = pixel_offsets(start, width, stride_h, stride_w, P, FLAT)
    inverse = tl.full([P], 1.0, tl.float32)
    if NORMALIZE:
        square = tl.zeros([P], tl.float32)
        for c0 in range(0, channels, CB):
            x = load_tile(features, offsets, inside, c0, channels, stride_c, CB).to(tl.float32)
            square += tl.sum(x * x, axis=1)
        norm = tl.sqrt_rn(square)
        inverse = tl.div_rn(1.0, tl.where(norm == 0, 1.0, norm))
    to_zero = tl.zeros([P], tl.float32)
    to_one = tl.zeros([P], tl.float32)
    for c0 in range(0, channels, CB):
        c = c0 + tl.arange(0, CB)
        x = load_tile(features, offsets, inside, c0, channels, stride_c, CB).to(tl.float32)
        x *= inverse[:, None]
        zero = tl.load(mean + c, mask=c < channels, other=0.0)
        one = tl.load(mean + channels + c, mask=c < channels, other=0.0)
        to_zero += tl.sum((x - zero[None, :]) * (x - zero[None, :]), axis=1)
        to_one += tl.sum((x - one[None, :]) * (x - one[None, :]), axis=1)
    score = tl.where(label == 0, to_zero - to_one, to_one - to_zero)
    tl.store(scores + image * pixels + pixel, tl.where(label < 2, score, 0.0), mask=inside)


def region_push(mean: Tensor, present: Tensor, delta: float, norm: int) -> tuple[Tensor, Tensor]:
    batch, regions, channels = mean.shape
    push = mean.new_empty((batch, regions))
    gradient = torch.empty_like(mean, memory_format=torch.contiguous_format)
    block = next_power_of_2(channels)
    if batch:
        launch(
            _region_push_kernel,
            batch * regions,
            mean,
            *(mean.contiguous(), as_bytes(present.contiguous()), push, gradient),
            *(regions, channels, delta),
            NORM=norm,
            BB=min(next_power_of_2(regions), max(4096 // block, 1)),
            CB=block,
        )
    return push.sum(1), gradient


def region_contrast(features: Tensor, labels: Tensor, mean: Tensor, normalize: bool) -> Tensor:
    batch, channels, height, width = features.shape
    scores = mean.new_empty(labels.shape)
    shape = pixel_tile(features)
    tiles = ceil_div(height * width, shape["P"])
    steps, flat = strides(features)
    if scores.numel():
        launch(
            _region_contrast_kernel,
            batch * tiles,
            features,
            *(features, as_bytes(labels), mean, scores, channels, height * width, width, tiles),
            *steps,
            NORMALIZE=normalize,
            FLAT=flat,
            **shape,
        )
    return scores
