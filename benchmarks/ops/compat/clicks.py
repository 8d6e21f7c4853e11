"""Clicks: the original code and its drop-ins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.ops.compat import Case, blobs
from benchmarks.ops.distance import ritm as ritm_maps
from pixelkernels.compat import clickseg, ritm, sam2, sam3


def tanh_in_place(squares: Tensor) -> Tensor:
    return squares.sqrt_().mul_(2).tanh_()


def next_points(pred: Tensor, gt: Tensor, points: Tensor, number: int) -> Tensor:
    predicted, target = pred[:, 0].numpy(), gt[:, 0].numpy() > 0.5
    missed = np.pad(target & (predicted < 0.49), ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    wrong = np.pad(~target & (predicted > 0.49), ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    half, found = points.shape[1] // 2, points.clone()
    for image in range(len(missed)):
        depths = [
            cv2.distanceTransform(x[image], cv2.DIST_L2, 5)[1:-1, 1:-1] for x in (missed, wrong)
        ]
        positive = depths[0].max() > depths[1].max()
        depth = depths[0] if positive else depths[1]
        inner = np.argwhere(depth > depth.max() / 2)
        if len(inner):
            row, column = inner[np.random.randint(len(inner))]
            slot = (half if positive else 2 * half) - number
            found[image, slot] = torch.tensor([row, column, number], dtype=torch.float32)
    return found


def next_points_in_crops(
    pred: Tensor, gt: Tensor, points: Tensor, focus: Tensor, rois: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    found, (height, width) = next_points(pred, gt, points, number), gt.shape[2:]
    for image, (x1, y1, x2, y2) in enumerate(rois.numpy()):
        scale = torch.tensor([height / (y2 - y1), width / (x2 - x1), 1])
        focus[image] = (found[image] - torch.tensor([y1, x1, 0])) * scale
    return found, focus


def error_centres(target: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
    missed, wrong = (
        (a & b)[:, 0].numpy().astype(np.uint8) for a, b in ((target, ~pred), (~target, pred))
    )
    points, labels = torch.zeros(len(target), 1, 2), torch.ones(len(target), 1, dtype=torch.int32)
    for image in range(len(target)):
        depths = [
            cv2.distanceTransform(np.pad(x[image], 1), cv2.DIST_L2, 0)[1:-1, 1:-1].flatten()
            for x in (missed, wrong)
        ]
        deepest = [int(d.argmax()) for d in depths]
        positive = depths[0][deepest[0]] > depths[1][deepest[1]]
        row, column = divmod(deepest[0] if positive else deepest[1], target.shape[-1])
        points[image, 0], labels[image, 0] = torch.tensor([column, row]), int(positive)
    return points, labels


def random_errors(target: Tensor, pred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """SAM 2: random numbers per pixel, point and kind of error; the argmax over the errors."""
    missed, wrong = target & ~pred, ~target & pred
    perfect = (target == pred).flatten(2).all(-1)[..., None, None]
    batch, _, height, width = target.shape
    noise = torch.rand(batch, count, height, width, 2)
    noise[..., 0] *= wrong | (perfect & ~target)
    noise[..., 1] *= missed
    index = noise.flatten(2).argmax(2)
    pixel = index // 2
    return torch.stack([pixel % width, pixel // width], 2).float(), (index % 2).int()


class Click(NamedTuple):
    is_positive: bool
    coords: tuple[int, int]


@dataclass
class Clicker:
    """The state of RITM's clicker. Its drop-in takes Click from the module of its class."""

    gt_mask: np.ndarray

    def __post_init__(self) -> None:
        self.not_ignore_mask = self.gt_mask != -1
        self.not_clicked_map = np.ones_like(self.not_ignore_mask)


def clicked(click: Click) -> Tensor:
    return torch.tensor([click.is_positive, *click.coords])


def deepest_error(clicker: Clicker, predicted: np.ndarray) -> Tensor:
    is_object, known = clicker.gt_mask == 1, clicker.not_ignore_mask
    missed, wrong = (
        cv2.distanceTransform(np.pad(x & known, 1).astype(np.uint8), cv2.DIST_L2, 0)[1:-1, 1:-1]
        * clicker.not_clicked_map
        for x in (is_object & ~predicted, ~is_object & predicted)
    )
    positive = bool(missed.max() > wrong.max())
    depth = missed if positive else wrong
    rows, columns = np.where(depth == depth.max())
    return clicked(Click(positive, (int(rows[0]), int(columns[0]))))


def opencv_transforms(images: Tensor) -> Tensor:
    transforms = [cv2.distanceTransform(x, cv2.DIST_L2, 0) for x in images.byte().numpy()]
    return torch.from_numpy(np.stack(transforms))


def cases() -> list[Case]:
    torch.manual_seed(0)
    points = torch.randint(0, 320, (28, 48, 3)).float()
    points[:, 20:24] = points[:, 40:] = -1
    canvas = torch.empty(320, 480)
    image, maps = torch.zeros(28, 3, 320, 480), ritm.DistMaps(5)
    target, pred = (blobs(28, 320, 480, seed)[:, None].float() for seed in (0, 1))
    focus, rois = torch.empty_like(points), torch.tensor([[40, 30, 280, 190]]).repeat(28, 1)
    large = [blobs(4, 1024, 1024, seed)[:, None] for seed in (2, 3)]
    clicker = Clicker(gt_mask=blobs(1, 480, 854, 4)[0].int().numpy())
    mistaken = blobs(1, 480, 854, 5)[0].numpy()
    return [
        Case(
            "RITM, f-BRS, SimpleClick, ClickSEG, Cutie", "DistMaps", "ritm.DistMaps",
            "`cpu_mode` is exact too; padding is no click even for disks of 1000 pixels",
            "28 images, 48 points, 320x480",
            lambda: maps(image, points),
            lambda: ritm_maps(points[..., :2], points, canvas, 5, tanh_in_place)[0],
            2e-6,
        ),
        Case(
            "RITM, SimpleClick, ClickSEG", "get_next_points", "ritm.get_next_points",
            "exact depths where the original takes chamfer distances; torch draws, not NumPy",
            "28 images, 320x480",
            lambda: ritm.get_next_points(pred, target, points, 2),
            lambda: next_points(pred, target, points, 2), random=True,
        ),
        Case(
            "SAM 2", "sample_one_point_from_error_center",
            "sam2.sample_one_point_from_error_center", "none", "4 images, 1024x1024",
            lambda: sam2.sample_one_point_from_error_center(*large),
            lambda: error_centres(*large), 0,
        ),
        Case(
            "SAM 2", "sample_random_points_from_errors", "sam2.sample_random_points_from_errors",
            "the same distribution, other draws", "7 points, 4 images, 1024x1024",
            lambda: sam2.sample_random_points_from_errors(*large, num_pt=7),
            lambda: random_errors(*large, 7), random=True,
        ),
        Case(
            "RITM, f-BRS, SimpleClick, ClickSEG, Cutie", "Clicker._get_next_click",
            "ritm.get_next_click", "none", "480x854",
            lambda: clicked(ritm.get_next_click(clicker, mistaken)),
            lambda: deepest_error(clicker, mistaken), 0,
        ),
        Case(
            "SAM 3", "sample_one_point_from_error_center",
            "sam3.sample_one_point_from_error_center",
            "every device; the original needs a GPU, and its OpenCV version is timed",
            "4 images, 1024x1024",
            lambda: sam3.sample_one_point_from_error_center(*large),
            lambda: error_centres(*large), 0,
        ),
        Case(
            "SAM 3", "edt_triton", "sam3.edt_triton",
            "every device; the original needs a GPU, and OpenCV, which it imitates, is timed",
            "4 images, 1024x1024",
            lambda: sam3.edt_triton(large[0][:, 0]), lambda: opencv_transforms(large[0][:, 0]),
            1e-6,
        ),
        Case(
            "ClickSEG", "get_next_points_removeall", "clickseg.get_next_points_removeall",
            "exact depths where the original takes chamfer distances; torch draws, not NumPy",
            "28 images, 320x480",
            lambda: clickseg.get_next_points_removeall(pred, target, points, focus, rois, 2),
            lambda: next_points_in_crops(pred, target, points, focus, rois, 2),
            random=True,
        ),
    ]  # fmt: skip
