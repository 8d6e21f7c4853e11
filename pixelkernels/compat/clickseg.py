"""ClickSEG's clicks: those of RITM, and the training clicks of FocalClick."""

from __future__ import annotations

import torch
from torch import Tensor

from .ritm import DistMaps, draw_click, get_next_click, get_next_points, with_click

PACKAGE = "isegm"


def get_next_points_removeall(
    pred: Tensor,
    gt: Tensor,
    points: Tensor,
    points_focus: Tensor,
    rois: Tensor,
    click_indx: int,
    pred_thresh: float = 0.49,
    remove_prob: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`get_next_points`, and the points in the coordinates of each image's resized crop.

    Args:
        pred, gt, points, click_indx, pred_thresh: as in `pixelkernels.compat.ritm.get_next_points`.
        points_focus: [B, 2n, 3], is overwritten.
        rois: the crops [B, 4], (x1, y1, x2, y2); each is resized to the size of `pred`.
        remove_prob: probability that all earlier points of an image with an error become padding.

    Returns: (a copy of `points` with the new clicks, `points_focus`). Padding (-1, -1) is mapped
    like a point, as by the original.
    """
    click = draw_click(pred, gt, pred_thresh)
    removed = click.valid & (torch.rand(len(pred), device=pred.device) < remove_prob)
    points = with_click(torch.where(removed[:, None, None], -1, points), click, click_indx)
    # (row, column) as in points
    first, last = rois.double().unflatten(1, (1, 2, 2)).flip(3).unbind(2)
    scale = torch.tensor(gt.shape[2:], device=rois.device) / (last - first)
    points_focus[..., :2] = (points[..., :2] - first) * scale
    points_focus[..., 2] = points[..., 2]
    return points, points_focus


REPLACES = {
    "model.ops:DistMaps": DistMaps,
    "inference.clicker:Clicker._get_next_click": get_next_click,
    "engine.baseline_trainer:get_next_points": get_next_points,
    "engine.focalclick_trainer:get_next_points_removeall": get_next_points_removeall,
}
