"""Distance transforms and clicks on NumPy arrays, for data-loader workers.

They have the names, shapes, dtypes, options and errors of the functions in `pixelkernels`, and take
one image without the dimension of the batch as well. They run the CPU kernels on the calling thread
alone and release the GIL, so one worker per core, thread or process, uses all cores; forked
processes are safe. Without the compiled library they raise `BackendUnavailable`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray

from ._core import extension
from ._core import validation as check
from ._core.dispatch import BackendUnavailable
from ._core.operators import refuse_what_is_no_mask
from .distance import clicks, maps, ops, transform

__all__ = ["DistanceTransform", "NextClick", "click_maps", "distance_transform", "next_click"]


class DistanceTransform(NamedTuple):
    """`distances` [..., H, W] and `indices` [..., 2, H, W], or the same of volumes."""

    distances: NDArray[Any]
    indices: NDArray[np.int32]


class NextClick(NamedTuple):
    """`points` [B, 2] int64, `labels` [B] int64 and `valid` [B] bool; without B of one image."""

    points: NDArray[np.int64]
    labels: NDArray[np.int64]
    valid: NDArray[np.bool_]


def click_maps(
    points: NDArray[Any],
    labels: NDArray[Any],
    size: Sequence[int],
    *,
    spatial_dims: int = 2,
    encoding: ops.Encoding = "euclidean",
    radius: float | None = None,
    truncate: float | None = 255.0,
) -> NDArray[np.float32]:
    """`pixelkernels.click_maps` on arrays: [B, N, 2] and [B, N] -> float32 [B, 2, H, W].

    One image: [N, 2] and [N] -> [2, H, W]. With spatial_dims=3: [B, N, 3] -> [B, 2, D, H, W].

    Example:

        >>> points, labels = np.array([[3, 4], [0, 0]]), np.array([1, -1])
        >>> pixelkernels.numpy.click_maps(points, labels, (6, 8))[:, 0, 0]
        array([  5., 255.], dtype=float32)
    """
    single = _is_single(points, 2)
    if single:
        points, labels = points[None], _batch_of_one(labels)
    space = maps.check_clicks(
        _tensor("points", points), _tensor("labels", labels), size, spatial_dims
    )
    options = maps.check_encoding(encoding, radius, truncate)
    signs = labels.astype(np.int64)
    if (wrong := (signs < -1) | (signs > 1)).any():
        raise ValueError(f"labels: {ops.CLICK_LABELS}, got {signs[wrong][0]}")
    with np.errstate(over="ignore"):  # a coordinate too large for float32 becomes infinite
        positions = np.where(signs[..., None] < 0, 0, points).astype(np.float32)
    if np.isnan(positions).any():
        raise ValueError(f"points: {ops.CLICK_POINTS}, got nan")
    found: NDArray[np.float32] = _kernels().click_maps(positions, signs, *space, *options)
    return found[0] if single else found


@overload
def distance_transform(
    mask: NDArray[Any],
    *,
    spatial_dims: int = 2,
    squared: Literal[False] = False,
    sampling: Sequence[float] | None = None,
    multilabel: bool = False,
    black_border: bool = False,
    return_indices: Literal[False] = False,
) -> NDArray[np.float32]: ...
@overload
def distance_transform(
    mask: NDArray[Any],
    *,
    spatial_dims: int = 2,
    squared: Literal[True],
    multilabel: bool = False,
    black_border: bool = False,
    return_indices: Literal[False] = False,
) -> NDArray[np.int32]: ...
@overload
def distance_transform(
    mask: NDArray[Any],
    *,
    spatial_dims: int = 2,
    squared: bool = False,
    sampling: Sequence[float] | None = None,
    return_indices: Literal[True],
) -> DistanceTransform: ...
def distance_transform(
    mask: NDArray[Any],
    *,
    spatial_dims: int = 2,
    squared: bool = False,
    sampling: Sequence[float] | None = None,
    multilabel: bool = False,
    black_border: bool = False,
    return_indices: bool = False,
) -> NDArray[np.float32] | NDArray[np.int32] | DistanceTransform:
    """`pixelkernels.distance_transform` on an array [..., H, W], or [..., D, H, W].

    Example:

        >>> mask = np.array([[1, 0, 0], [0, 0, 0]])
        >>> pixelkernels.numpy.distance_transform(mask, squared=True)
        array([[0, 1, 4],
               [1, 2, 5]], dtype=int32)
    """
    spacing = transform.check_arguments(
        *(_tensor("mask", mask), spatial_dims, squared, sampling),
        *(multilabel, black_border, return_indices),
    )
    batch, space = mask.shape[:-spatial_dims], mask.shape[-spatial_dims:]
    shape, kernels = (math.prod(batch), *space), _kernels()
    if multilabel:
        labels = np.ascontiguousarray(_labels(mask).reshape(shape))
        found = kernels.label_distance(labels, squared, *spacing, black_border, False)
        return found.reshape(mask.shape)
    images = np.ascontiguousarray(_mask("mask", mask).reshape(shape))
    if not return_indices:
        found = kernels.distance_transform(images, squared, *spacing, black_border)
        return found.reshape(mask.shape)
    distances, indices = kernels.nearest_true(images, squared, *spacing)
    return DistanceTransform(
        distances.reshape(mask.shape), indices.reshape(*batch, spatial_dims, *space)
    )


@check.renamed(ignore_label="ignore_index")
def next_click(
    prediction: NDArray[Any],
    target: NDArray[Any],
    *,
    spatial_dims: int = 2,
    not_clicked: NDArray[Any] | None = None,
    ignore_index: int = -1,
) -> NextClick:
    """`pixelkernels.next_click` on arrays [B, H, W] or [B, D, H, W], or one of them without B.

    Example:

        >>> target = np.zeros((9, 9), bool)
        >>> target[2:7, 3:8] = True
        >>> pixelkernels.numpy.next_click(np.zeros_like(target), target).points
        array([4, 5])
    """
    check.option("spatial_dims", spatial_dims, check.BATCHES)
    single = _is_single(prediction, spatial_dims)
    if single:
        prediction, target = prediction[None], _batch_of_one(target)
        not_clicked = _batch_of_one(not_clicked)
    ignore_index = clicks.check_arguments(
        _tensor("prediction", prediction),
        _tensor("target", target),
        spatial_dims,
        None if not_clicked is None else _tensor("not_clicked", not_clicked),
        ignore_index,
    )
    _check_mask("target", target, ignore_index)
    find = _kernels().deepest_errors if spatial_dims == 2 else _deepest_errors
    depth, index = find(
        np.ascontiguousarray(_mask("prediction", prediction)),
        np.ascontiguousarray(_labels(target)),
        None if not_clicked is None else np.ascontiguousarray(_mask("not_clicked", not_clicked)),
        ignore_index,
    )
    positive, valid = depth[:, 0] > depth[:, 1], depth.max(1) > 0
    flat = np.where(positive, index[:, 0], index[:, 1]) * valid
    points = np.stack(np.unravel_index(flat, [max(side, 1) for side in target.shape[1:]]), 1)
    click = NextClick(points, positive.astype(np.int64), valid)
    return NextClick(*(x[0] for x in click)) if single else click


def _deepest_errors(
    prediction: NDArray[np.bool_],
    target: NDArray[Any],
    allowed: NDArray[np.bool_] | None,
    ignore_index: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The squared depth and the index of the deepest error of each kind in volumes, [B, 2]."""
    if target.size == 0:
        return np.zeros((len(target), 2), np.int32), np.zeros((len(target), 2), np.int64)
    is_object, counts = target != 0, target != ignore_index
    depths, indices = [], []
    for errors in (is_object & ~prediction & counts, ~is_object & prediction & counts):
        # there are no errors outside of a volume
        depth = _kernels().distance_transform(~errors, True, 1.0, 1.0, 1.0, True)
        depth = (depth if allowed is None else depth * allowed).reshape(len(target), -1)
        depths.append(depth.max(1))
        indices.append(depth.argmax(1))
    return np.stack(depths, 1), np.stack(indices, 1)


def _is_single(array: Any, axes: Any) -> bool:
    """Whether points or a mask come without the dimension of the batch."""
    return isinstance(array, np.ndarray) and array.ndim == axes


def _batch_of_one(array: Any) -> Any:
    return array[None] if isinstance(array, np.ndarray) else array


def _kernels() -> Any:
    if extension._C is None:
        raise BackendUnavailable(f"pixelkernels.numpy: {extension.REASONS['cpu']}")
    return extension._C


def _tensor(name: str, array: Any) -> torch.Tensor:
    """A tensor on the meta device with the metadata of the array, for the shared checks."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(array).__name__}")
    try:
        # other byte orders are converted by the first operation on the array
        dtype = torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype
    except TypeError:
        raise TypeError(f"{name}: expected a numeric dtype, got {array.dtype}") from None
    return torch.empty(array.shape, dtype=dtype, device="meta")


def _mask(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype == np.bool_:
        return values
    _check_mask(name, values, None)
    return values != 0


def _check_mask(name: str, values: NDArray[Any], ignore_index: int | None) -> None:
    if values.dtype != np.bool_ and values.size:
        least, most = int(values.min()), int(values.max())
        if least < 0 or (most >= 255 and ignore_index not in (None, 255)):
            tensor = torch.from_numpy(values.astype(np.int64))
            refuse_what_is_no_mask(name, tensor, least, most, ignore_index)


def _labels(values: NDArray[Any]) -> NDArray[Any]:
    """In a dtype that the kernels are compiled for."""
    if values.dtype == np.bool_:
        return values.view(np.uint8)
    widened = values.dtype.kind == "u" and values.dtype.itemsize > 1
    return values.astype(np.int64 if widened else values.dtype.newbyteorder("="), copy=False)
