"""Distance transforms: the original code and its drop-ins."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torchmetrics.functional.segmentation import utils as segmentation

from benchmarks.ops.compat import Case, blobs
from pixelkernels.compat import kornia, monai, scipy, torchmetrics


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


def cases() -> list[Case]:
    frame = blobs(4, 480, 854, 4)
    masks = blobs(4, 256, 256, 5)[:, None].float()
    return [
        Case(
            "SciPy", "distance_transform_edt", "scipy.distance_transform_edt",
            "rounds to float32 with `sampling`; indices and volumes go to SciPy", "480x854",
            lambda: torch.from_numpy(scipy.distance_transform_edt(frame[0].numpy())),
            lambda: torch.from_numpy(ndimage.distance_transform_edt(frame[0].numpy())), 0,
        ),
        Case(
            "MONAI", "distance_transform_edt", "monai.distance_transform_edt",
            "rounds to float32 with `sampling`; indices and volumes go to SciPy",
            "4 channels, 480x854",
            lambda: monai.distance_transform_edt(frame), lambda: channel_transforms(frame),
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
            lambda: torch.from_numpy(segmentation.distance_transform(frame[0], engine="scipy")),
            1e-6,
        ),
    ]  # fmt: skip
