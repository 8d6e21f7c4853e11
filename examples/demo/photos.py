"""Photographs: those in the wheel of scikit-image or a folder's, and a stereo pair."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage import data

SIDE = 192  # every photo becomes a square of this many pixels, so that they make one batch
MOST = 8  # photos of a folder that are used: more need more memory and minutes
SUFFIXES = (".jpg", ".jpeg", ".png")


class Photo(NamedTuple):
    """The name of the files made from it, and `pixels` [SIDE, SIDE, 3] uint8."""

    name: str
    pixels: NDArray[np.uint8]


class StereoPair(NamedTuple):
    """Two photos of one scene. `columns` [SIDE, SIDE] has for each pixel of the right photo the
    column of the same spot in the left one, in the same row; -1 where it is unknown or out of view.
    """

    left: Photo
    right: Photo
    columns: NDArray[np.int64]

    def carry_over(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of the left photo -> the true labels of the right photo, -1 where unknown."""
        carried = np.take_along_axis(labels, self.columns.clip(min=0), axis=1)
        return np.where(self.columns >= 0, carried, -1)


def packaged() -> list[Photo]:
    """Photos whose files are part of scikit-image, so that no network is needed."""
    arrays = {
        "astronaut": data.astronaut(),
        "coffee": data.coffee(),
        "chelsea": data.chelsea(),
        "rocket": data.rocket(),
        "motorcycle": data.stereo_motorcycle()[0],
    }
    return [Photo(name, _square(Image.fromarray(array))) for name, array in arrays.items()]


def from_folder(folder: Path) -> list[Photo]:
    """The first `MOST` JPEG and PNG files of a folder by name."""
    if not folder.is_dir():
        raise ValueError(f"--images: expected a folder, got {folder}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"--images: expected {', '.join(SUFFIXES)} files in {folder}, found none")
    if len(files) > MOST:
        print(f"using the first {MOST} of the {len(files)} photos in {folder}")
    return [Photo(path.name, _read(path)) for path in files[:MOST]]


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return _square(ImageOps.exif_transpose(image))
    except OSError as error:
        raise ValueError(f"--images: cannot read {path}: {error}") from error


def _square(image: Image.Image) -> NDArray[np.uint8]:
    """The centre of the photo, at the common size."""
    fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def stereo_pair() -> StereoPair:
    """The motorcycle of scikit-image, with the disparities that Middlebury measured."""
    left, right, disparity = data.stereo_motorcycle()
    return StereoPair(
        Photo("left", _square(Image.fromarray(left))),
        Photo("right", _square(Image.fromarray(right))),
        _columns(_disparity_of_right(disparity)),
    )


def _disparity_of_right(disparity: NDArray[np.float32]) -> NDArray[np.float64]:
    """[H, W] by pixel of the left photo -> by pixel of the right one, NaN where no spot projects.

    A spot at column x of the left photo is at x - disparity in the right one. scikit-image
    documents the opposite sign; with this one the colours of the two photos agree.
    """
    rows, columns = np.nonzero(np.isfinite(disparity))
    shift = disparity[rows, columns].astype(np.float64)
    nearest = np.full(disparity.shape, -np.inf)
    # a spot projects between two pixels and covers both: one alone would leave gaps in surfaces
    for target in (np.floor(columns - shift), np.ceil(columns - shift)):
        inside = target >= 0
        # the nearest spot of a pixel hides the others
        np.maximum.at(nearest, (rows[inside], target[inside].astype(int)), shift[inside])
    return np.where(np.isfinite(nearest), nearest, np.nan)


def _columns(disparity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Disparities, cropped and scaled as the photos are -> columns of the left photo."""
    height, width = disparity.shape
    scale = min(height, width) / SIDE
    centres = (np.arange(SIDE) + 0.5) * scale
    rows, columns = (
        ((length - SIDE * scale) / 2 + centres).astype(int) for length in (height, width)
    )
    source = np.arange(SIDE) + 0.5 + disparity[np.ix_(rows, columns)] / scale
    return np.where(source < SIDE, source, -1).astype(np.int64)  # the comparison fails for NaN too
