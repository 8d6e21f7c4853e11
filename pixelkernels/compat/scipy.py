"""scipy.ndimage's exact Euclidean distance transform."""

from __future__ import annotations

from collections.abc import Sequence
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
    sampling: float | Sequence[float] | None = None,
    return_distances: bool = True,
    return_indices: bool = False,
    distances: np.ndarray | None = None,
    indices: np.ndarray | None = None,
) -> Any:
    """The distance of every pixel to the nearest zero, float64, and the indices of that zero.

    Distances have the bits of SciPy's for a spacing of 1, and agree with it to float64's rounding
    for others. Where several zeros are equally near, SciPy may return another one of them.

    SciPy's own function serves the rest: arrays without a zero, of more than 3 axes, or with sides
    that `pixelkernels.distance_transform` does not square (32767, of volumes 26755), and a
    `sampling` that it rejects with indices. Without the compiled library it serves everything.
    """
    given = (sampling, return_distances, return_indices, distances, indices)
    image = np.asarray(input) != 0
    found = None
    if image.ndim in (1, 2, 3) and not image.all() and _fits(image.shape, *given[1:]):
        found = _exact(~image, 1.0 if sampling is None else sampling, return_indices)
    if found is None:
        return original(input, *given)
    outputs = ((return_distances, distances), (return_indices, indices))
    results = []
    for (wanted, out), value in zip(outputs, found, strict=True):
        if wanted and isinstance(out, np.ndarray):
            out[...] = value
        elif wanted:
            results.append(value)
    return tuple(results) if len(results) > 1 else next(iter(results), None)


def _fits(
    shape: tuple[int, ...], return_distances: Any, return_indices: Any, distances: Any, indices: Any
) -> bool:
    """Whether SciPy takes the outputs: it knows best how to refuse them."""
    outputs = (
        (return_distances, distances, shape, np.float64),
        (return_indices, indices, (len(shape), *shape), np.int32),
    )
    arrays_fit = all(
        wanted and out.shape == size and out.dtype == dtype
        for wanted, out, size, dtype in outputs
        if isinstance(out, np.ndarray)
    )
    return arrays_fit and bool(return_distances or return_indices)


def _exact(zeros: np.ndarray, sampling: Any, with_indices: bool) -> tuple[Any, Any] | None:
    """None for sides and spacings that `distance_transform` rejects, and without the library."""
    axes = zeros.ndim
    try:
        spacing = [float(x) for x in (sampling if np.ndim(sampling) else [sampling] * axes)]
        if len(spacing) != axes:
            return None
        # one row, if there is one axis
        image, steps = (zeros, spacing) if axes > 1 else (zeros[None], spacing * 2)
        options: dict[str, Any] = {"spatial_dims": image.ndim}
        if all(x == 1 for x in spacing):
            options["squared"] = True
            if not with_indices:
                squares = arrays.distance_transform(image, **options)
                return _root(squares.reshape(zeros.shape)), None
        else:
            options["sampling"] = steps
        found = arrays.distance_transform(image, **options, return_indices=True)
    except (ValueError, BackendUnavailable):
        return None
    nearest = found.indices[-axes:].reshape(axes, *zeros.shape)
    if "squared" in options:
        return _root(found.distances.reshape(zeros.shape)), nearest
    return _root(_squares(nearest, spacing)), nearest


def _root(squares: np.ndarray) -> np.ndarray:
    roots: np.ndarray = np.sqrt(squares.astype(np.float64))
    return roots


def _squares(nearest: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The squared distances to the nearest zeros, as SciPy rounds them."""
    total = np.zeros(nearest.shape[1:])
    for axis, (index, step) in enumerate(zip(nearest, spacing, strict=True)):
        own = np.arange(total.shape[axis], dtype=np.int32)
        length = (index - own.reshape([-1 if i == axis else 1 for i in range(total.ndim)])) * step
        length *= length
        total += length
    return total


REPLACES = {"ndimage:distance_transform_edt": distance_transform_edt}
