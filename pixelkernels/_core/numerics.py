"""The reductions and products that all families share."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in the dtype that statistics are kept in: float64 stays, everything else is float32."""
    return x if x.dtype == torch.float64 else x.float()


def mean_over_images(loss: Tensor, counts: Tensor) -> Tensor:
    """The mean of `loss` [B] over the images where `counts` [B] is True; 0 if it is nowhere."""
    return torch.where(counts, loss, 0).sum() / counts.sum().clamp(min=1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` as wide as they are, autocast or not."""
    if a.device.type == "meta":  # which autocast does not know
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
