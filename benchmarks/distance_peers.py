"""What users write or call today for the distance family, independent of the library.

Click maps take points [B, 2 n, 2] and labels [B, 2 n] in slots as RITM has them: n for positive
clicks, then n for negative ones, the unused at (-1, -1) with label -1; and a canvas [H, W], of
which only the size counts. OpenCV, edt and SciPy want the pixels to measure from to be zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

TRUNCATE = 255.0
RADIUS = 5.0  # of RITM's tanh maps
# RITM's squared distance to an unused slot
FAR = 1e6

Encode = Callable[[Tensor], Tensor]
# a bool image -> the distance of its True pixels to the nearest False one, written to the float32
# array `out` where there is one
Transform = Callable[..., Any]


def truncated(squared: Tensor) -> Tensor:
    return squared.sqrt().clamp(max=TRUNCATE)


def tanh(squared: Tensor) -> Tensor:
    return torch.tanh(2 * squared.sqrt() / RADIUS)


def _axes(points: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor]:
    height, width = canvas.shape
    rows = torch.arange(height, dtype=points.dtype, device=points.device)[:, None]
    return rows, torch.arange(width, dtype=points.dtype, device=points.device)


def broadcast(points: Tensor, labels: Tensor, canvas: Tensor, encode: Encode) -> tuple[Tensor]:
    """The distance to every slot, [B, 2, n, H, W], and then the smallest."""
    rows, columns = _axes(points, canvas)
    row, column = points[..., None, None].unbind(2)
    squared = (rows - row).square() + (columns - column).square()
    squared = torch.where(labels[..., None, None] >= 0, squared, torch.inf)
    return (encode(squared.unflatten(1, (2, -1)).amin(2)),)


def running_minimum(
    points: Tensor, labels: Tensor, canvas: Tensor, encode: Encode
) -> tuple[Tensor]:
    """Slot by slot, with two maps per image in memory. In float64 this is the oracle."""
    rows, columns = _axes(points, canvas)
    batch, slots = labels.shape
    nearest = points.new_full((batch, 2, *canvas.shape), torch.inf)
    for slot in range(slots // 2):
        pair = points[:, slot :: slots // 2, :, None, None]
        used = labels[:, slot :: slots // 2, None, None] >= 0
        squared = (rows - pair[:, :, 0]).square() + (columns - pair[:, :, 1]).square()
        nearest = torch.minimum(nearest, torch.where(used, squared, torch.inf))
    return (encode(nearest),)


def ritm(
    points: Tensor, labels: Tensor, canvas: Tensor, radius: float, encode: Encode
) -> tuple[Tensor]:
    """The steps of RITM's DistMaps: coordinates of every pixel from every slot, changed in place.

    An unused slot is known by its point. Distances are in units of `radius`.
    """
    batch, slots, _ = points.shape
    flat = points.reshape(-1, 2)
    unused = flat.amax(1) < 0
    grid = torch.stack(
        torch.meshgrid(*(axis.flatten() for axis in _axes(points, canvas)), indexing="ij")
    )
    offset = grid.repeat(len(flat), 1, 1, 1)
    offset.sub_(flat[:, :, None, None]).div_(radius).square_()
    offset[:, 0] += offset[:, 1]
    squared = offset[:, 0]
    squared[unused] = FAR
    nearest = squared.view(batch, 2, slots // 2, *canvas.shape).amin(2)
    return (encode(nearest),)


def opencv_clicks(points: Tensor, labels: Tensor, canvas: Tensor) -> tuple[Tensor]:
    """Clicks at pixels drawn into an image, and its distance transform, one map after another."""
    batch, slots = labels.shape
    maps = np.full((batch * 2, *canvas.shape), TRUNCATE, np.float32)
    pixels = points.numpy().astype(np.int64).reshape(batch * 2, slots // 2, 2)
    used = (labels >= 0).numpy().reshape(batch * 2, slots // 2)
    for result, slot, valid in zip(maps, pixels, used, strict=True):
        if valid.any():
            image = np.ones(result.shape, np.uint8)
            image[tuple(slot[valid].T)] = 0
            np.minimum(opencv(image), np.float32(TRUNCATE), out=result)
    return (torch.from_numpy(maps).unflatten(0, (batch, 2)),)


def opencv(image: Any, out: Any = None) -> Any:
    import cv2

    if cv2.getNumThreads() != torch.get_num_threads():
        cv2.setNumThreads(torch.get_num_threads())
    return cv2.distanceTransform(image.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, out)


def edt(image: Any, out: Any = None) -> Any:
    import edt as package

    return _into(out, package.edt(image, parallel=torch.get_num_threads()))


def scipy(image: Any, out: Any = None) -> Any:
    from scipy import ndimage

    return _into(out, ndimage.distance_transform_edt(image))


def _into(out: Any, result: Any) -> Any:
    if out is None:
        return result
    out[:] = result
    return out


def transforms(mask: Tensor, transform: Transform) -> tuple[Tensor]:
    """Image by image, through NumPy, each written to its place where that saves a copy."""
    images = ~mask.numpy()
    if len(images) == 1:
        return (torch.from_numpy(transform(images[0])[None].astype(np.float32, copy=False)),)
    results = np.empty(images.shape, np.float32)
    for image, out in zip(images, results, strict=True):
        transform(image, out)
    return (torch.from_numpy(results),)


def transforms_cupy(mask: Tensor) -> tuple[Tensor]:
    import cupy
    from cupyx.scipy import ndimage

    images = [
        ndimage.distance_transform_edt(cupy.asarray(image), float64_distances=False)
        for image in ~mask
    ]
    return (torch.stack([torch.as_tensor(image, device=mask.device) for image in images]),)


def transforms_exact(mask: Tensor) -> tuple[Tensor]:
    """The oracle: SciPy in float64, and +inf where it has no answer, without a True pixel."""
    images = [scipy(image) for image in (~mask).cpu().numpy()]
    exact = torch.from_numpy(np.stack(images)).to(mask.device)
    return (torch.where(mask.flatten(1).any(1)[:, None, None], exact, torch.inf),)


def next_clicks(
    prediction: Tensor, target: Tensor, transform: Transform
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps of RITM's Clicker, image by image: both kinds of error, padded, and an arg max."""
    points, labels, valid = [], [], []
    for predicted, truth in zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True):
        counts = truth != -1
        kinds = (truth != 1) & predicted & counts, (truth == 1) & ~predicted & counts
        depths = [transform(np.pad(errors, 1))[1:-1, 1:-1] for errors in kinds]
        deepest = [float(depth.max()) for depth in depths]
        positive = deepest[1] > deepest[0]
        points.append(np.unravel_index(depths[positive].argmax(), truth.shape))
        labels.append(int(positive))
        valid.append(max(deepest) > 0)
    device = target.device
    return (
        torch.tensor(np.array(points), device=device),
        torch.tensor(labels, device=device),
        torch.tensor(valid, device=device),
    )
