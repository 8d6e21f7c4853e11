"""The series of benchmarks/scaling.py: what is called, how its inputs grow, what theory says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

import pixelkernels as pk

from .inputs import SEED, Inputs, embeddings, label_map, mask
from .similarity_peers import SCALE, SHIFT
from .workload import BOTH, FORWARD

# On a GPU there are that many times more images, or launches would be all that is seen.
MORE_ON_CUDA = 8
SIDES = (240, 340, 480, 680, 960)
FEWER_SIDES = (120, 170, 240, 340, 480)
POINTS = (200, 400, 800, 1600, 3200)
CANVAS = (480, 480)
REGIONS, CLASSES, OBJECTS = 20, 2, 12
DEPTH = 128  # channels of what is matched
SIGMOID: dict[str, Any] = {
    "transform": "sigmoid",
    "scale": SCALE,
    "shift": SHIFT,
    "reduce": "mean",
}


def _squares(sides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side**2 for side in sides)


@dataclass(frozen=True, eq=False)
class Series:
    """One function at several values of one variable.

    `draw(generator, images, value)` makes the inputs of `call(value, *tensors)`; `fixed` says in
    words what does not vary. `theory` and `memory_theory` are upper bounds of the exponents of time
    and of extra memory.
    """

    name: str
    op: str
    variable: str
    fixed: str
    values: tuple[int, ...]
    draw: Callable[[Generator, int, int], Inputs]
    call: Callable[..., tuple[Tensor, ...]]
    images: int = 1
    mode: str = BOTH
    theory: float = 1
    memory_theory: float = 1

    def images_on(self, device: str) -> int:
        return self.images * (MORE_ON_CUDA if device == "cuda" else 1)

    def bind(self, value: int, device: str) -> Callable[[], object]:
        """Draw the inputs of one value; the call to time, without arguments."""
        generator = Generator().manual_seed(SEED)
        drawn = self.draw(generator, self.images_on(device), value)
        inputs = drawn.to(device, torch.float32).leaves()

        def forward() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return self.call(value, *inputs.tensors)

        if self.mode == FORWARD:
            return forward
        arriving = [torch.ones_like(output) for output in forward()]

        def both() -> tuple[Tensor, ...]:
            outputs = self.call(value, *inputs.tensors)
            return torch.autograd.grad(outputs, inputs.wanted(), arriving)

        return both


def _labelled(generator: Generator, images: int, side: int, channels: int, regions: int) -> Inputs:
    labels = label_map("random", generator, images, side, side, regions)
    return Inputs((embeddings(generator, labels, regions, channels), labels))


def _masks(generator: Generator, images: int, pixels: int) -> Inputs:
    side = math.isqrt(pixels)
    return Inputs((mask("coherent", generator, images, side, side, OBJECTS),), ())


def _errors(generator: Generator, images: int, pixels: int) -> Inputs:
    """Predictions that are shifted copies of their targets."""
    side = math.isqrt(pixels)
    target = label_map("coherent", generator, images, side, side, OBJECTS) < OBJECTS // 2
    return Inputs((target.roll((side // 16, side // 24), (1, 2)), target.int()), ())


def _clicks(generator: Generator, images: int, clicks: int) -> Inputs:
    """Clicks at random pixels, of either label in turn."""
    points = (torch.rand(images, clicks, 2, generator=generator) * torch.tensor(CANVAS)).floor()
    return Inputs((points, (torch.arange(clicks) % 2).repeat(images, 1)), ())


def _matched(generator: Generator, images: int, side: int, points: int) -> Inputs:
    """Frames, and as many points of each class, class by class."""
    frame = label_map("random", generator, images, 1, side**2, CLASSES)
    labels = torch.arange(CLASSES).repeat_interleave(points // CLASSES).repeat(images, 1)
    drawn = embeddings(generator, torch.cat((frame, labels[:, None]), 2), CLASSES, DEPTH)
    query, reference = drawn.flatten(2).split((side**2, points), 2)
    query = query.unflatten(2, (side, side)).contiguous()
    return Inputs((query, reference.contiguous(), labels), (0, 1))


def _pairs(generator: Generator, images: int, pixels: int) -> Inputs:
    labels = label_map("random", generator, images, 2, pixels, 5)
    features = embeddings(generator, labels, 5, DEPTH)
    x, y = (side.contiguous() for side in features.unbind(2))
    return Inputs((x, y, *(side.contiguous() for side in labels.unbind(1))), (0, 1))


def _stats(regions: int, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found = pk.region_stats(features, labels, regions)
    return found.mean, found.variance


def _transfer(_: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(pk.label_transfer(*tensors, CLASSES, **SIGMOID))


def _scores(_: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    return (pk.matching_scores(*tensors, CLASSES, **SIGMOID),)


SERIES: tuple[Series, ...] = (
    Series(
        name="region-stats-pixels",
        op="region_stats",
        variable="HW",
        fixed="C 16, R 20",
        values=_squares(SIDES),
        draw=lambda g, images, pixels: _labelled(g, images, math.isqrt(pixels), 16, REGIONS),
        call=lambda _, *tensors: _stats(REGIONS, *tensors),
        images=4,
    ),
    Series(
        name="region-stats-channels",
        op="region_stats",
        variable="C",
        fixed="240x240, R 20",
        values=(8, 16, 32, 64, 128),
        draw=lambda g, images, channels: _labelled(g, images, 240, channels, REGIONS),
        call=lambda _, *tensors: _stats(REGIONS, *tensors),
        images=8,
    ),
    Series(
        name="region-stats-regions",
        op="region_stats",
        variable="R",
        fixed="240x240, C 16",
        values=(8, 32, 128, 512, 2048),
        draw=lambda g, images, regions: _labelled(g, images, 240, 16, regions),
        call=_stats,
        images=4,
    ),
    Series(
        name="distance-transform-pixels",
        op="distance_transform",
        variable="HW",
        fixed="one object",
        values=_squares(SIDES),
        draw=_masks,
        call=lambda _, inside: (pk.distance_transform(inside),),
        images=8,
        mode=FORWARD,
    ),
    Series(
        name="next-click-pixels",
        op="next_click",
        variable="HW",
        fixed="shifted objects",
        values=_squares(SIDES),
        draw=_errors,
        call=lambda _, *tensors: tuple(pk.next_click(*tensors)),
        images=8,
        mode=FORWARD,
    ),
    Series(
        name="click-maps-clicks",
        op="click_maps",
        variable="n",
        fixed="480x480",
        values=(16, 64, 256, 1024, 4096),
        draw=_clicks,
        call=lambda _, *tensors: (pk.click_maps(*tensors, CANVAS),),
        images=8,
        mode=FORWARD,
    ),
    Series(
        name="label-transfer-points",
        op="label_transfer",
        variable="K",
        fixed="240x240, D 128",
        values=POINTS,
        draw=lambda g, images, points: _matched(g, images, 240, points),
        call=_transfer,
        mode=FORWARD,
    ),
    Series(
        name="label-transfer-pixels",
        op="label_transfer",
        variable="HW",
        fixed="K 400, D 128",
        values=_squares(FEWER_SIDES),
        draw=lambda g, images, pixels: _matched(g, images, math.isqrt(pixels), 400),
        call=_transfer,
        mode=FORWARD,
    ),
    Series(
        name="matching-scores-points",
        op="matching_scores",
        variable="K",
        fixed="120x120, D 128",
        values=POINTS,
        draw=lambda g, images, points: _matched(g, images, 120, points),
        call=_scores,
    ),
    Series(
        name="matching-scores-pixels",
        op="matching_scores",
        variable="HW",
        fixed="K 200, D 128",
        values=_squares(FEWER_SIDES),
        draw=lambda g, images, pixels: _matched(g, images, math.isqrt(pixels), 200),
        call=_scores,
    ),
    Series(
        name="is-triplet-loss-samples",
        op="is_triplet_loss",
        variable="K",
        fixed="448x448, C 64",
        values=(1250, 2500, 5000, 10000, 20000),
        draw=lambda g, images, _: _labelled(g, images, 448, 64, 2),
        call=lambda samples, *tensors: (pk.is_triplet_loss(*tensors, num_samples=samples),),
    ),
    Series(
        name="pair-loss-pixels",
        op="pair_similarity_loss",
        variable="HW",
        fixed="D 128",
        values=(2048, 4096, 8192, 16384, 32768),
        draw=_pairs,
        call=lambda _, *tensors: (pk.pair_similarity_loss(*tensors),),
        theory=2,
    ),
)
