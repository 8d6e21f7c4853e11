"""Clicks and distance transforms: the original code and its drop-ins."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from benchmarks.ops.compat import Case, blobs
from benchmarks.ops.distance import ritm as ritm_maps
from pixelkernels.compat import kornia, monai, ritm, sam2, scipy


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


def channel_transforms(image: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([ndimage.distance_transform_edt(x) for x in image.numpy()]))


def cascaded_transform(image: Tensor) -> Tensor:
    """kornia with its defaults: a soft minimum of distances in 3 x 3 pixels, ring by ring."""
    steps = torch.arange(3) - 1
    kernel = torch.exp(torch.hypot(steps[:, None].float(), steps.float()) / -0.35)[None, None]
    found, reached = torch.zeros_like(image), image.clone()
    for ring in range(max(image.shape[2:])):
        distance = -0.35 * torch.log(F.conv2d(reached, kernel, padding="same"))
        distance = torch.nan_to_num(distance, posinf=0.0)
        new = torch.where(distance > 0, 1.0, 0.0)
        if new.sum() == 0:
            break
        found += (ring * 3 // 2 + distance) * new
        reached[new == 1] = 1
    return found


def cases() -> list[Case]:
    torch.manual_seed(0)
    points = torch.randint(0, 320, (28, 48, 3)).float()
    points[:, 20:24] = points[:, 40:] = -1
    canvas = torch.empty(320, 480)
    image, maps = torch.zeros(28, 3, 320, 480), ritm.DistMaps(5)
    target, pred = (blobs(28, 320, 480, seed)[:, None].float() for seed in (0, 1))
    large = [blobs(4, 1024, 1024, seed)[:, None] for seed in (2, 3)]
    frame = blobs(4, 480, 854, 4)
    masks = blobs(4, 256, 256, 5)[:, None].float()
    return [
        Case(
            "RITM, f-BRS, SimpleClick", "DistMaps", "ritm.DistMaps",
            "`cpu_mode` is exact too; padding is no click even for disks of 1000 pixels",
            "28 images, 48 points, 320x480",
            lambda: maps(image, points),
            lambda: ritm_maps(points[..., :2], points, canvas, 5, tanh_in_place)[0],
            2e-6,
        ),
        Case(
            "RITM, SimpleClick", "get_next_points", "ritm.get_next_points",
            "exact depths where the original takes chamfer distances; torch draws, not NumPy",
            "28 images, 320x480",
            lambda: ritm.get_next_points(pred, target, points, 2),
            lambda: next_points(pred, target, points, 2), None,
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
            lambda: random_errors(*large, 7), None,
        ),
        Case(
            "SciPy", "distance_transform_edt", "scipy.distance_transform_edt",
            "rounds to float32 with `sampling`; indices and volumes go to SciPy", "480x854",
            lambda: torch.from_numpy(scipy.distance_transform_edt(frame[0].numpy())),
            lambda: torch.from_numpy(ndimage.distance_transform_edt(frame[0].numpy())), 0,
        ),
        Case(
            "MONAI", "distance_transform_edt", "monai.distance_transform_edt",
            "no indices, no volumes; +inf in a channel without a zero", "4 channels, 480x854",
            lambda: monai.distance_transform_edt(frame), lambda: channel_transforms(frame),
        ),
        Case(
            "kornia", "distance_transform", "kornia.distance_transform",
            "exact Euclidean distances where the original approximates city blocks",
            "4 images, 256x256",
            lambda: kornia.distance_transform(masks), lambda: cascaded_transform(masks), None,
        ),
    ]  # fmt: skip
