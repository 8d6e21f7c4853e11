"""A data set: a folder of images and a folder of masks with the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
# of ImageNet, with which the backbones were trained
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Folder:
    """Normalised `images` [N, 3, H, W] and `labels` [N, H, W] int64, held in memory.

    An image belongs to the mask of the same stem; images without a mask are skipped. A mask holds
    labels as pixel values or as palette indices.

    Args:
        images, masks: folders.
        size: (height, width) of the result. Images are resized bilinearly, masks to the nearest.
        ignore: the masks' value for unlabelled pixels, which become -1.
    """

    def __init__(
        self, images: Path, masks: Path, size: tuple[int, int], *, ignore: int | None = None
    ) -> None:
        found = [_files(folder) for folder in (images, masks)]
        self.names = sorted(found[0].keys() & found[1].keys())
        if not self.names:
            raise ValueError(f"no image in {images} has a mask of the same name in {masks}")
        self.images = torch.stack([_image(found[0][name], size) for name in self.names])
        self.labels = torch.stack([_labels(found[1][name], size, ignore) for name in self.names])

    def __len__(self) -> int:
        return len(self.names)


def pixels(images: Tensor) -> Tensor:
    """Normalised images [..., 3, H, W] -> bytes [..., H, W, 3]."""
    mean, deviation = _statistics(images)
    return ((images * deviation + mean).clamp(0, 1) * 255).round().byte().movedim(-3, -1)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"expected a folder, got {folder}")
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES}


def _image(path: Path, size: Sequence[int]) -> Tensor:
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        scaled = upright.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(scaled)).movedim(-1, 0).float() / 255
    mean, deviation = _statistics(values)
    return (values - mean) / deviation


def _labels(path: Path, size: Sequence[int], ignore: int | None) -> Tensor:
    with Image.open(path) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise ValueError(f"{path}: expected one number for each pixel, got mode {image.mode}")
        scaled = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
    labels = torch.from_numpy(np.array(scaled).astype(np.int64))
    return labels if ignore is None else torch.where(labels == ignore, -1, labels)


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.tensor(x).to(like).view(3, 1, 1) for x in (MEAN, DEVIATION))
    return mean, deviation
