"""Distance transforms: the original code and its drop-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage import segmentation
from torch import Tensor
from torchmetrics.functional.segmentation import hausdorff_distance, utils

from benchmarks.ops.compat import Case, blobs
from pixelkernels.compat import kornia, monai, scipy, skimage, torchmetrics


def channel_transforms(image: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([ndimage.distance_transform_edt(x) for x in image.numpy()]))


def cascaded_transform(image: Tensor) -> Tensor:
    """kornia 0.9 with its defaults: a soft minimum of distances in 3 x 3 pixels, ring by ring."""
    steps = torch.arange(3) - 1
    kernel = torch.exp(torch.hypot(steps[:, None].float(), steps.float()) / -0.35)[None, None]
    found, reached = torch.zeros_like(image), image.clone()
    for ring in range(max(image.shape[2:])):
        window = F.conv2d(F.pad(reached, (1, 1, 1, 1), mode="replicate"), kernel)
        distance = -0.35 * torch.log(window)
        distance = torch.nan_to_num(distance, posinf=0.0)
        new = torch.where(distance > 0, 1.0, 0.0)
        if new.sum() == 0:
            break
        found += (ring + distance) * new
        reached[new == 1] = 1
    return found


def with_indices(transform: Callable[..., Any], volume: Tensor) -> Tensor:
    """The distances, computed with the indices, which may differ among equally near zeros."""
    return torch.from_numpy(transform(volume.numpy(), return_indices=True)[0])


def distance_field(image: Tensor) -> Tensor:
    """MONAI's, of [B, 1, H, W, D]: two transforms of every image."""
    field = torch.zeros_like(image)
    for i, mask in enumerate(image > 0.5):
        if mask.any() and not mask.all():
            field[i] = channel_transforms(mask) + channel_transforms(~mask)
    return field


def hausdorff(q: Tensor, t: Tensor) -> Tensor:
    """MONAI's HausdorffDTLoss: channel by channel, without the background."""
    losses = []
    for c in range(1, q.shape[1]):
        one, other = q[:, [c]], t[:, [c]]
        weights = distance_field(one.detach()) ** 2.0 + distance_field(other) ** 2.0
        losses.append(((one - other) ** 2 * weights).mean((2, 3, 4)))
    return torch.cat(losses, 1).mean()


def organs(side: int, axes: int) -> tuple[Tensor, Tensor]:
    """One-hot predictions and targets of 4 images, 3 classes and the background."""
    noise = np.random.default_rng(9).standard_normal((4, 4, *[side] * axes), np.float32)
    labels = ndimage.gaussian_filter(noise, side / 12, axes=range(2, 2 + axes)).argmax(1)
    target = F.one_hot(torch.from_numpy(labels)).movedim(-1, 1).contiguous()
    return target.roll([2, -1, 3][:axes], list(range(2, 2 + axes))), target


def surface_distances(prediction: Tensor, target: Tensor) -> list[Tensor]:
    """MONAI's, of two masks [H, W, D]: the edge pixels of both in their box, and two transforms."""
    masks = [x.numpy() == 1 for x in (prediction, target)]
    (box,) = ndimage.find_objects((masks[0] | masks[1]).astype(np.uint8))
    masks = [np.pad(mask[box], 1) for mask in masks]
    edges = [ndimage.binary_erosion(mask) ^ mask for mask in masks]
    maps = [ndimage.distance_transform_edt(~edge).astype(np.float32) for edge in edges]
    return [torch.from_numpy(maps[1][edges[0]]), torch.from_numpy(maps[0][edges[1]])]


def of_classes(
    statistic: Callable[[list[Tensor], int], Tensor], predictions: Tensor, targets: Tensor
) -> Tensor:
    """MONAI's metrics: class by class, without the background."""
    found = torch.empty(len(targets), targets.shape[1] - 1)
    for b, c in np.ndindex(*found.shape):
        distances = surface_distances(predictions[b, c + 1], targets[b, c + 1])
        found[b, c] = statistic(distances, c)
    return found


def surface_cases() -> list[Case]:
    """The surface metrics of MONAI and of torchmetrics."""
    prediction, target = (x.float() for x in organs(96, 3))
    image, image_target = organs(128, 2)
    thresholds = [1.0, 2.0**0.5, 2.0]
    sizes = "4 images, 3 classes, 96x96x96"
    return [
        Case(
            "MONAI", "compute_hausdorff_distance, percentile",
            "monai.compute_hausdorff_distance", "none", sizes,
            lambda: monai.compute_hausdorff_distance(prediction, target, percentile=95),
            lambda: of_classes(
                lambda d, _: torch.stack([x.quantile(0.95) for x in d]).max(), prediction, target
            ),
            0,
        ),
        Case(
            "MONAI", "compute_average_surface_distance", "monai.compute_average_surface_distance",
            "none", sizes,
            lambda: monai.compute_average_surface_distance(prediction, target, symmetric=True),
            lambda: of_classes(lambda d, _: torch.cat(d).mean(), prediction, target), 0,
        ),
        Case(
            "MONAI", "compute_surface_dice", "monai.compute_surface_dice",
            "MONAI itself computes `use_subvoxels=True`", sizes,
            lambda: monai.compute_surface_dice(prediction, target, thresholds),
            lambda: of_classes(
                lambda d, c: (torch.cat(d) <= thresholds[c]).float().mean(), prediction, target
            ),
            0,
        ),
        Case(
            "torchmetrics", "hausdorff_distance", "torchmetrics.hausdorff_distance",
            "exact where the original needs H = W; volumes", "4 images, 3 classes, 128x128",
            lambda: torchmetrics.hausdorff_distance(image, image_target, 4),
            lambda: hausdorff_distance(image, image_target, 4), 1e-6,
        ),
    ]  # fmt: skip


def cases() -> list[Case]:
    frame = blobs(4, 480, 854, 4)
    masks = blobs(4, 256, 256, 5)[:, None].float()
    volume = blobs(1, 96 * 96, 96, 6).view(96, 96, 96)
    nuclei, _ = ndimage.label(ndimage.binary_erosion(volume.numpy(), iterations=3))
    target = F.one_hot(blobs(4, 96 * 96, 96, 7).long(), 2).movedim(-1, 1).float()
    logits = 3 * blobs(8, 96 * 96, 96, 8).float() + torch.randn(8, 96 * 96, 96)
    shape = (4, 2, 96, 96, 96)
    target, q = target.view(shape), logits.view(shape).softmax(1)
    loss, logarithm = monai.HausdorffDTLoss(), monai.LogHausdorffDTLoss()
    return [
        Case(
            "SciPy", "distance_transform_edt", "scipy.distance_transform_edt",
            "of equally near zeros perhaps another one", "480x854",
            lambda: torch.from_numpy(scipy.distance_transform_edt(frame[0].numpy())),
            lambda: torch.from_numpy(ndimage.distance_transform_edt(frame[0].numpy())), 0,
        ),
        Case(
            "SciPy", "distance_transform_edt, indices", "scipy.distance_transform_edt",
            "of equally near zeros perhaps another one", "96x96x96",
            lambda: with_indices(scipy.distance_transform_edt, volume),
            lambda: with_indices(ndimage.distance_transform_edt, volume), 0,
        ),
        Case(
            "MONAI", "distance_transform_edt", "monai.distance_transform_edt",
            "of equally near zeros perhaps another one", "4 channels, 480x854",
            lambda: monai.distance_transform_edt(frame), lambda: channel_transforms(frame),
        ),
        Case(
            "MONAI", "HausdorffDTLoss", "monai.HausdorffDTLoss",
            "a full mask has no boundary; distances are not rounded to the target's dtype",
            "4 images, 2 channels, 96x96x96",
            lambda: loss(q, target), lambda: hausdorff(q, target), 1e-5, leaf=q, training=True,
        ),
        Case(
            "MONAI", "LogHausdorffDTLoss", "monai.LogHausdorffDTLoss",
            "a full mask has no boundary; distances are not rounded to the target's dtype",
            "4 images, 2 channels, 96x96x96",
            lambda: logarithm(q, target), lambda: torch.log(hausdorff(q, target) + 1), 1e-5,
            leaf=q, training=True,
        ),
        Case(
            "scikit-image", "expand_labels", "skimage.expand_labels",
            "of equally near labels perhaps another one", "96x96x96",
            lambda: torch.from_numpy(skimage.expand_labels(nuclei, 5) > 0),
            lambda: torch.from_numpy(segmentation.expand_labels(nuclei, 5) > 0), 0,
        ),
        Case(
            "kornia", "distance_transform", "kornia.distance_transform",
            "exact where the original approximates by chessboard distances; no gradient",
            "4 images, 256x256",
            lambda: kornia.distance_transform(masks), lambda: cascaded_transform(masks), None,
        ),
        Case(
            "torchmetrics", "distance_transform", "torchmetrics.distance_transform",
            "exact where the default engine needs H = W; theirs is the engine scipy",
            "480x854",
            lambda: torchmetrics.distance_transform(frame[0]),
            lambda: torch.from_numpy(utils.distance_transform(frame[0], engine="scipy")),
            1e-6,
        ),
        *surface_cases(),
    ]  # fmt: skip
