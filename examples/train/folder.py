"""A data set: a folder of images and a folder of masks with the same names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
# of ImageNet, with which the backbones were trained
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Folder:
    """Normalised `images` [N, 3, H, W] and `labels` [N, H, W] int64, held in memory.

    An image belongs to the mask of the same stem; images without a mask are skipped. A mask holds
    labels as pixel values or as palette indices. `digest` is a hash of the names and files.

    Args:
        images, masks: folders.
        size: (height, width) of the result. Images are resized bilinearly, masks to the nearest.
        ignore: the masks' value for unlabelled pixels, which become -1.

    Raises ValueError where a folder or a file is not as described.
    """

    def __init__(
        self, images: Path, masks: Path, size: tuple[int, int], *, ignore: int | None = None
    ) -> None:
        found = [_files(folder) for folder in (images, masks)]
        self.names = sorted(found[0].keys() & found[1].keys())
        if not self.names:
            raise ValueError(f"no image in {images} has a mask of the same name in {masks}")
        self.skipped = len(found[0]) - len(self.names)
        self.images = torch.stack([_image(found[0][name], size) for name in self.names])
        self.labels = torch.stack([_labels(found[1][name], size, ignore) for name in self.names])
        if not (self.labels > 0).any():
            raise ValueError(f"no mask in {masks} has an object: a pixel above 0, and not ignored")
        self.digest = _digest(self.names, *found)

    def __len__(self) -> int:
        return len(self.names)


def pixels(images: Tensor) -> Tensor:
    """Normalised images [..., 3, H, W] -> bytes [..., H, W, 3]."""
    mean, deviation = _statistics(images)
    return ((images * deviation + mean).clamp(0, 1) * 255).round().byte().movedim(-3, -1)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"expected a folder, got {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    return {p.stem: p for p in files}


def _digest(names: list[str], images: dict[str, Path], masks: dict[str, Path]) -> str:
    total = hashlib.sha256()
    for name in names:
        # hashes have one length, so no two data sets give the same bytes
        for part in (os.fsencode(name), images[name].read_bytes(), masks[name].read_bytes()):
            total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def _decoded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except Exception as error:  # a decoder of damaged bytes raises whatever it stumbles over
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no known format" if unknown else str(error) or type(error).__name__
        raise ValueError(f"{path}: cannot be read as an image: {reason}") from error


def _image(path: Path, size: Sequence[int]) -> Tensor:
    image = _decoded(path)
    if image.mode.startswith(("I", "F")):  # which Pillow would clip to 255
        raise ValueError(f"{path}: expected 8 bits for each channel, got mode {image.mode}")
    scaled = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(scaled)).movedim(-1, 0).float() / 255
    mean, deviation = _statistics(values)
    return (values - mean) / deviation


def _labels(path: Path, size: Sequence[int], ignore: int | None) -> Tensor:
    image = _decoded(path)
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(f"{path}: expected one number for each pixel, got mode {image.mode}")
    scaled = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
    labels = torch.from_numpy(np.array(scaled).astype(np.int64))
    return labels if ignore is None else torch.where(labels == ignore, -1, labels)


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.tensor(x).to(like).view(3, 1, 1) for x in (MEAN, DEVIATION))
    return mean, deviation
