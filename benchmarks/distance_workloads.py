"""The workloads of the distance family: nothing in it has a gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk

from . import distance_peers as peers
from .inputs import Inputs, label_map, mask
from .peers import Peer, with_compiled
from .workload import FORWARD, Floor, Workload, size

CELLS = 12
# Masks of ordinary pictures first, then those that some method of transforming is slow on.
MASKS = ("coherent", "random", "full", "single", "diagonal", "checkerboard", "empty")

_EDT = {
    "OpenCV precise": Peer(
        partial(peers.transforms, transform=peers.opencv), devices=("cpu",), package="cv2"
    ),
    "edt": Peer(partial(peers.transforms, transform=peers.edt), devices=("cpu",), package="edt"),
    "SciPy": Peer(
        partial(peers.transforms, transform=peers.scipy), devices=("cpu",), package="scipy"
    ),
    "CuPy": Peer(
        peers.transforms_cupy, waits=True, devices=("cuda",), package="cupy", own_memory=True
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
    """Clicks at random pixels: of each label as many as there are slots, or at least `least`."""
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
    """Objects with a cell to ignore, and predictions of them.

    A prediction is a shifted copy ("coherent") or wrong at 1 % of the pixels ("random").
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
    """The inputs where they are images, `written` bytes per pixel, and one operation per value."""
    images = inputs.tensors if read else ()
    batch = len(inputs.tensors[0])
    pixels = batch * inputs.tensors[-1].shape[-2:].numel()
    return Floor(sum(image.nbytes for image in images) + written * pixels, pixels)


def _click_maps(
    name: str, shape: tuple[int, int, int], slots: int, least: int, encoding: str, **more: Any
) -> Workload:
    """`slots` for positive and as many for negative clicks, `least` of each used."""
    tanh = encoding == "tanh"
    encode = peers.tanh if tanh else peers.truncated
    radius = peers.RADIUS if tanh else None

    def library(
        points: Tensor, labels: Tensor, canvas: Tensor, backend: str | None
    ) -> tuple[Tensor]:
        height, width = canvas.shape
        maps = pk.click_maps(
            points, labels, (height, width), encoding=encoding, radius=radius, backend=backend
        )
        return (maps,)

    def by_broadcast(points: Tensor, labels: Tensor, canvas: Tensor) -> tuple[Tensor]:
        return peers.broadcast(points, labels, canvas, encode)

    def by_ritm(points: Tensor, labels: Tensor, canvas: Tensor) -> tuple[Tensor]:
        if not tanh:
            return peers.ritm(points, labels, canvas, 1.0, peers.truncated)
        return peers.ritm(
            points, labels, canvas, peers.RADIUS, lambda d2: torch.tanh(2 * d2.sqrt())
        )

    running_minimum = partial(peers.running_minimum, encode=encode)
    alternatives = with_compiled(broadcast=by_broadcast)
    alternatives["eager running minimum"] = Peer(running_minimum)
    alternatives["eager as RITM"] = Peer(by_ritm, waits=True)
    if not tanh:
        alternatives["OpenCV precise"] = Peer(peers.opencv_clicks, devices=("cpu",), package="cv2")
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
        oracle=running_minimum,
        slow=("eager",),
        **more,
    )


def _distance_transform(name: str, shape: tuple[int, int, int], **more: Any) -> Workload:
    def library(drawn: Tensor, backend: str | None) -> tuple[Tensor]:
        return (pk.distance_transform(drawn, backend=backend),)

    return Workload(
        name=name,
        title=f"distance transform, {size(shape)}",
        family="distance",
        op="distance_transform",
        draw=partial(_draw_masks, shape=shape),
        library=library,
        peers=_EDT,
        floor=partial(_floor, read=True, written=4),
        variants=MASKS,
        modes=(FORWARD,),
        oracle=peers.transforms_exact,
        slow=("eager",),
        **more,
    )


def _next_click() -> Workload:
    shape = (28, 320, 480)

    def library(prediction: Tensor, target: Tensor, backend: str | None) -> tuple[Tensor, ...]:
        return tuple(pk.next_click(prediction, target, backend=backend))

    by_scipy = partial(peers.next_clicks, transform=peers.scipy)
    return Workload(
        name="next-click",
        title=f"next click, {size(shape)}",
        family="distance",
        op="next_click",
        source="RITM's evaluation protocol",
        draw=partial(_draw_predictions, shape=shape),
        library=library,
        peers={
            "OpenCV precise as RITM": Peer(
                partial(peers.next_clicks, transform=peers.opencv), devices=("cpu",), package="cv2"
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
