"""What the projects of `pixelkernels.compat` compute, stated in plain PyTorch, OpenCV and SciPy as
they do it: dense, image by image, object by object.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor


def distance_maps(points: Tensor, rows: int, cols: int, radius: float) -> Tensor:
    """Every pixel's offset to every point, then the least."""
    batch, count = points.shape[:2]
    flat = points.view(-1, points.shape[2])[:, :2]
    absent = flat.amax(1) < 0
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"))
    offsets = grid[None].float().repeat(len(flat), 1, 1, 1)
    offsets.add_(-flat[..., None, None].float()).div_(radius).square_()
    squares = offsets[:, 0] + offsets[:, 1]
    squares[absent] = 1e6
    return (squares.view(batch, 2, count // 2, rows, cols).amin(2).sqrt_() * 2).tanh_()


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
        places = [int(d.argmax()) for d in depths]
        positive = depths[0][places[0]] > depths[1][places[1]]
        row, column = divmod(places[0] if positive else places[1], target.shape[-1])
        points[image, 0], labels[image, 0] = torch.tensor([column, row]), int(positive)
    return points, labels


def random_errors(target: Tensor, pred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A random number for every pixel, point and side; the largest ones of what is wrong."""
    missed, wrong = target & ~pred, ~target & pred
    perfect = (target == pred).flatten(2).all(-1)[..., None, None]
    batch, _, height, width = target.shape
    noise = torch.rand(batch, count, height, width, 2)
    noise[..., 0] *= wrong | (perfect & ~target)
    noise[..., 1] *= missed
    place = noise.flatten(2).argmax(2)
    pixel = place // 2
    return torch.stack([pixel % width, pixel // width], 2).float(), (place % 2).int()


def channel_transforms(image: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([ndimage.distance_transform_edt(x) for x in image.numpy()]))


def prior(query: Tensor, supports: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    found = []
    for support, mask in zip(supports, masks, strict=True):
        small = F.interpolate(mask, size=query.shape[-2:], mode="bilinear", align_corners=True)
        q, s = query.flatten(2), (support * small).flatten(2).mT
        lengths = torch.bmm(s.norm(2, 2, True), q.norm(2, 1, True))
        best = (torch.bmm(s, q) / (lengths + 1e-7)).max(1)[0]
        low, high = best.min(1, True)[0], best.max(1, True)[0]
        found.append(((best - low) / (high - low + 1e-7)).view(len(query), 1, *query.shape[-2:]))
    return torch.cat(found, 1).mean(1, True)


def weighted_gap(features: Tensor, mask: Tensor) -> Tensor:
    height, width = features.shape[-2:]
    area = F.avg_pool2d(mask, (height, width)) * height * width + 5e-4
    return F.avg_pool2d(features * mask, (height, width)) * height * width / area


def upsampled_prototype(features: Tensor, mask: Tensor) -> Tensor:
    large = F.interpolate(features, size=mask.shape[-2:], mode="bilinear")
    return (large * mask[None]).sum((2, 3)) / (mask[None].sum((2, 3)) + 1e-5)


def contrastive(features: Tensor, labels: Tensor, delta_var: float, delta_dist: float) -> Tensor:
    """Clusters as one-hot masks times the features, as torch-em's expanding form."""
    losses = []
    for x, target in zip(features, labels[:, 0], strict=True):
        count = int(target.max()) + 1
        masks = torch.stack([target == i for i in range(count)]).float()
        sizes = masks.flatten(1).sum(1)
        means = (masks[:, None] * x[None]).flatten(2).sum(2) / sizes[:, None]
        gaps = ((x[None] - means[..., None, None]).norm(dim=1) - delta_var).clamp(min=0).square()
        variance = ((gaps * masks).flatten(1).sum(1) / sizes).mean()
        apart = (2 * delta_dist - torch.cdist(means, means)).clamp(min=0).square()
        distance = apart.fill_diagonal_(0).sum() / (count * (count - 1))
        losses.append(variance + distance + 1e-3 * means.norm(dim=1).mean())
    return torch.stack(losses).mean()


def released_cas(gt: Tensor, softmaxed: Tensor) -> Tensor:
    gt = gt.expand(-1, softmaxed.shape[1], -1, -1)
    inside, outside = gt + 3e-5, 1 - gt + 3e-5
    mean, other = ((w * softmaxed).sum((2, 3)) / w.sum((2, 3)) for w in (inside, outside))
    spread = (inside * softmaxed - inside * mean[..., None, None]).square().sum((2, 3))
    spread = (spread / (inside.sum((2, 3)) + 3e-5)).sum()
    return (0.5 * spread - 0.5 * (mean - other).square().sum()) / 40


def nearest_neighbours(reference: Tensor, query: Tensor, labels: Tensor, count: int) -> Tensor:
    """A block of queries at a time against all references, object by object."""
    x, y = query.flatten(0, 1), reference.flatten(0, 1)
    blocks = []
    for block in x.chunk(10):
        squares = block.square().sum(1)[:, None] + y.square().sum(1) - 2 * block @ y.T
        wrong = labels.flatten()[None] != torch.arange(count)[:, None]
        blocks.append((squares[:, None] + 1e20 * wrong[None]).amin(2))
    return torch.cat(blocks).view(1, *query.shape[:2], count, 1)
