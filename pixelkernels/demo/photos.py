"""Photographs to train on: those that scikit-image ships in its wheel, or a folder's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage import data

SIDE = 192  # every photo becomes a square of this many pixels, so that they make one batch
MOST = 8  # photos of a folder that are used: the batch has to fit into memory and two minutes
SUFFIXES = (".jpg", ".jpeg", ".png")


class Photo(NamedTuple):
    """A name for the files made from it, and `pixels` [SIDE, SIDE, 3] uint8."""

    name: str
    pixels: NDArray[np.uint8]


def packaged() -> list[Photo]:
    """Photos whose files are part of scikit-image, so that no network is needed."""
    arrays = {
        "astronaut": data.astronaut(),
        "coffee": data.coffee(),
        "chelsea": data.chelsea(),
        "rocket": data.rocket(),
        "motorcycle": data.stereo_motorcycle()[0],
    }
    return [Photo(name, square(Image.fromarray(array))) for name, array in arrays.items()]


def from_folder(folder: Path) -> list[Photo]:
    """The first `MOST` JPEG and PNG files of a folder by name."""
    if not folder.is_dir():
        raise ValueError(f"--images: expected a folder, got {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"--images: expected {', '.join(SUFFIXES)} files in {folder}, found none")
    if len(found) > MOST:
        print(f"using the first {MOST} of the {len(found)} photos in {folder}")
    return [Photo(path.name, _read(path)) for path in found[:MOST]]


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return square(ImageOps.exif_transpose(image))
    except OSError as error:
        raise ValueError(f"--images: cannot read {path}: {error}") from error


def square(image: Image.Image) -> NDArray[np.uint8]:
    """The middle of the photo, at the common size."""
    fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(fitted)
