"""Samples of the functions on distances to boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import pixelkernels as pk

from ..arguments import (
    Choice,
    Features,
    Flag,
    How,
    Labels,
    Mask,
    Mistake,
    Number,
    Option,
)
from ..op import Call, Case, Memory, Op, Sizes, dims

SIZES = Sizes(
    tiny=dims("B2 C2 H6 W9"),
    small=(
        dims("B2 C3 H3 W20"),
        dims("B1 C2 H9 W1"),
    ),
    ordinary=(
        dims("B1 C1 H1 W1"),
        dims("B1 C2 H1057 W1"),
        dims("B2 C3 H33 W17"),
    ),
    threads=dims("B4 C3 H140 W150"),
    large=dims("B8 C4 H256 W256"),
    empty=({"B": 0}, {"H": 0}, {"W": 0}),
)
MIB = 1 << 20
# of a chunk, at 32 bytes per pixel
CHUNK = 34 * MIB
# in units of the budget of a float64 result
FLOAT32 = 2.0**-22 / 1e-11


@dataclass(frozen=True)
class Prediction(Features):
    """Scores around the threshold; 0 where there is nothing to compute from."""

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        values = super().values(how, seed, *shape)
        return 0 * values if how.nothing else values


@dataclass(frozen=True)
class ClassLabels(Labels):
    """Labels of C classes, and some outside."""

    classes: str | int | None = None

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        return Labels(self.shape, how.dims["C"]).values(how, seed, *shape)


@dataclass(frozen=True)
class ClassMasks(Mask):
    """A mask for every class."""

    shape: str = "BCHW"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        images, channels, *space = shape
        return super().values(how, seed, images * channels, *space).view(shape)


@dataclass(frozen=True)
class SoftMasks(ClassMasks):
    """Masks that may be floating point as well."""

    wrong_dtype: ClassVar[torch.dtype] = torch.complex64

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        yield from super().mistakes(name, value, known)
        narrow = value.to(torch.float8_e4m3fn)
        yield Mistake("float8", TypeError, f"^{name}: expected .*float8", narrow)


signed_distance = Op(
    pk.signed_distance,
    {
        "mask": Mask(),
        "spatial_dims": Choice((2, 3)),
        "sampling": Option((None, (0.5, 2), (1e-9, 3.7))),
        "boundary": Choice(("edges", "inner")),
    },
    {
        "edges": Case(),
        "inner": Case({"boundary": "inner"}),
        "sampling": Case({"sampling": (1.5, 0.7)}),
        # the images as the planes of one
        "volume": Case({"spatial_dims": 3}),
        "volume, inner": Case(
            {"spatial_dims": 3, "boundary": "inner", "sampling": (2.0, 0.5, 1.0)}
        ),
    },
    SIZES,
    bad={
        "sampling of a volume": (ValueError, "^sampling: expected 2", {"sampling": (1, 1, 1)}),
        "sampling zero": (ValueError, "^sampling: expected", {"sampling": (0, 1)}),
    },
    quick=("edges", "volume, inner"),
    dependent=("spatial_dims", "sampling"),
    memory=lambda call: Memory(4 * call.first.numel() + CHUNK),
)


def target_of(call: Call) -> Tensor:
    """The masks of the target, bool."""
    prediction, target = call.first, call.arguments["target"]
    if target.dim() == prediction.dim():
        return target
    return target[:, None] == torch.arange(prediction.shape[1])[:, None, None]


def rounded_terms(call: Call) -> dict[str, float]:
    """Distances with `sampling` are float32, whose rounding exceeds the budget of float64."""
    if call.first.dtype != torch.float64 or not call.arguments.get("sampling"):
        return {}
    found = call.results("eager")
    return {name: FLOAT32 * float(x.abs().max()) for name, x in found.items() if x.numel()}


def boundary_terms(call: Call) -> dict[str, float]:
    """Distances inside and outside cancel."""
    if not call.first.numel():
        return {}
    sampling = call.arguments.get("sampling")
    products = pk.signed_distance(target_of(call), sampling=sampling) * call.first
    terms = rounded_terms(call)
    size = float(products.abs().flatten(2).mean(2).max())
    return {**terms, "value": size * (FLOAT32 if terms else 1)}


boundary_loss = Op(
    pk.boundary_loss,
    {
        "probabilities": Prediction(),
        "target": ClassMasks(),
        "classes": Option((None,)),
        "sampling": Option((None, (0.5, 2), (1e-3, 3.7))),
        "reduction": Choice(("mean", "sum", "none")),
    },
    {
        "masks": Case(),
        "labels": Case(
            {"classes": [1], "reduction": "sum"},
            arguments={"target": ClassLabels()},
            dims={"C": 2},
        ),
        "sampling": Case({"sampling": (1.5, 0.7), "reduction": "none"}),
    },
    SIZES,
    bad={
        "class unknown": (ValueError, "^classes: expected numbers below", {"classes": [0, 2]}),
        "class a float": (TypeError, "^classes: expected an int", {"classes": [0.5]}),
        "class alone": (TypeError, "^classes: expected a list", {"classes": 1}),
        "sampling of a volume": (ValueError, "^sampling: expected 2", {"sampling": (1, 1, 1)}),
    },
    module=pk.BoundaryLoss,
    quick=("masks",),
    keeps_layout=False,
    once_differentiable=False,
    terms=boundary_terms,
    memory=lambda call: Memory(9 * call.first.numel() + CHUNK, 13 * call.first.numel() + CHUNK),
)

hausdorff_loss = Op(
    pk.hausdorff_loss,
    {
        "prediction": Prediction(),
        "target": SoftMasks(),
        "alpha": Number((0, 1, 2.0, 2.5), minimum=0),
        "include_background": Flag(),
        "batch": Flag(),
        "reduction": Choice(("mean", "sum", "none")),
        "sampling": Option((None, (0.5, 2), (1e-3, 3.7))),
    },
    {
        # a program on eager leaves the number of channels open where all enter
        "all": Case({"include_background": True}),
        "masks": Case(),
        "labels": Case(
            {"alpha": 1.5},
            arguments={"target": ClassLabels()},
            dims={"C": 2},
        ),
        "sampling": Case({"sampling": (1.5, 0.7), "batch": True, "reduction": "none"}),
    },
    SIZES,
    bad={
        "sampling of a volume": (ValueError, "^sampling: expected 2", {"sampling": (1, 1, 1)}),
        "alpha infinite": (ValueError, "^alpha: expected a finite", {"alpha": float("inf")}),
    },
    module=pk.HausdorffLoss,
    quick=("all", "masks"),
    keeps_layout=False,
    terms=rounded_terms,
    memory=lambda call: Memory(4 * call.first.numel() + CHUNK, 8 * call.first.numel() + CHUNK),
)

OPS = (signed_distance, boundary_loss, hausdorff_loss)
