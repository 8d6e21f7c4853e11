"""kornia's distance transform, made exact."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelkernels.distance import distance_transform as exact

PACKAGE = "kornia"


def distance_transform(image: Tensor, kernel_size: int = 3, h: float = 0.35) -> Tensor:
    """The distance of every pixel to the nearest nonzero one of its channel, [B, C, H, W].

    The distance is exact and has no gradient; in a channel of zeros it is +inf. The original is an
    approximation by logsumexp and convolutions, off by a fraction of a pixel and 0 far from any
    nonzero pixel; `kernel_size` and `h` are its parameters and have no effect here.
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
