"""Accumulation dtype, reductions and products of all families."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in the accumulation dtype: float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def mean_over_images(loss: Tensor, counts: Tensor) -> Tensor:
    """The mean of `loss` [B] over the images where `counts` [B] is True; 0 if there are none."""
    return torch.where(counts, loss, 0).sum() / counts.sum().clamp(min=1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` in the dtype of the operands, even under autocast."""
    if a.device.type == "meta":  # not an autocast device
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
