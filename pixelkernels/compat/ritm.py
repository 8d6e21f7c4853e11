"""RITM's clicks (isegm of RITM, SimpleClick and f-BRS; gui.ritm of Cutie).

All distances are exact. The original is off by up to a quarter of a pixel with `cpu_mode`, and by
up to two percent in the transform from which training clicks are drawn.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelkernels import numpy as arrays
from pixelkernels.distance import NextClick, click_maps, next_click

PACKAGE = "isegm"
# a block of so many pixels stays in the cache
BLOCK = 1 << 18


class DistMaps(nn.Module):
    """Distance maps of clicks, `DistMaps(...)(image, points)`.

    Args:
        norm_radius, spatial_scale, use_disks: as in the original.
        cpu_mode: ignored: the exact maps are fast on every device.

    Points are [B, 2n, 2] (row, column), or [B, 2n, 3] with an order; the first n are positive. A
    point whose row and column are both negative is padding. The original takes padding for a click
    if a disk's radius is 1000 or more.
    """

    def __init__(
        self,
        norm_radius: float,
        spatial_scale: float = 1.0,
        cpu_mode: bool = False,
        use_disks: bool = False,
    ) -> None:
        super().__init__()
        self.norm_radius = norm_radius
        self.spatial_scale = spatial_scale
        self.cpu_mode = cpu_mode
        self.use_disks = use_disks

    def get_coord_features(self, points: Tensor, batchsize: int, rows: int, cols: int) -> Tensor:
        """float32 [B, 2, rows, cols]: the positive map, the negative map."""
        clicks = points.view(batchsize, -1, points.shape[-1])[..., :2]
        half = clicks.shape[1] // 2
        positive = torch.arange(2 * half, device=points.device) < half
        labels = torch.where(clicks.amax(-1) < 0, -1, positive.long())
        return click_maps(
            clicks * self.spatial_scale if self.spatial_scale != 1 else clicks,
            labels,
            (rows, cols),
            encoding="disk" if self.use_disks else "tanh",
            radius=self.norm_radius * self.spatial_scale,
        )

    def forward(self, x: Tensor, coords: Tensor) -> Tensor:
        return self.get_coord_features(coords, x.shape[0], x.shape[2], x.shape[3])


def get_next_click(clicker: Any, pred_mask: np.ndarray, padding: bool = True) -> Any:
    """`Clicker._get_next_click`: the deepest error, as a Click of the clicker's own module.

    Args:
        clicker: has `gt_mask` and `not_clicked_map`. Where RITM's `not_ignore_mask` is False or
            f-BRS's `gt_mask` is -1, there are no errors.
        pred_mask: [H, W].
        padding: whether pixels outside the image bound an error.
    """
    target, predicted = clicker.gt_mask, np.asarray(pred_mask).astype(bool)
    if target.dtype != bool:  # 1 is the object here, not every value but 0
        target = (target == 1).astype(np.int8) - (target == -1)
    if not np.all(getattr(clicker, "not_ignore_mask", True)):
        target = np.where(clicker.not_ignore_mask, target, -1)
    if padding:
        click = arrays.next_click(
            predicted[None], np.asarray(target)[None],
            not_clicked=np.asarray(clicker.not_clicked_map)[None],
        )  # fmt: skip
        positive, point = bool(click.labels[0]), click.points[0]
    else:
        known, is_object = target != -1, target == 1
        errors = np.stack([is_object & ~predicted & known, ~is_object & predicted & known])
        missed, wrong = arrays.distance_transform(~errors, squared=True) * clicker.not_clicked_map
        positive = bool(missed.max() > wrong.max())
        depth = missed if positive else wrong
        point = np.unravel_index(depth.argmax(), depth.shape)
    Click = sys.modules[type(clicker).__module__].Click
    return Click(is_positive=positive, coords=(int(point[0]), int(point[1])))


def get_next_points(
    pred: Tensor, gt: Tensor, points: Tensor, click_indx: int, pred_thresh: float = 0.49
) -> Tensor:
    """A training click on the largest error of each image: drawn uniformly, from torch's generator,
    among the error's pixels that are deeper than half of its depth.

    Args:
        pred: probabilities [B, 1, H, W].
        gt: [B, 1, H, W], object above 0.5.
        points: [B, 2n, 3].

    Returns: a copy of `points` with the new click at `n - click_indx` (positive) or
    `2n - click_indx` (negative) and its order `click_indx`; unchanged for images without an error.
    """
    return with_click(points, draw_click(pred, gt, pred_thresh), click_indx)


def draw_click(pred: Tensor, gt: Tensor, pred_thresh: float) -> NextClick:
    """The click that `get_next_points` adds."""
    predicted, target = _masks(pred.detach()[:, 0], gt.detach()[:, 0], pred_thresh)
    return next_click(predicted, target, random=True)


def with_click(points: Tensor, click: NextClick, click_indx: int) -> Tensor:
    """A copy of `points` with the clicks of the images that have an error."""
    assert click_indx > 0
    order = torch.full_like(click.labels, click_indx)
    new = torch.cat([click.points, order[:, None]], 1).to(points.dtype)
    half = points.shape[1] // 2
    slot = torch.where(click.labels.bool(), half, 2 * half) - click_indx
    result = points.clone()
    images = torch.arange(len(points), device=points.device)
    result[images, slot] = torch.where(click.valid[:, None], new, result[images, slot])
    return result


def _masks(pred: Tensor, gt: Tensor, pred_thresh: float) -> tuple[Tensor, Tensor]:
    """The predicted mask and the object's mask; a probability equal to the threshold is in neither.

    On the CPU torch compares into a float buffer in the cache several times as fast as into bools.
    """
    predicted, target = torch.empty(2, *pred.shape, dtype=torch.bool, device=pred.device)
    step = max(BLOCK // max(pred[:1].numel(), 1), 1) if pred.device.type == "cpu" else len(pred)
    buffer = pred.new_empty(2, min(step, len(pred)), *pred.shape[1:])
    parts = (x.split(step) for x in (pred, gt, predicted, target))
    for some_pred, some_gt, some_predicted, some_target in zip(*parts, strict=True):
        above, differs = buffer[:, : len(some_pred)]
        some_predicted.copy_(torch.gt(some_pred, pred_thresh, out=above))
        torch.ne(some_pred, pred_thresh, out=differs)
        some_target.copy_(torch.gt(some_gt, 0.5, out=above).mul_(differs))
    return predicted, target


REPLACES = {
    "model.ops:DistMaps": DistMaps,
    "inference.clicker:Clicker._get_next_click": get_next_click,
    "engine.trainer:get_next_points": get_next_points,
}
