"""What the drop-ins for MONAI's surface metrics have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._surfaces import on_cpu, surfaces


def of_surfaces(
    statistic: Callable[[tuple[Tensor, ...], int], Tensor],
    masks: Tensor,
    spacing: Any,
    distance_metric: str,
    *,
    symmetric: bool,
) -> Tensor:
    """A statistic of the distances and the channel for every image and class of masks
    [2, B, C, *space], NaN if both masks are empty; float32 [B, C]."""
    _, images, classes, *space = masks.shape
    steps = np.array(1.0 if spacing is None else spacing, np.float64)
    axes = len(space)
    if steps.shape not in ((), (axes,), (images, axes)):
        raise ValueError(
            f"spacing: expected a number, {axes}, or {axes} for each of {images} images, "
            f"got {spacing!r}"
        )
    spacings = [tuple(x) for x in np.broadcast_to(steps, (images, axes)).tolist()]
    values = torch.full((images, classes), torch.nan, dtype=torch.float32, device=masks.device)
    pairs = surfaces(masks, spacings, symmetric=symmetric, transform=_transform(distance_metric))
    for i, (counts, distances) in enumerate(pairs):
        for name, count in zip(("ground truth", "prediction"), counts[::-1], strict=True):
            if not count:
                warnings.warn(
                    f"the {name} of class {i % classes} is all 0,"
                    " this may result in nan/inf distance.",
                    stacklevel=3,
                )
        if any(counts):
            values.view(-1)[i] = statistic(distances, i % classes)
    return values


def class_masks(y_pred: Any, y: Any, include_background: bool) -> Tensor:
    """Both masks, bool [2, B, C, *space], without the background unless it is included."""
    both = []
    for given in (y_pred, y):
        if isinstance(given, Tensor):  # also MONAI's MetaTensor
            tensor = given.detach().as_subclass(Tensor)
        else:
            tensor = torch.from_numpy(np.asarray(given) == 1)
        only = tensor.dim() < 2 or tensor.shape[1] < 2
        both.append(tensor if include_background or only else tensor[:, 1:])
    first, second = both
    if first.shape != second.shape:
        raise ValueError(
            f"y_pred, y: expected the same shape, got {list(first.shape)} and {list(second.shape)}"
        )
    if first.dim() not in (4, 5):
        raise ValueError(
            f"y_pred, y: expected [B, C, H, W] or [B, C, H, W, D], got {list(first.shape)}"
        )
    masks = torch.empty((2, *first.shape), dtype=torch.bool, device=first.device)
    for mask, given in zip(masks, both, strict=True):
        torch.eq(given, 1, out=mask)
    return masks


def _transform(distance_metric: str) -> Callable[[Tensor], Tensor] | None:
    if distance_metric == "euclidean":
        return None
    if distance_metric not in ("chessboard", "taxicab"):
        raise ValueError(
            "distance_metric: expected one of euclidean, chessboard, taxicab, "
            f"got {distance_metric!r}"
        )
    from scipy import ndimage

    return lambda targets: on_cpu(
        lambda x: ndimage.distance_transform_cdt(x, distance_metric), targets
    )


def original_dice() -> Callable[..., Tensor]:
    """MONAI's own function, from its module executed anew: `patch` may have replaced it."""
    spec = util.find_spec("monai.metrics.surface_dice")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    original: Callable[..., Tensor] = module.compute_surface_dice
    return original
