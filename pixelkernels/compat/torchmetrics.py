"""torchmetrics' distance transform of masks, which its Hausdorff distance calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelkernels.distance import distance_transform as exact

PACKAGE = "torchmetrics"

METRICS = ("euclidean", "chessboard", "taxicab")
ENGINES = ("pytorch", "scipy")


def distance_transform(
    x: Tensor,
    sampling: list[float] | None = None,
    metric: str = "euclidean",
    engine: str = "pytorch",
) -> Any:
    """The distance of every nonzero pixel to the nearest zero, in memory linear in the pixels.

    The original's default engine compares all nonzero pixels with all zeros, and misplaces the
    distances in an image that is not square. Its "scipy" engine raises TypeError for the chessboard
    and taxicab distances.

    Args:
        x: [H, W]; nonzero is inside. The original's default engine only takes 1 as inside.
        sampling: the spacing of rows and columns, 1 by default; the sign has no effect.
        metric: "euclidean", "chessboard" (the larger of the distances in rows and columns) or
            "taxicab" (their sum).
        engine: which of the original's results to return, "pytorch" or "scipy".

    Returns: "pytorch": float32 on the device of `x`, +inf if `x` has no zero, where the original
    raises IndexError. "scipy": an array with the result of `scipy.ndimage`, float64, or int32 for
    chessboard and taxicab distances with a spacing of 1.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x: expected a tensor, got {type(x).__name__}")
    if x.dim() != 2:
        raise ValueError(f"x: expected [H, W], got {list(x.shape)}")
    if not isinstance(sampling, list | None):
        raise ValueError(f"sampling: expected a list or None, got {type(sampling).__name__}")
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if sampling is not None and len(sampling) != 2:
        raise ValueError(f"sampling: expected 2 numbers, got {len(sampling)}")
    rows, columns = (1.0, 1.0) if sampling is None else (abs(float(step)) for step in sampling)
    zeros = x == 0
    if metric == "euclidean":
        return _euclidean(zeros, rows, columns, engine)
    if engine == "scipy" and rows == columns == 1:
        from scipy import ndimage

        return ndimage.distance_transform_cdt(~zeros.cpu().numpy(), metric)
    distance = (_chessboard if metric == "chessboard" else _taxicab)(zeros, rows, columns)
    return distance.cpu().numpy() if engine == "scipy" else distance.float()


def _euclidean(zeros: Tensor, rows: float, columns: float, engine: str) -> Any:
    if engine == "pytorch":
        try:
            return exact(zeros, sampling=(rows, columns))
        except ValueError:  # a spacing of 0, for example
            pass
    from .scipy import distance_transform_edt

    distance = distance_transform_edt(~zeros.cpu().numpy(), (rows, columns))
    if engine == "scipy":
        return distance
    return torch.from_numpy(distance).to(zeros.device, torch.float32)


def _taxicab(zeros: Tensor, rows: float, columns: float) -> Tensor:
    return _along(_row_distance(zeros, columns), 0, rows)


def _chessboard(zeros: Tensor, rows: float, columns: float) -> Tensor:
    in_row = _row_distance(zeros, columns)
    distance = in_row.clone()
    for count in range(1, len(zeros)):
        offset = rows * count
        if not (distance > offset).any():
            break
        above, below = in_row[:-count].clamp(min=offset), in_row[count:].clamp(min=offset)
        distance[count:] = torch.minimum(distance[count:], above)
        distance[:-count] = torch.minimum(distance[:-count], below)
    return distance


def _row_distance(zeros: Tensor, step: float) -> Tensor:
    """The distance to the nearest zero of the row, float64; +inf if it has none."""
    return _along(torch.where(zeros, 0.0, torch.inf).double(), 1, step)


def _along(distance: Tensor, axis: int, step: float) -> Tensor:
    """min_s distance(s) + step |p - s| over the pixels s of an axis, by cumulative minima."""
    positions = step * torch.arange(distance.shape[axis], device=distance.device).double()
    positions = positions.unsqueeze(1 - axis)
    before = (distance - positions).cummin(axis).values + positions
    after = (distance + positions).flip(axis).cummin(axis).values.flip(axis) - positions
    return torch.minimum(before, after)


REPLACES = {"functional.segmentation.utils:distance_transform": distance_transform}
