"""scipy.ndimage's exact Euclidean distance transform, for images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# bound here, so that it stays SciPy's own after `patch`
from scipy.ndimage import distance_transform_edt as original

from pixelkernels import numpy as arrays

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
    without `sampling`, and agrees with it to float32's rounding with `sampling`.

    SciPy's own function serves volumes, sides above 32767, images without a zero, and indices.
    """
    image = np.asarray(input) != 0
    served = image.ndim == 2 and max(image.shape) < 1 << 15 and not image.all()
    if return_indices or not return_distances or not served:
        return original(input, sampling, return_distances, return_indices, distances, indices)
    if sampling is None:
        result = np.sqrt(arrays.distance_transform(~image, squared=True).astype(np.float64))
    else:
        rows, columns = np.broadcast_to(np.asarray(sampling, dtype=float), 2)
        spacing = (float(rows), float(columns))
        result = arrays.distance_transform(~image, sampling=spacing).astype(np.float64)
    if distances is None:
        return result
    if distances.shape != image.shape or distances.dtype != np.float64:
        raise RuntimeError("distances: expected float64 of the input's shape")
    distances[...] = result
    return None


REPLACES = {"ndimage:distance_transform_edt": distance_transform_edt}
