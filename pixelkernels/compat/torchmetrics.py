"""torchmetrics' Hausdorff distance, and the distance transform of masks that it calls."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.distance import distance_transform as exact

from ._surfaces import surfaces

PACKAGE = "torchmetrics"

METRICS = ("euclidean", "chessboard", "taxicab")
ENGINES = ("pytorch", "scipy")
FORMATS = ("one-hot", "index", "mixed")


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


def hausdorff_distance(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    include_background: bool = False,
    distance_metric: str = "euclidean",
    spacing: Tensor | list[float] | None = None,
    directed: bool = False,
    input_format: str = "one-hot",
) -> Tensor:
    """The Hausdorff distance of every image and class: max_p min_q |p - q| over the edge pixels p
    of one mask and q of the other, the larger one of both directions.

    The original takes memory quadratic in the pixels, and misplaces the distances in an image that
    is not square. It rejects volumes and, contrary to its documentation, a tensor as `spacing`.

    Args:
        preds, target: masks [B, C, H, W] of 0 and 1, bool or integer; or floating-point scores, of
            which the largest is the class; or labels [B, H, W]. Or the same of volumes, with the
            Euclidean distance.
        num_classes: the number of classes of labels and scores.
        include_background: also class 0. The only class always counts.
        distance_metric: "euclidean", "chessboard" or "taxicab", as in `distance_transform`.
        spacing: of the pixels along each axis, 1 by default; the sign has no effect.
        directed: only from `preds` to `target`.
        input_format: "one-hot" for masks or scores, "index" for labels, "mixed" for one of each.

    Returns: float32 [B, C], without the background [B, C - 1], on the device of `preds`; +inf if
    one of the masks is empty. NaN if both are, where the original raises RuntimeError.
    Raises: RuntimeError for shapes that do not fit each other, ValueError otherwise.
    Memory: 4 bytes per pixel of an image and class, 9 for labels and scores. Besides, of some masks
    at a time, which have 2 million pixels on the CPU and 64 million on a GPU, or of one pair: 10
    bytes per pixel, or if the spacings of the axes differ, 23, and 50 per edge pixel.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: expected a positive number, got {num_classes}")
    for name, flag in (("include_background", include_background), ("directed", directed)):
        if not isinstance(flag, bool):
            raise ValueError(f"{name}: expected a bool, got {flag!r}")
    if distance_metric not in METRICS:
        raise ValueError(
            f"distance_metric: expected one of {', '.join(METRICS)}, got {distance_metric!r}"
        )
    if not isinstance(spacing, list | Tensor | None):
        raise ValueError(f"spacing: expected a list or a tensor, got {type(spacing).__name__}")
    if input_format not in FORMATS:
        raise ValueError(
            f"input_format: expected one of {', '.join(FORMATS)}, got {input_format!r}"
        )
    difference = preds.dim() - target.dim()
    labels = {
        "one-hot": (False, False),
        "index": (True, True),
        "mixed": (difference == -1, difference == 1),
    }[input_format]
    first, second = (
        _class_masks(name, given, are_labels, num_classes)
        for name, given, are_labels in zip(
            ("preds", "target"), (preds, target), labels, strict=True
        )
    )
    # with "mixed", one of them must have labels
    if first.shape != second.shape or (input_format == "mixed" and not any(labels)):
        raise RuntimeError(
            f"preds, target: expected shapes of the same masks, got {list(preds.shape)} and"
            f" {list(target.shape)} with input_format={input_format!r}"
        )
    axes = first.dim() - 2
    if axes not in (2, 3):
        raise ValueError(f"preds, target: expected images or volumes, got {list(preds.shape)}")
    steps = [1.0] * axes if spacing is None else [abs(float(step)) for step in spacing]
    if len(steps) != axes:
        raise ValueError(f"spacing: expected {axes} numbers, got {len(steps)}")

    def transform(targets: Tensor) -> Tensor:
        return torch.stack([distance_transform(~x, steps, distance_metric) for x in targets])

    masks = torch.stack([first, second])
    if not include_background and masks.shape[2] > 1:
        masks = masks[:, :, 1:]
    found = torch.full(masks.shape[1:3], torch.nan, device=masks.device)
    pairs = surfaces(
        masks,
        [tuple(steps)] * len(first),
        symmetric=not directed,
        transform=None if distance_metric == "euclidean" else transform,
    )
    for i, (counts, distances) in enumerate(pairs):
        if any(counts):
            found.view(-1)[i] = torch.cat(distances).max()
    return found


def _class_masks(name: str, given: Tensor, are_labels: bool, num_classes: int) -> Tensor:
    """Masks of 0 and 1 [B, C, *space], the largest scores, or labels [B, *space], as bool masks."""
    if not are_labels and not given.is_floating_point():
        if given.dtype != torch.bool and not ((given == 0) | (given == 1)).all():
            raise ValueError(f"{name}: expected masks of 0 and 1")
        return given.bool()
    classes = given if are_labels else given.argmax(1)
    return F.one_hot(classes, num_classes).movedim(-1, 1).bool()


REPLACES = {
    "functional.segmentation.utils:distance_transform": distance_transform,
    # in `torchmetrics.segmentation`, too: it imports it by name
    "functional.segmentation.hausdorff_distance:hausdorff_distance": hausdorff_distance,
}
