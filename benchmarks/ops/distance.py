"""The workloads of the distance family, which has no gradients, and their peers.

Click maps take points [B, 2 n, 2] and labels [B, 2 n] in slots, as RITM does: n slots for positive
clicks, then n for negative ones. Unused slots are at (-1, -1) with label -1. Of the canvas [H, W]
only the size matters. OpenCV, edt and SciPy measure distances to zero pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pixelkernels as pk
from benchmarks.inputs import Inputs, label_map, mask
from benchmarks.workload import FORWARD, Floor, Peer, Workload, as_tuple, size, with_compiled

TRUNCATE = 255.0
RADIUS = 5.0  # of RITM's tanh maps
# RITM's squared distance to an unused slot
FAR = 1e6

Encode = Callable[[Tensor], Tensor]
# maps a bool image to the distances of its True pixels from the nearest False one, which it writes
# to the float32 array `out` if it is given
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
    """The distances to all slots, [B, 2, n, H, W], then their minimum."""
    rows, columns = _axes(points, canvas)
    row, column = points[..., None, None].unbind(2)
    squared = (rows - row).square() + (columns - column).square()
    squared = torch.where(labels[..., None, None] >= 0, squared, torch.inf)
    return (encode(squared.unflatten(1, (2, -1)).amin(2)),)


def running_minimum(
    points: Tensor, labels: Tensor, canvas: Tensor, encode: Encode
) -> tuple[Tensor]:
    """Slot by slot, with two maps per image in memory; in float64, the oracle."""
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
    """The steps of RITM's DistMaps: offsets of every pixel from every slot, computed in place.

    A negative point marks an unused slot. Distances are in units of `radius`.
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
    """Map by map: the distance transform of an image that is zero at the clicks."""
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
    """Image by image in NumPy; writes into the batch where the transform can, to save a copy."""
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
    """The oracle: SciPy in float64, and +inf in images without a True pixel."""
    images = [scipy(image) for image in (~mask).cpu().numpy()]
    exact = torch.from_numpy(np.stack(images)).to(mask.device)
    return (torch.where(mask.flatten(1).any(1)[:, None, None], exact, torch.inf),)


def next_clicks(
    prediction: Tensor, target: Tensor, transform: Transform
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps of RITM's Clicker, image by image: the argmax of both padded transforms."""
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


CELLS = 12
# Typical masks first, then worst cases of various algorithms.
MASKS = ("coherent", "random", "full", "single", "diagonal", "checkerboard", "empty")

_EDT = {
    "OpenCV precise": Peer(partial(transforms, transform=opencv), devices=("cpu",), package="cv2"),
    "edt": Peer(partial(transforms, transform=edt), devices=("cpu",), package="edt"),
    "SciPy": Peer(partial(transforms, transform=scipy), devices=("cpu",), package="scipy"),
    "CuPy": Peer(
        transforms_cupy, synchronizes=True, devices=("cuda",), package="cupy", own_memory=True
    ),
}


def _draw_clicks(
    variant: str,
    generator: torch.Generator,
    shrink: int,
    *,
    shape: tuple[int, int, int],
    slots: int,
    least: int,
) -> Inputs:
    """Clicks at random pixels: between `least` and `slots` of each label."""
    batch, height, width = shape
    canvas = torch.zeros(1, 1, dtype=torch.bool).expand(height // shrink, width // shrink)
    sides = torch.tensor(canvas.shape)
    points = (torch.rand(batch, 2, slots, 2, generator=generator) * sides).floor()
    count = torch.randint(least, slots + 1, (batch, 2, 1), generator=generator)
    used = torch.arange(slots) < count
    labels = torch.where(used, torch.tensor([1, 0])[:, None], -1)
    points = torch.where(used[..., None], points, -1)
    return Inputs((points.flatten(1, 2), labels.flatten(1, 2), canvas), differentiable=())


def _draw_masks(
    variant: str, generator: torch.Generator, shrink: int, *, shape: tuple[int, int, int]
) -> Inputs:
    batch, height, width = shape
    drawn = mask(variant, generator, batch, height // shrink, width // shrink, CELLS)
    return Inputs((drawn,), differentiable=())


def _draw_predictions(
    variant: str, generator: torch.Generator, shrink: int, *, shape: tuple[int, int, int]
) -> Inputs:
    """Objects with an ignored region, and predictions: a shifted copy ("coherent"), or wrong at 1 %
    of the pixels ("random").
    """
    batch, height, width = (shape[0], *(side // shrink for side in shape[1:]))
    cells = label_map("coherent", generator, batch, height, width, CELLS)
    target = torch.where(cells == 0, -1, (cells < CELLS // 2).int())
    if variant == "coherent":
        predicted = (target == 1).roll((max(height // 16, 1), max(width // 24, 1)), (1, 2))
    else:
        predicted = (target == 1) ^ mask(variant, generator, batch, height, width, CELLS)
    return Inputs((predicted, target), differentiable=())


def _floor(inputs: Inputs, mode: str, *, read: bool, written: int) -> Floor:
    """Reads the inputs if `read`, writes `written` bytes per pixel, one operation per pixel."""
    images = inputs.tensors if read else ()
    batch = len(inputs.tensors[0])
    pixels = batch * inputs.tensors[-1].shape[-2:].numel()
    return Floor(sum(image.nbytes for image in images) + written * pixels, pixels)


def _click_maps(
    name: str, shape: tuple[int, int, int], slots: int, least: int, encoding: str, **more: Any
) -> Workload:
    """`slots` positive and `slots` negative clicks, of which at least `least` each are used."""
    is_tanh = encoding == "tanh"
    encode = tanh if is_tanh else truncated
    radius = RADIUS if is_tanh else None

    def library(
        points: Tensor, labels: Tensor, canvas: Tensor, backend: str | None
    ) -> tuple[Tensor]:
        options = {"encoding": encoding, "radius": radius, "backend": backend}
        return (pk.click_maps(points, labels, tuple(canvas.shape), **options),)

    def by_ritm(points: Tensor, labels: Tensor, canvas: Tensor) -> tuple[Tensor]:
        if not is_tanh:
            return ritm(points, labels, canvas, 1.0, truncated)
        return ritm(points, labels, canvas, RADIUS, lambda d2: torch.tanh(2 * d2.sqrt()))

    one_by_one = partial(running_minimum, encode=encode)
    alternatives = with_compiled(broadcast=partial(broadcast, encode=encode))
    alternatives["eager running minimum"] = Peer(one_by_one)
    alternatives["eager as RITM"] = Peer(by_ritm, synchronizes=True)
    if not is_tanh:
        alternatives["OpenCV precise"] = Peer(opencv_clicks, devices=("cpu",), package="cv2")
    batch, height, width = shape
    return Workload(
        name=name,
        title=f"click maps, {encoding}, {batch} x {2 * slots} clicks, {size((height, width))}",
        family="distance",
        op="click_maps",
        draw=partial(_draw_clicks, shape=shape, slots=slots, least=least),
        library=library,
        peers=alternatives,
        floor=partial(_floor, read=False, written=2 * 4),
        variants=("random",),
        modes=(FORWARD,),
        oracle=one_by_one,
        slow=("eager",),
        **more,
    )


def _distance_transform(name: str, shape: tuple[int, int, int], **more: Any) -> Workload:
    return Workload(
        name=name,
        title=f"distance transform, {size(shape)}",
        family="distance",
        op="distance_transform",
        draw=partial(_draw_masks, shape=shape),
        library=as_tuple(pk.distance_transform),
        peers=_EDT,
        floor=partial(_floor, read=True, written=4),
        variants=MASKS,
        modes=(FORWARD,),
        oracle=transforms_exact,
        slow=("eager",),
        **more,
    )


def _next_click() -> Workload:
    shape = (28, 320, 480)

    by_scipy = partial(next_clicks, transform=scipy)
    return Workload(
        name="next-click",
        title=f"next click, {size(shape)}",
        family="distance",
        op="next_click",
        source="RITM's evaluation protocol",
        draw=partial(_draw_predictions, shape=shape),
        library=pk.next_click,
        peers={
            "OpenCV precise as RITM": Peer(
                partial(next_clicks, transform=opencv), devices=("cpu",), package="cv2"
            ),
            "SciPy": Peer(by_scipy, devices=("cpu",), package="scipy"),
        },
        floor=partial(_floor, read=True, written=0),
        modes=(FORWARD,),
        quick=True,
        oracle=by_scipy,
        slow=("eager",),
    )


_RITM = (28, 320, 480), 24, 12

WORKLOADS: tuple[Workload, ...] = (
    _click_maps("click-maps-ritm-tanh", *_RITM, "tanh", source="RITM", quick=True),
    _click_maps("click-maps-ritm-euclidean", *_RITM, "euclidean", source="Xu et al.", quick=True),
    _click_maps("click-maps-4k", (1, 2160, 3840), 10, 10, "euclidean", source="Xu et al."),
    _click_maps("click-maps-many", (2, 480, 854), 200, 200, "euclidean", source="Xu et al."),
    _distance_transform("distance-transform-davis", (16, 480, 854), source="DAVIS", quick=True),
    _distance_transform("distance-transform-4k", (1, 2160, 3840), source="4K video"),
    _next_click(),
)
