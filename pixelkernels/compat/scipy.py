"""scipy.ndimage's exact Euclidean distance transform, for images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# bound here, so that it stays SciPy's own after `patch`
from scipy.ndimage import distance_transform_edt as original

from pixelkernels import numpy as arrays
from pixelkernels._core.dispatch import BackendUnavailable

PACKAGE = "scipy"


def distance_transform_edt(
    input: ArrayLike,
    sampling: float | tuple[float, float] | None = None,
    return_distances: bool = True,
    return_indices: bool = False,
    distances: np.ndarray | None = None,
    indices: np.ndarray | None = None,
) -> Any:
    """The distance of every pixel to the nearest zero, float64. It has the bits of SciPy's result
    for a spacing of 1, and agrees with it to float32's rounding for others.

    SciPy's own function serves the rest: volumes, indices, images without a zero, sides above 32767
    for a spacing of 1, and a `sampling` that `pixelkernels.distance_transform` rejects. Without the
    compiled library it serves everything.
    """
    image = np.asarray(input) != 0
    served = return_distances and not return_indices and image.ndim == 2 and not image.all()
    result = _exact(~image, 1.0 if sampling is None else sampling) if served else None
    if result is None:
        return original(input, sampling, return_distances, return_indices, distances, indices)
    if distances is None:
        return result
    if distances.shape != image.shape or distances.dtype != np.float64:
        raise RuntimeError("distances: expected float64 of the input's shape")
    distances[...] = result
    return None


def _exact(zeros: np.ndarray, sampling: Any) -> np.ndarray | None:
    """None for sides and spacings that `distance_transform` rejects, and without the library."""
    try:
        rows, columns = map(float, sampling if np.ndim(sampling) else (sampling, sampling))
        if not rows == columns == 1:
            return arrays.distance_transform(zeros, sampling=(rows, columns)).astype(np.float64)
        squares = arrays.distance_transform(zeros, squared=True)
    except (ValueError, BackendUnavailable):
        return None
    roots: np.ndarray = np.sqrt(squares.astype(np.float64))
    return roots


REPLACES = {"ndimage:distance_transform_edt": distance_transform_edt}
