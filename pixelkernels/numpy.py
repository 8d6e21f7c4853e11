"""Distance transforms and clicks on NumPy arrays, for data-loader workers.

They have the names, shapes, dtypes, options and errors of the functions in `pixelkernels`. They run
the CPU kernels on the calling thread alone and release the GIL, so one worker per core, thread or
process, uses all cores; forked processes are safe. Without the compiled library they raise
`BackendUnavailable`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ._core import extension
from ._core.dispatch import BackendUnavailable
from .distance import clicks, maps, ops, transform

__all__ = ["NextClick", "click_maps", "distance_transform", "next_click"]


class NextClick(NamedTuple):
    """`points` [B, 2] int64, `labels` [B] int64 and `valid` [B] bool."""

    points: NDArray[np.int64]
    labels: NDArray[np.int64]
    valid: NDArray[np.bool_]


def click_maps(
    points: NDArray[Any],
    labels: NDArray[Any],
    size: tuple[int, int],
    *,
    encoding: str = "euclidean",
    radius: float | None = None,
    truncate: float | None = 255.0,
) -> NDArray[np.float32]:
    """`pixelkernels.click_maps` on arrays: [B, N, 2] and [B, N] -> float32 [B, 2, H, W]."""
    code, clipped_radius, limit = maps.check_arguments(
        _tensor("points", points), _tensor("labels", labels), size, encoding, radius, truncate
    )
    signs = labels.astype(np.int64)
    if (wrong := (signs < -1) | (signs > 1)).any():
        raise ValueError(f"labels: {ops.CLICK_LABELS}, got {signs[wrong][0]}")
    with np.errstate(over="ignore"):  # a coordinate too large for float32 becomes infinite
        positions = np.where(signs[..., None] < 0, 0, points).astype(np.float32)
    if np.isnan(positions).any():
        raise ValueError(f"points: {ops.CLICK_POINTS}, got nan")
    return _kernels().click_maps(positions, signs, *size, code, clipped_radius, limit)


def distance_transform(
    mask: NDArray[Any], *, squared: bool = False, sampling: tuple[float, float] | None = None
) -> NDArray[np.float32] | NDArray[np.int32]:
    """`pixelkernels.distance_transform` on an array [..., H, W]."""
    spacing = transform.check_arguments(_tensor("mask", mask), squared, sampling)
    if mask.size == 0:
        dtype: type[Any] = np.int32 if squared else np.float32
        return np.empty(mask.shape, dtype)
    images = np.ascontiguousarray(_mask(mask).reshape(-1, *mask.shape[-2:]))
    return _kernels().distance_transform(images, squared, *spacing).reshape(mask.shape)


def next_click(
    prediction: NDArray[Any],
    target: NDArray[Any],
    *,
    not_clicked: NDArray[Any] | None = None,
    ignore_label: int = -1,
) -> NextClick:
    """`pixelkernels.next_click` on arrays [B, H, W]."""
    allowed = None if not_clicked is None else _tensor("not_clicked", not_clicked)
    clicks.check_arguments(
        _tensor("prediction", prediction), _tensor("target", target), allowed, ignore_label
    )
    depth, index = _kernels().deepest_errors(
        np.ascontiguousarray(_mask(prediction)),
        np.ascontiguousarray(_labels(target)),
        None if not_clicked is None else np.ascontiguousarray(_mask(not_clicked)),
        ignore_label,
    )
    positive, valid = depth[:, 0] > depth[:, 1], depth.max(1) > 0
    flat = np.where(positive, index[:, 0], index[:, 1]) * valid
    points = np.stack(np.divmod(flat, max(target.shape[2], 1)), 1)
    return NextClick(points, positive.astype(np.int64), valid)


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


def _mask(values: NDArray[Any]) -> NDArray[np.bool_]:
    return values if values.dtype == np.bool_ else values != 0


def _labels(values: NDArray[Any]) -> NDArray[Any]:
    """In a dtype that the kernels are compiled for."""
    if values.dtype == np.bool_:
        return values.view(np.uint8)
    widened = values.dtype.kind == "u" and values.dtype.itemsize > 1
    return values.astype(np.int64 if widened else values.dtype.newbyteorder("="), copy=False)
