"""Samples of the contrast of labelled embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import pixelkernels as pk

from .. import inputs
from ..arguments import (
    Choice,
    Count,
    Features,
    Generator,
    Group,
    How,
    Integer,
    Labels,
    Number,
)
from ..op import Call, Case, Memory, Op, Sizes, dims
from .similarity import MIB
from .similarity import SIZES as IMAGES

BANK = ("bank", "bank_labels")


@dataclass(frozen=True)
class RowLabels(Labels):
    """Labels of rows, -1 among them; a label may be on one side alone."""

    shape: str = "N"
    classes: str | int | None = "L"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        if how.nothing:
            return torch.full(shape, -1)
        return inputs.random_labels(*shape, low=-1, high=how.dims["L"] + seed % 2, seed=seed)


def ignored_rows(call: Call) -> dict[str, Tensor]:
    sides = {"anchors": "anchor_labels", "bank": "bank_labels"}
    return {
        name: call.arguments[labels] == -1
        for name, labels in sides.items()
        if name in call.arguments
    }


def contrast_terms(call: Call) -> dict[str, float]:
    """A loss is a difference of a logsumexp and similarities, which are rounded in proportion to
    the largest of them; so are the weights of the embeddings in a gradient, whose sum over all
    pairs is at most 2 / temperature for each anchor."""
    options = call.arguments
    anchors = options["anchors"].double()
    bank = options.get("bank", anchors).double()
    if not anchors.numel() or not bank.numel():
        return {}
    temperature = options.get("temperature", 0.1)
    factor = temperature / options.get("base_temperature", temperature)
    lengths = [float(x.square().sum(1).max().sqrt()) for x in (anchors, bank)]
    largest = 1 + lengths[0] * lengths[1] / temperature
    weight = 2 * factor / temperature * largest
    if options.get("reduction") in ("sum", "none"):
        weight *= len(anchors)
    return {
        "value": factor * largest,
        "gradient in anchors": weight * lengths[1],
        "gradient in bank": weight * lengths[0],
    }


def contrast_memory(call: Call) -> Memory:
    rows = 4 * sum(x.numel() for name, x in call.tensors.items() if "labels" not in name)
    return Memory(2 * rows + 16 * MIB, 4 * rows + 40 * MIB)


pixel_contrast_loss = Op(
    pk.pixel_contrast_loss,
    {
        "anchors": Features("ND", 0.4),
        "anchor_labels": RowLabels("N"),
        "bank": Features("MD", 0.4, optional=True),
        "bank_labels": RowLabels("M", optional=True),
        "temperature": Number((0.1, 1, 0.7), positive=True),
        "base_temperature": Number((0.07, 1), positive=True),
        "denominator": Choice(("negatives", "all")),
        "ignore_index": Integer((-1, 1, 255)),
        "reduction": Choice(("mean", "sum", "none")),
        "group": Group(),
    },
    {
        "bank": Case({"temperature": 0.5}, BANK),
        "": Case({"temperature": 0.7}),
        "all": Case({"denominator": "all", "temperature": 0.7}),
        "bank-all": Case({"denominator": "all", "reduction": "sum"}, BANK),
        "losses": Case({"reduction": "none", "base_temperature": 0.07}, BANK),
    },
    Sizes(
        tiny=dims("N7 M9 D3 L2"),
        small=(dims("N70 M200 D21 L3"), dims("N5 M450 D140 L7"), dims("N130 M3 D0 L2")),
        ordinary=(
            dims("N1 M1 D1 L1"),
            dims("N97 M193 D515 L3"),
            dims("N1700 M800 D9 L40"),
            dims("N300 M5000 D33 L2"),
        ),
        threads=dims("N200 M3000 D40 L5"),
        # the matrix of all pairs would take 0.5 GB
        large=dims("N4096 M32768 D8 L9"),
        empty=({"N": 0}, {"M": 0, "N": 1}),
    ),
    quick=("bank", "all"),
    bad={
        "a bank without labels": (
            ValueError,
            "^bank_labels: expected bank and bank_labels, or neither",
            {"bank_labels": None},
        ),
        "bank of other channels": (
            ValueError,
            r"^bank: expected shape \[M, 3\] as anchors, got \[9, 4\]",
            {"bank": torch.zeros(9, 4), "bank_labels": torch.zeros(9, dtype=torch.int64)},
        ),
        "bank of another dtype": (
            TypeError,
            "^bank: expected .*float64",
            {
                "bank": torch.zeros(9, 3, dtype=torch.float64),
                "bank_labels": torch.zeros(9, dtype=torch.int64),
            },
        ),
        "anchors of an image": (
            ValueError,
            r"^anchors: expected shape \[N, D\]",
            {"anchors": torch.zeros(1, 3, 2)},
        ),
    },
    module=pk.PixelContrastLoss,
    keeps_layout=False,
    terms=contrast_terms,
    memory=contrast_memory,
    ignored=ignored_rows,
)

sample_anchors = Op(
    pk.sample_anchors,
    {
        "features": Features("BDHW"),
        "labels": Labels("BHW", "L"),
        "prediction": Labels("BHW", "L"),
        "max_samples": Count("n"),
        "max_views": Integer((1, 2, 7, 100, 10**6)),
        "ignore_index": Integer((-1, 0, 2, 2**40)),
        "generator": Generator(),
    },
    {
        "": Case({"max_views": 1}),
        "few views": Case({"max_views": 3, "ignore_index": 0}, nothing=()),
    },
    IMAGES._replace(tiny={**IMAGES.tiny, "n": 9}),
    bad={
        "no views": (ValueError, "^max_views: expected at least 1, got 0", {"max_views": 0}),
        "no cuda": (pk.BackendUnavailable, "no cuda implementation", {"backend": "cuda"}),
    },
    draws=True,
    keeps_layout=False,
    once_differentiable=False,
    nothing=(0, -1),
    ignored=lambda call: {
        "features": call.arguments["labels"] == call.arguments.get("ignore_index", -1)
    },
)

OPS = (pixel_contrast_loss, sample_anchors)
