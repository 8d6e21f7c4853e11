"""kornia's distance transform, made exact."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelkernels.distance import distance_transform as exact

PACKAGE = "kornia"


def distance_transform(image: Tensor, kernel_size: int = 3, h: float = 0.35) -> Tensor:
    """The exact Euclidean distance of every pixel to the nearest positive one of its channel; 0 in
    a channel without a positive pixel.

    The original (0.9) approximates it with a cascade of convolutions. Beyond their window it adds
    `kernel_size // 2` a step in any direction, as the chessboard distance does, so it can be tens
    of pixels too small in an image of common size. It takes a value between 0 and 1 as a weaker
    source, which is a full one here.

    Args:
        image: [B, C, H, W] or [B, C, D, H, W], floating point.
        kernel_size, h: parameters of the approximation, without effect here. An odd integer from 3
            on, and a positive number of any size, where the original accepts a range.

    Returns: the shape and dtype of `image`, rounded to float32.
    Raises: ValueError for an image that requires a gradient, which the original has.
    """
    if not isinstance(image, Tensor):
        raise TypeError(f"image: expected a tensor, got {type(image).__name__}")
    if not image.is_floating_point():
        raise TypeError(f"image: expected a floating-point dtype, got {image.dtype}")
    if image.dim() not in (4, 5):
        expected = "[B, C, H, W] or [B, C, D, H, W]"
        raise ValueError(f"image: expected {expected}, got {list(image.shape)}")
    if not isinstance(kernel_size, int):
        raise TypeError(f"kernel_size: expected an int, got {type(kernel_size).__name__}")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd integer from 3 on, got {kernel_size}")
    if not h > 0:
        raise ValueError(f"h: expected a positive number, got {h}")
    if image.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "image: expected no gradient, since the exact distance has none in the image; use"
            " image.detach() or torch.no_grad()"
        )
    sources = image > 0
    empty = ~sources.flatten(2).any(2).view(*image.shape[:2], *[1] * (image.dim() - 2))
    found = exact(sources, spatial_dims=image.dim() - 2)
    return found.masked_fill_(empty, 0).to(image.dtype)


REPLACES = {"contrib.distance_transform:distance_transform": distance_transform}
