"""kornia's distance transform, exact where the original approximates."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelkernels.distance import distance_transform as exact

PACKAGE = "kornia"


def distance_transform(image: Tensor, kernel_size: int = 3, h: float = 0.35) -> Tensor:
    """The distance of every pixel to the nearest nonzero one of its channel, [B, C, H, W].

    `kernel_size` and `h` belong to the original's approximation (a cascade of convolutions under
    log-sum-exp), which is off by a fraction of a pixel and gives 0 far from any nonzero pixel; here
    the distance is exact, +inf in a channel without one, and has no gradient.
    """
    if not isinstance(image, Tensor):
        raise TypeError(f"image: expected a tensor, got {type(image)}")
    if image.dim() != 4:
        raise ValueError(f"image: expected [B, C, H, W], got {list(image.shape)}")
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
    with torch.no_grad():
        return exact(image != 0).to(image.dtype)


REPLACES = {"contrib.distance_transform:distance_transform": distance_transform}
