"""Shared by the Triton kernels and launchers of all families."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dispatch import BackendUnavailable


@triton.jit
def pixel_offsets(start, width, stride_h, stride_w, P: tl.constexpr, FLAT: tl.constexpr):
    """Offsets, in a channel plane, of the P pixels from the flat index `start` (int64) on.

    FLAT: the offset of a pixel is its flat index times stride_w.
    """
    lane = tl.arange(0, P)
    if FLAT:
        return (start + lane) * stride_w
    column = (start % width).to(tl.int32) + lane
    row = start // width + column // width
    return row * stride_h + (column % width).to(tl.int64) * stride_w


@triton.jit
def flat_offsets(position, width, stride_h, stride_w, FLAT: tl.constexpr):
    """Offsets, in a channel plane, of the flat pixel indices `position` (int64)."""
    if FLAT:
        return position * stride_w
    return position // width * stride_h + position % width * stride_w


@triton.jit
def load_tile(features, offsets, inside, first_channel, channels, stride_c, CB: tl.constexpr):
    """Features [P, CB] in their own dtype; 0 outside the image and past the last channel."""
    c = first_channel + tl.arange(0, CB)
    where = features + (offsets[:, None] + c[None, :].to(tl.int64) * stride_c)
    return tl.load(where, mask=inside[:, None] & (c[None, :] < channels), other=0.0)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def strides(x: Tensor) -> tuple[tuple[int, int, int, int], bool]:
    """Strides of [B, C, H, W], and whether the last one alone addresses pixels (FLAT)."""
    batch, channel, row, column = x.stride()
    _, _, height, width = x.shape
    if width == 1:
        column = row
    flat = height == 1 or width == 1 or row == width * column
    return (batch, channel, row, column), flat


def next_power_of_2(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def launch(kernel: Any, programs: int, like: Tensor, *args: Any, **options: Any) -> None:
    """Run a grid of `programs` programs on the device of `like`."""
    on_device: Any = contextlib.nullcontext()
    if like.device.type == "cuda":
        on_device = torch.cuda.device(like.device)
    try:
        with on_device:
            kernel[(programs,)](*args, **options)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        # the only RuntimeError caused by the machine is that of a missing C compiler
        if isinstance(error, RuntimeError) and "C compiler" not in str(error):
            raise
        raise BackendUnavailable(
            f"backend 'triton' cannot compile its kernels: {type(error).__name__}: {error}. It "
            "needs a writable folder (TRITON_CACHE_DIR) and a C compiler (CC)"
        ) from error
