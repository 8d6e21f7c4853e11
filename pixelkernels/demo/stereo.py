"""A photo and the same scene from further right, with what each pixel of the second one shows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from . import photos
from .photos import Photo


class Pair(NamedTuple):
    """Two photos and, per pixel of the right one, the column where the left one shows the same
    spot: `columns` [SIDE, SIDE], in the same row, and -1 where nobody knows or it is out of view.
    """

    left: Photo
    right: Photo
    columns: NDArray[np.int64]

    def carry_over(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of the left photo -> the true ones of the right photo, -1 where unknown."""
        found = np.take_along_axis(labels, self.columns.clip(min=0), axis=1)
        return np.where(self.columns >= 0, found, -1)


def packaged() -> Pair:
    """The motorcycle that scikit-image ships, with the distances that Middlebury measured."""
    left, right, disparity = data.stereo_motorcycle()
    return Pair(
        Photo("left", photos.square(Image.fromarray(left))),
        Photo("right", photos.square(Image.fromarray(right))),
        _columns(_seen_from_right(disparity)),
    )


def _seen_from_right(disparity: NDArray[np.float32]) -> NDArray[np.float64]:
    """[H, W] by pixel of the left photo -> by pixel of the right one, NaN where nothing lands.

    A spot at column x of the left photo is at x - disparity in the right one. scikit-image
    documents it the other way round; the colours of the two photos agree this way.
    """
    rows, columns = np.nonzero(np.isfinite(disparity))
    shift = disparity[rows, columns].astype(np.float64)
    nearest = np.full(disparity.shape, -np.inf)
    # it lands between two pixels and covers both: covering one would tear holes into surfaces
    for landing in (np.floor(columns - shift), np.ceil(columns - shift)):
        inside = landing >= 0
        # of the spots that meet at one pixel, the nearest one hides the others
        np.maximum.at(nearest, (rows[inside], landing[inside].astype(int)), shift[inside])
    return np.where(np.isfinite(nearest), nearest, np.nan)


def _columns(disparity: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same cut and size as the photos', in columns of the left photo."""
    height, width = disparity.shape
    side = photos.SIDE
    scale = min(height, width) / side
    centres = (np.arange(side) + 0.5) * scale
    rows, columns = (
        ((length - side * scale) / 2 + centres).astype(int) for length in (height, width)
    )
    found = np.arange(side) + 0.5 + disparity[np.ix_(rows, columns)] / scale
    return np.where(found < side, found, -1).astype(np.int64)  # NaN is not smaller either
