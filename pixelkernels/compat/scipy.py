"""scipy.ndimage's exact Euclidean distance transform, for images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# bound here, so that a patched SciPy still has somebody to ask
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
    """The distance of every pixel to the nearest zero, float64: SciPy's to the last bit without
    `sampling`, and with it to float32's rounding.

    What is no image, has a side above 32767 or no zero, or is asked for indices goes to SciPy
    itself.
    """
    image = np.asarray(input) != 0
    served = image.ndim == 2 and max(image.shape) < 1 << 15 and not image.all()
    if return_indices or not return_distances or not served:
        return original(input, sampling, return_distances, return_indices, distances, indices)
    if sampling is None:
        found = np.sqrt(arrays.distance_transform(~image, squared=True).astype(np.float64))
    else:
        rows, columns = np.broadcast_to(np.asarray(sampling, dtype=float), 2)
        spacing = (float(rows), float(columns))
        found = arrays.distance_transform(~image, sampling=spacing).astype(np.float64)
    if distances is None:
        return found
    if distances.shape != image.shape or distances.dtype != np.float64:
        raise RuntimeError("distances: expected float64 of the input's shape")
    distances[...] = found
    return None


REPLACES = {"ndimage:distance_transform_edt": distance_transform_edt}
