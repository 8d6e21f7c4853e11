"""RITM's clicks (isegm of RITM, SimpleClick, ClickSEG and f-BRS; gui.ritm of Cutie).

Exact distances everywhere: `cpu_mode` of the original is off by up to a quarter of a pixel, and the
transform that its training draws clicks from by up to two percent.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelkernels import numpy as arrays
from pixelkernels.distance import click_maps, next_click

PACKAGE = "isegm"
# so many pixels at a time stay in the cache
BLOCK = 1 << 18


class DistMaps(nn.Module):
    """Distance maps of clicks, `DistMaps(...)(image, points)`.

    Args:
        norm_radius, spatial_scale, use_disks: as in the original.
        cpu_mode: without effect: the exact maps are also the fast ones.

    Points [B, 2n, 2] or [B, 2n, 3], (row, column) and perhaps an order, n positive ones first; a
    point is padding where row and column are both negative. Differs from the original where a disk
    of 1000 pixels or more meets padding, which the original takes for a click.
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
        """float32 [B, 2, rows, cols], the positive map first."""
        place = points.view(batchsize, -1, points.shape[-1])[..., :2]
        half = place.shape[1] // 2
        sides = torch.arange(2 * half, device=points.device) < half
        labels = torch.where(place.amax(-1) < 0, -1, sides.long())
        return click_maps(
            place * self.spatial_scale if self.spatial_scale != 1 else place,
            labels,
            (rows, cols),
            encoding="disk" if self.use_disks else "tanh",
            radius=self.norm_radius * self.spatial_scale,
        )

    def forward(self, x: Tensor, coords: Tensor) -> Tensor:
        return self.get_coord_features(coords, x.shape[0], x.shape[2], x.shape[3])


def get_next_click(clicker: Any, pred_mask: np.ndarray, padding: bool = True) -> Any:
    """`Clicker._get_next_click`: the deepest error of a prediction, as the Click of its module.

    Args:
        clicker: has `gt_mask` and `not_clicked_map`; what RITM's `not_ignore_mask` leaves out, or
            where f-BRS's `gt_mask` is -1, is no error.
        pred_mask: [H, W].
        padding: whether what lies outside is no error.
    """
    target, predicted = clicker.gt_mask, np.asarray(pred_mask).astype(bool)
    if hasattr(clicker, "not_ignore_mask"):
        target = np.where(clicker.not_ignore_mask, target, -1)
    if padding:
        found = arrays.next_click(
            predicted[None], np.asarray(target)[None].astype(np.int64),
            not_clicked=np.asarray(clicker.not_clicked_map)[None],
        )  # fmt: skip
        positive, point = bool(found.labels[0]), found.points[0]
    else:
        known, is_object = target != -1, target == 1
        sides = np.stack([is_object & ~predicted & known, ~is_object & predicted & known])
        depth = arrays.distance_transform(~sides, squared=True) * clicker.not_clicked_map
        positive = bool(depth[0].max() > depth[1].max())
        side = depth[0] if positive else depth[1]
        point = np.unravel_index(side.argmax(), side.shape)
    made = sys.modules[type(clicker).__module__].Click
    return made(is_positive=positive, coords=(int(point[0]), int(point[1])))


def get_next_points(
    pred: Tensor, gt: Tensor, points: Tensor, click_indx: int, pred_thresh: float = 0.49
) -> Tensor:
    """A click on each image's largest error, for training: uniform among the error's pixels that
    are deeper than half of its depth, from torch's generator.

    Args:
        pred: probabilities [B, 1, H, W].
        gt: [B, 1, H, W], object above 0.5.
        points: [B, 2n, 3]; a copy comes back with the new click at `n - click_indx` (positive) or
            `2n - click_indx` (negative) and its number `click_indx`. Images without an error keep
            theirs.
    """
    assert click_indx > 0
    predicted, target = _masks(pred.detach()[:, 0], gt.detach()[:, 0], pred_thresh)
    click = next_click(predicted, target, random=True)
    order = torch.full_like(click.labels, click_indx)
    new = torch.cat([click.points, order[:, None]], 1).to(points.dtype)
    half = points.shape[1] // 2
    slot = torch.where(click.labels.bool(), half, 2 * half) - click_indx
    found = points.clone()
    images = torch.arange(len(pred), device=pred.device)
    found[images, slot] = torch.where(click.valid[:, None], new, found[images, slot])
    return found


def _masks(pred: Tensor, gt: Tensor, pred_thresh: float) -> tuple[Tensor, Tensor]:
    """What is predicted and what is object; a probability of exactly the threshold is neither.

    On the CPU torch takes several times as long to compare into bools as into floats, if those
    stay in the cache.
    """
    predicted, target = torch.empty(2, *pred.shape, dtype=torch.bool, device=pred.device)
    step = max(BLOCK // max(pred[:1].numel(), 1), 1) if pred.device.type == "cpu" else len(pred)
    room = pred.new_empty(2, min(step, len(pred)), *pred.shape[1:])
    parts = (x.split(step) for x in (pred, gt, predicted, target))
    for some_pred, some_gt, some_predicted, some_target in zip(*parts, strict=True):
        above, differs = room[:, : len(some_pred)]
        some_predicted.copy_(torch.gt(some_pred, pred_thresh, out=above))
        torch.ne(some_pred, pred_thresh, out=differs)
        some_target.copy_(torch.gt(some_gt, 0.5, out=above).mul_(differs))
    return predicted, target


REPLACES = {
    "model.ops:DistMaps": DistMaps,
    "inference.clicker:Clicker._get_next_click": get_next_click,
    "engine.trainer:get_next_points": get_next_points,
}
