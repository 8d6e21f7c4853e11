"""Layers, resizing and checks that several networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Sequential):
    """3x3 convolution, batch norm, ReLU; stride 2 gives ceil(size / 2)."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class Deconvolution(nn.Module):
    """Transposed 3x3 convolution, batch norm, ReLU. Stride 2 inverts ceil(size / 2); the caller
    gives the output size, which may be odd.
    """

    def __init__(self, channels: int, out: int, stride: int = 2) -> None:
        super().__init__()
        self.deconvolution = nn.ConvTranspose2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.relu(self.norm(self.deconvolution(x, output_size=list(size))))


def size_of(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def resized_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels [B, H, W] resized to the nearest."""
    return F.interpolate(labels[:, None].double(), size, mode="nearest-exact")[:, 0].long()


def check_images(images: Tensor, shape: str, least: int) -> None:
    """Raises ValueError unless `images` are floats of the shape ("B 3 H W") and large enough."""
    names = shape.split()
    fits = images.dim() == len(names) and all(
        size == int(name) for size, name in zip(images.shape, names, strict=True) if name.isdigit()
    )
    if not fits or not images.is_floating_point() or min(images.shape[-2:]) < least:
        raise ValueError(
            f"images: expected floats [{', '.join(names)}] of at least {least} x {least} pixels,"
            f" got {images.dtype} {list(images.shape)}"
        )


def check_like(name: str, x: Tensor, images: Tensor) -> None:
    """Raises ValueError unless `x` has one value per pixel of each image."""
    expected = [*images.shape[:-3], *images.shape[-2:]]
    if list(x.shape) != expected:
        raise ValueError(f"{name}: expected {expected} to fit the images, got {list(x.shape)}")


def object_logits(logits: Tensor) -> Tensor:
    """Logits [B, 2, H, W] of background and object -> [B, H, W] with the same probability."""
    return logits[:, 1] - logits[:, 0]


def cat(*tensors: Tensor) -> Tensor:
    return torch.cat(tensors, dim=1)
