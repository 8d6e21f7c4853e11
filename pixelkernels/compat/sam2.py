"""SAM 2's correction clicks (sam2/modeling/sam2_utils.py), computed on the masks' device."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelkernels._core import validation as check
from pixelkernels.distance import distance_transform, next_click
from pixelkernels.triplet import sample_pixels

PACKAGE = "sam2"


def sample_one_point_from_error_center(
    gt_masks: Tensor, pred_masks: Tensor | None, padding: bool = True
) -> tuple[Tensor, Tensor]:
    """The deepest pixel of each mask's larger error.

    Args:
        gt_masks, pred_masks: bool [B, 1, H, W]; None is an empty prediction.
        padding: whether pixels outside the image bound an error.

    Returns: (points [B, 1, 2], (x, y) float32; labels [B, 1] int32, 1 positive, 0 negative). A
    perfect prediction gives a negative point at (0, 0).
    """
    points, labels = error_centers(gt_masks, pred_masks, padding)
    return points.float(), labels.int()


def error_centers(
    gt_masks: Tensor, pred_masks: Tensor | None, padding: bool
) -> tuple[Tensor, Tensor]:
    """What `sample_one_point_from_error_center` returns, in int64."""
    target, predicted = gt_masks[:, 0], _predicted(gt_masks, pred_masks)[:, 0]
    if padding:
        click = next_click(predicted, target)
        points, labels = click.points, click.labels
    else:
        errors = torch.stack([target & ~predicted, ~target & predicted])
        missed, wrong = distance_transform(~errors, squared=True).flatten(2)
        labels = (missed.amax(1) > wrong.amax(1)).long()
        pixel = torch.where(labels[:, None] == 1, missed, wrong).argmax(1)
        width = target.shape[-1]
        points = torch.stack([pixel // width, pixel % width], 1)
    return points.flip(1)[:, None], labels[:, None]


def sample_random_points_from_errors(
    gt_masks: Tensor, pred_masks: Tensor | None, num_pt: int = 1
) -> tuple[Tensor, Tensor]:
    """Points drawn uniformly and independently from the wrong pixels.

    A perfect prediction gives negative points on the background, or at (0, 0) if there is none.

    Returns: (points [B, num_pt, 2], (x, y) float32; labels [B, num_pt] int32).
    """
    check.count("num_pt", num_pt, minimum=0)
    predicted = _predicted(gt_masks, pred_masks)
    missed, wrong = gt_masks & ~predicted, ~gt_masks & predicted
    perfect = (gt_masks == predicted).flatten(1).all(1)[:, None, None, None]
    candidates = (missed | wrong | (perfect & ~gt_masks))[:, 0]
    pixel = sample_pixels(candidates.repeat_interleave(num_pt, 0), 1).view(len(candidates), num_pt)
    pixel = pixel.clamp(min=0)  # -1 without candidates
    width = gt_masks.shape[-1]
    labels = missed.flatten(1).gather(1, pixel)
    return torch.stack([pixel % width, pixel // width], -1).float(), labels.int()


def _predicted(gt_masks: Tensor, pred_masks: Tensor | None) -> Tensor:
    predicted = torch.zeros_like(gt_masks) if pred_masks is None else pred_masks
    for name, masks in (("gt_masks", gt_masks), ("pred_masks", predicted)):
        if masks.dtype != torch.bool or masks.dim() != 4 or masks.shape[1] != 1:
            raise ValueError(
                f"{name}: expected bool [B, 1, H, W], got {masks.dtype} {list(masks.shape)}"
            )
    check.mask_like("pred_masks", predicted, "gt_masks", gt_masks)
    return predicted


REPLACES = {
    "modeling.sam2_utils:sample_one_point_from_error_center": sample_one_point_from_error_center,
    "modeling.sam2_utils:sample_random_points_from_errors": sample_random_points_from_errors,
}
