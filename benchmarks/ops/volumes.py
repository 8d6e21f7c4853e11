"""The workloads of distances in volumes, and their peers.

edt and SciPy measure distances to zero voxels. Masks of volumes: "blobs", smooth noise above a
threshold; "random", 1 % of the voxels; "nuclei", a ball in every cell of a grid. Labels: "nuclei",
one of each ball; "cells", one of each cell, without background.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import pixelkernels as pk
from benchmarks.inputs import Inputs
from benchmarks.ops.distance import Transform, edt, scipy
from benchmarks.workload import BOTH, FORWARD, Floor, Peer, Workload, as_tuple, size

Shape = tuple[int, int, int]
MASKS = ("blobs", "random", "nuclei")
BLOB_SIDE = 16  # voxels
# of a cell with a nucleus, and the radius of the nucleus
NUCLEUS_SIDE, NUCLEUS_RADIUS = 24, 7


def volume(variant: str, generator: torch.Generator, shape: Shape) -> Tensor:
    """A bool mask of this shape."""
    match variant:
        case "blobs":
            coarse = [side // BLOB_SIDE + 2 for side in shape]
            noise = torch.rand(1, 1, *coarse, generator=generator)
            return F.interpolate(noise, size=shape, mode="trilinear")[0, 0] > 0.6
        case "random":
            return torch.rand(shape, generator=generator) < 0.01
        case "nuclei":
            cells = [side // NUCLEUS_SIDE + 1 for side in shape]
            # whole nuclei, and one even in the smallest volumes of the tests
            room = NUCLEUS_SIDE - 2 * NUCLEUS_RADIUS
            centres = NUCLEUS_RADIUS + torch.rand(3, *cells, generator=generator) * room
            where = torch.meshgrid(*(torch.arange(side) for side in shape), indexing="ij")
            cell = tuple(axis // NUCLEUS_SIDE for axis in where)
            offsets = (x % NUCLEUS_SIDE - c[cell] for x, c in zip(where, centres, strict=True))
            return sum(x.square() for x in offsets) < NUCLEUS_RADIUS**2
        case _:
            raise ValueError(f"variant: unknown mask {variant!r}")


def labels_of(variant: str, generator: torch.Generator, shape: Shape) -> Tensor:
    """An int32 label for every voxel of this shape, 0 for the background."""
    label = torch.ones((), dtype=torch.int32)
    for axis, side in enumerate(shape):
        cell = (torch.arange(side, dtype=torch.int32) // NUCLEUS_SIDE).view(
            [-1 if i == axis else 1 for i in range(3)]
        )
        label = label * (int(cell.max()) + 1) + cell
    if variant == "cells":
        return label + 1
    return label * volume(variant, generator, shape)


def transforms(mask: Tensor, transform: Transform) -> tuple[Tensor]:
    results = [transform(volume).astype(np.float32, copy=False) for volume in ~mask.numpy()]
    return (torch.from_numpy(results[0][None] if len(results) == 1 else np.stack(results)),)


def label_transforms(labels: Tensor) -> tuple[Tensor]:
    import edt as package

    threads = torch.get_num_threads()
    results = [package.edt(volume, parallel=threads) for volume in labels.numpy()]
    return (torch.from_numpy(np.stack(results)),)


def labels_by_scipy(labels: Tensor) -> tuple[Tensor]:
    """The distance in each label's mask, within its bounding box and a voxel around it."""
    from scipy import ndimage

    distances = torch.zeros(labels.shape)
    for volume, out in zip(labels.cpu().numpy(), distances.numpy(), strict=True):
        for label, box in enumerate(ndimage.find_objects(volume), 1):
            if box is not None:
                around = tuple(slice(max(x.start - 1, 0), x.stop + 1) for x in box)
                inside = volume[around] == label
                exact = scipy(inside) if not inside.all() else np.inf
                out[around] = np.where(inside, exact, out[around])
    return (distances.to(labels.device),)


def transforms_cupy(mask: Tensor) -> tuple[Tensor]:
    import cupy
    from cupyx.scipy import ndimage

    volumes = [
        ndimage.distance_transform_edt(cupy.asarray(volume), float64_distances=False)
        for volume in ~mask
    ]
    return (torch.stack([torch.as_tensor(volume, device=mask.device) for volume in volumes]),)


def scipy_with_indices(image: Any) -> Any:
    from scipy import ndimage

    distances, _ = ndimage.distance_transform_edt(image, return_indices=True)
    return distances


def _draw(
    variant: str,
    generator: torch.Generator,
    shrink: int,
    *,
    shape: Shape,
    make: Callable[[str, torch.Generator, Shape], Tensor] = volume,
) -> Inputs:
    depth, height, width = (side // shrink for side in shape)
    return Inputs((make(variant, generator, (depth, height, width))[None],), differentiable=())


def _floor(inputs: Inputs, mode: str, *, written: int) -> Floor:
    """Reads the mask, writes `written` bytes per voxel, one operation per voxel."""
    (mask,) = inputs.tensors
    return Floor(mask.nbytes + written * mask.numel(), mask.numel())


def _oracle(mask: Tensor) -> tuple[Tensor]:
    """SciPy in float64, and +inf in volumes without a True voxel."""
    exact = torch.from_numpy(np.stack([scipy(one) for one in (~mask).cpu().numpy()]))
    found = mask.flatten(1).any(1).view(-1, 1, 1, 1)
    return (torch.where(found, exact.to(mask.device), torch.inf),)


def _transform(shape: Shape, source: str, **more: Any) -> Workload:
    return Workload(
        name=f"distance-transform-{size(shape)}",
        title=f"distance transform, {size(shape)}",
        family="distance",
        op="distance_transform",
        source=source,
        draw=partial(_draw, shape=shape),
        library=as_tuple(pk.distance_transform, spatial_dims=3),
        peers={
            "edt": Peer(partial(transforms, transform=edt), devices=("cpu",), package="edt"),
            "SciPy": Peer(partial(transforms, transform=scipy), devices=("cpu",), package="scipy"),
            "CuPy": Peer(
                transforms_cupy,
                synchronizes=True,
                devices=("cuda",),
                package="cupy",
                own_memory=True,
            ),
        },
        floor=partial(_floor, written=4),
        variants=MASKS,
        modes=(FORWARD,),
        oracle=_oracle,
        slow=("eager",),
        **more,
    )


def _label_distance(shape: Shape, source: str) -> Workload:
    return Workload(
        name=f"labels-{size(shape)}",
        title=f"distance transform of labels, {size(shape)}",
        family="distance",
        op="distance_transform",
        source=source,
        draw=partial(_draw, shape=shape, make=labels_of),
        library=as_tuple(pk.distance_transform, spatial_dims=3, multilabel=True),
        peers={"edt": Peer(label_transforms, devices=("cpu",), package="edt")},
        floor=partial(_floor, written=4),
        variants=("nuclei", "cells"),
        modes=(FORWARD,),
        oracle=labels_by_scipy,
        slow=("eager",),
    )


def _nearest(mask: Tensor, backend: str | None) -> tuple[Tensor]:
    # SciPy takes another one of equally near voxels, so the distances are compared
    return (
        pk.distance_transform(mask, spatial_dims=3, return_indices=True, backend=backend).distances,
    )


def _nearest_true(shape: Shape, source: str) -> Workload:
    return Workload(
        name=f"nearest-{size(shape)}",
        title=f"distance transform with indices, {size(shape)}",
        family="distance",
        op="distance_transform",
        source=source,
        draw=partial(_draw, shape=shape),
        library=_nearest,
        peers={
            "SciPy": Peer(
                partial(transforms, transform=scipy_with_indices),
                devices=("cpu",),
                package="scipy",
            )
        },
        floor=partial(_floor, written=16),
        variants=MASKS,
        modes=(FORWARD,),
        oracle=_oracle,
        slow=("eager",),
    )


def hausdorff_as_monai(prediction: Tensor, target: Tensor, transform: Transform) -> tuple[Tensor]:
    """The steps of MONAI's HausdorffDTLoss, channel by channel and image by image."""
    losses = []
    for channel in range(prediction.shape[1]):
        p, t = prediction[:, channel], target[:, channel]
        error = (p - t).square()
        distance = _boundary_field(p, transform).square() + _boundary_field(t, transform).square()
        losses.append((error * distance).flatten(1).mean(1))
    return (torch.stack(losses).mean(),)


def _boundary_field(values: Tensor, transform: Transform) -> Tensor:
    """The distances to the voxels on the other side of 0.5; 0 where all are on one side."""
    field = torch.zeros_like(values)
    for own, one in zip(field, values.detach() > 0.5, strict=True):
        if one.any() and not one.all():
            inside = one.numpy()
            own += torch.from_numpy(transform(inside) + transform(~inside))
    return field


def _draw_predictions(
    variant: str, generator: torch.Generator, shrink: int, *, shape: tuple[int, ...]
) -> Inputs:
    """Probabilities that are right at most voxels, and masks."""
    batch, channels, *space = shape
    depth, height, width = (side // shrink for side in space)
    masks = [volume(variant, generator, (depth, height, width)) for _ in range(batch * channels)]
    target = torch.stack(masks).view(batch, channels, depth, height, width).float()
    noise = torch.rand(target.shape, generator=generator)
    return Inputs((0.6 * noise + 0.4 * target, target))


def _hausdorff_floor(inputs: Inputs, mode: str) -> Floor:
    """Reads prediction and target; for the gradient, keeps a slope per voxel, reads and writes."""
    prediction, target = inputs.tensors
    backward = 3 * prediction.nbytes if mode == BOTH else 0
    operations = 4 * target.numel() if mode == BOTH else 3 * target.numel()
    return Floor(prediction.nbytes + target.nbytes + backward, operations)


def _hausdorff_loss() -> Workload:
    shape = (4, 2, 96, 96, 96)
    by_scipy = partial(hausdorff_as_monai, transform=scipy)
    return Workload(
        name="hausdorff-loss-96",
        title=f"Hausdorff loss, {size(shape)}",
        family="distance",
        op="hausdorff_loss",
        source="MONAI",
        draw=partial(_draw_predictions, shape=shape),
        library=as_tuple(pk.hausdorff_loss, include_background=True),
        peers={
            "SciPy as MONAI": Peer(by_scipy, devices=("cpu",), package="scipy"),
            "edt as MONAI": Peer(
                partial(hausdorff_as_monai, transform=edt), devices=("cpu",), package="edt"
            ),
        },
        floor=_hausdorff_floor,
        variants=("blobs",),
        modes=(BOTH,),
        oracle=by_scipy,
        slow=("eager",),
    )


WORKLOADS: tuple[Workload, ...] = (
    _transform((256, 256, 256), "microscopy"),
    _transform((128, 512, 512), "computed tomography"),
    _label_distance((256, 256, 256), "microscopy"),
    _nearest_true((256, 256, 256), "microscopy"),
    _hausdorff_loss(),
)
