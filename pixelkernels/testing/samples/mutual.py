"""Samples of mutual matches and of the loss that trains them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import pixelkernels as pk

from .. import inputs
from ..arguments import Choice, Features, How, Integer, Mask, Number, TensorKind, Weights, wide
from ..op import Call, Case, Memory, Op, Sizes, cotangent, dims

MIB = 1 << 20
MASKS = ("mask_a", "mask_b")


@dataclass(frozen=True)
class Descriptors(Features):
    """Features without a gradient."""

    differentiable = False


@dataclass(frozen=True)
class MatchRows(TensorKind):
    """Image and pixels of random matches; some recur, and some are outside."""

    shape: str = "K3"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        counts = [how.dims["B"], *(how.dims[x] * how.dims[y] for x, y in ("HW", "PQ"))]
        if how.nothing or 0 in counts:
            return torch.full(shape, -1)
        columns = [
            inputs.random_labels(shape[0], high=count, seed=seed + place)
            for place, count in enumerate(counts)
        ]
        rows = torch.stack(columns, 1)
        rows[5::7] = rows[4::7][: len(rows[5::7])]
        rows[3::7, seed % 3] = -1
        rows[6::7, (seed + 1) % 3] = max(counts)
        return rows


@dataclass(frozen=True)
class MatchWeights(Weights):
    """A weight per match. Its gradient is the loss of the match, which has a gradient of its own,
    unlike the gradients of the features."""

    shape: str = "K"
    differentiable = False

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        w = 0.1 + 0.9 * torch.rand(shape, dtype=torch.float64, generator=generator)
        if not how.smooth:
            w[1::4] = 0
        return (0 * w if how.nothing else w).to(wide(how.dtype))


def largest_similarity(call: Call) -> float:
    """Above that of any pair, in units of what s is rounded to."""
    lengths = [call.arguments[x].double().square().sum(1).max().sqrt() for x in "ab"]
    return float(lengths[0] * lengths[1]) / call.arguments.get("temperature", 0.1)


def match_terms(call: Call) -> dict[str, float]:
    """The logarithm of a confidence is a difference of similarities and their logsumexps."""
    if not all(call.arguments[x].numel() for x in "ab"):
        return {}
    largest = largest_similarity(call)
    if call.arguments.get("mode") == "nearest":
        return {"confidence": largest * call.arguments.get("temperature", 0.1)}
    return {"confidence": 1 + 4 * largest}


def loss_terms(call: Call) -> dict[str, float]:
    """As above; a loss changes by at most alpha (1 + gamma) times its logarithm's change, and the
    weights of the features in a gradient are four, in units of the scale, for each match."""
    options = call.arguments
    if not all(options[x].numel() for x in (*"ab", "matches")):
        return {}
    slope = options.get("alpha", 0.25) * (1 + options.get("gamma", 2.0))
    slope *= 1 + 4 * largest_similarity(call)
    if options.get("reduction", "mean") == "sum":
        slope *= len(options["matches"])
    if options.get("reduction", "mean") == "none":
        slope *= float(cotangent(options["matches"][:, 0].float()).abs().max())
    lengths = {x: float(options[x].double().square().sum(1).max().sqrt()) for x in "ab"}
    by_features = 4 * slope / options.get("temperature", 0.1)
    if options.get("reduction", "mean") == "none":
        by_features *= len(options["matches"])
    return {
        "value": slope,
        "gradient in a": by_features * lengths["b"],
        "gradient in b": by_features * lengths["a"],
    }


def memory(call: Call) -> Memory:
    rows = 4 * sum(call.arguments[x].numel() for x in "ab")
    pixels = sum(call.arguments[x][:, 0].numel() for x in "ab")
    return Memory(3 * rows + 64 * pixels + 16 * MIB, 8 * rows + 64 * pixels + 40 * MIB)


def masked_pixels(call: Call) -> dict[str, Tensor]:
    return {x: ~call.arguments[f"mask_{x}"] for x in "ab" if f"mask_{x}" in call.arguments}


# a H x W, b P x Q, K matches
SIZES = Sizes(
    tiny=dims("B2 D5 H3 W4 P4 Q3 K9"),
    small=(
        dims("B2 D21 H5 W7 P6 Q13 K20"),
        dims("B1 D70 H9 W17 P3 Q7 K9"),
        dims("B2 D0 H3 W4 P4 Q3 K5"),
    ),
    ordinary=(
        dims("B1 D1 H1 W1 P1 Q2 K1"),
        dims("B2 D5 H1 W1000 P1 Q7 K20"),
        dims("B1 D515 H4 W30 P6 Q23 K200"),
        dims("B2 D33 H40 W50 P60 Q31 K3000"),
    ),
    threads=dims("B2 D33 H30 W40 P30 Q41 K500"),
    # the matrix of all pairs would take 0.6 GB
    large=dims("B1 D8 H100 W128 P100 Q128 K1000"),
    empty=({"B": 0}, {"H": 0}, {"P": 0}, {"K": 0}),
)
POINTS = {"a": "BDW", "b": "BDQ"}
mutual_matches = Op(
    pk.mutual_matches,
    {
        "a": Descriptors("BDHW"),
        "b": Descriptors("BDPQ"),
        "temperature": Number((0.1, 1, 0.7), positive=True),
        "threshold": Number((0.2, 0, 0.01, -1)),
        "mode": Choice(("dual_softmax", "nearest")),
        "mask_a": Mask("BHW", optional=True),
        "mask_b": Mask("BPQ", optional=True),
        "border": Integer((0, 1, 2)),
    },
    {
        "": Case({"threshold": 0.01}, nothing=()),
        "nearest": Case({"mode": "nearest", "threshold": 0.1}, nothing=()),
        "masks": Case({"temperature": 0.7, "threshold": 1e-3}, MASKS),
        "one mask": Case({"mode": "nearest", "threshold": -1.0}, MASKS[:1]),
        "border": Case({"border": 1, "threshold": 1e-3}, nothing=()),
        "border and masks": Case({"border": 1, "threshold": 1e-3}, MASKS),
        "points": Case(
            {"temperature": 0.7, "threshold": 0.0},
            arguments={name: Descriptors(shape) for name, shape in POINTS.items()},
            nothing=(),
        ),
    },
    SIZES,
    quick=("", "nearest", "border and masks"),
    bad={
        "b of another dtype": (
            TypeError,
            "^b: expected .*float64",
            {"b": torch.zeros(2, 5, 3, 5, dtype=torch.float64)},
        ),
        "a border of points": (
            ValueError,
            r"^b: expected shape \[B, D, H, W\] with a border, got \[2, 5, 7\]",
            {"b": torch.zeros(2, 5, 7), "border": 1},
        ),
        "a negative border": (ValueError, "^border: expected at least 0", {"border": -1}),
        "a negative mask": (
            ValueError,
            "^mask_a: expected no negative value, got -1",
            {"mask_a": torch.full((2, 3, 4), -1)},
        ),
    },
    # a border needs rows and columns
    dependent=("border",),
    # the number of matches depends on the values
    compiles=False,
    nothing=(0, 0, 0, 0),
    terms=match_terms,
    memory=memory,
)

dual_softmax_loss = Op(
    pk.dual_softmax_loss,
    {
        "a": Features("BDHW", 0.6),
        "b": Features("BDPQ", 0.6),
        "matches": MatchRows(),
        "temperature": Number((0.1, 1, 0.7), positive=True),
        "alpha": Number((0.25, 1, 0), minimum=0),
        "gamma": Number((2.0, 0, 1, 0.5), minimum=0),
        "mask_a": Mask("BHW", optional=True),
        "mask_b": Mask("BPQ", optional=True),
        "weights": MatchWeights(optional=True),
        "reduction": Choice(("mean", "sum", "none")),
    },
    {
        "": Case({"temperature": 1.0}),
        "cross entropy": Case({"alpha": 1.0, "gamma": 0.0, "temperature": 0.7}),
        "masks": Case({"temperature": 1.0, "reduction": "sum"}, MASKS),
        "weights": Case({"temperature": 0.7, "reduction": "none"}, ("weights",)),
    },
    SIZES,
    quick=("", "masks"),
    bad={
        "b of another dtype": (
            TypeError,
            "^b: expected .*float64",
            {"b": torch.zeros(2, 5, 3, 5, dtype=torch.float64)},
        ),
    },
    keeps_layout=False,
    terms=loss_terms,
    memory=memory,
    ignored=masked_pixels,
)

OPS = (mutual_matches, dual_softmax_loss)
