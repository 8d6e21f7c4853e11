"""Samples of the regions family."""

from __future__ import annotations

import torch
from torch import Tensor

import pixelkernels as pk

from ..arguments import (
    Choice,
    Count,
    Features,
    Flag,
    Group,
    Integer,
    Labels,
    Number,
    ObjectLabels,
    Option,
    Weights,
)
from ..op import Call, Case, Memory, Op, Sizes, cotangent, dims

SIZES = Sizes(
    tiny=dims("B2 C2 H4 W5 R3 X6 Y7"),
    small=(
        dims("B2 C16 H24 W23 R2 X40 Y11"),
        dims("B2 C3 H13 W21 R20 X13 Y21"),
        dims("B2 C70 H11 W19 R5 X4 Y50"),
        dims("B2 C150 H5 W9 R3 X5 Y9"),
        dims("B2 C0 H4 W5 R3 X6 Y7"),
    ),
    ordinary=(
        dims("B2 C2 H5 W7 R2 X9 Y9"),
        dims("B2 C21 H20 W33 R300 X60 Y66"),
    ),
    threads=dims("B2 C19 H70 W130 R20 X100 Y50"),
    large=dims("B4 C32 H256 W256 R1000 X512 Y512"),
)
MIB = 1 << 20


def loss_terms(call: Call) -> dict[str, float]:
    """A loss is a difference of variances and distances, which grow with the channels."""
    return {"value": call.first.shape[1]}


def memory(call: Call) -> Memory:
    """Block partials forward, the gradient and they backward: nothing larger than the features."""
    return Memory(0.5 * call.first.nbytes + 8 * MIB, 1.5 * call.first.nbytes + 8 * MIB)


def ignored(call: Call) -> dict[str, Tensor]:
    """Pixels whose label is none of the regions, or negative in a mask."""
    (features, *_), (labels, *_) = call.named(Features), call.named(Labels).values()
    outside = labels < 0
    if "num_regions" in call.arguments:
        outside = outside | (labels >= call.arguments["num_regions"])
    ignored = call.arguments.get("ignore_index")
    return {features: outside if ignored is None else outside | (labels == ignored)}


region_stats = Op(
    pk.region_stats,
    {
        "features": Features(),
        "labels": Labels(),
        "num_regions": Count("R"),
        "group": Group(),
    },
    {"": Case()},
    SIZES,
    nothing=(0, 0, 0),
    # a mean is as exact as its terms, which cancel
    terms=lambda call: {"mean": float(call.first.abs().max()) if call.first.numel() else 0.0},
    memory=memory,
    ignored=ignored,
)

cas_loss = Op(
    pk.cas_loss,
    {
        "descriptors": Features(),
        "labels": Labels(),
        "num_regions": Count("R"),
        "alpha": Number((0.0, 0.3, 1, -2.0)),
        "variant": Choice(("paper", "released")),
        "divisor": Number((40, 0.5)),
    },
    {
        "paper": Case({"alpha": 0.3}),
        "released": Case({"variant": "released", "divisor": 40}, dims={"R": 2}),
    },
    SIZES,
    bad={
        "divisor of the paper": (ValueError, "^divisor: expected None", {"divisor": 4}),
        "divisor zero": (
            ValueError,
            "^divisor",
            {"variant": "released", "divisor": 0, "num_regions": 2},
        ),
        "regions of the release": (ValueError, "^num_regions: expected 2", {"variant": "released"}),
    },
    module=pk.CASLoss,
    dependent=("variant", "divisor"),
    terms=loss_terms,
    memory=memory,
    ignored=ignored,
)

# where rounding may change which pixels are mined, and so the loss
MINING = "rounding may change which pixels are mined"


def metric_expression_terms(call: Call) -> dict[str, float]:
    """The gradient is proportional to means, which are as exact as their terms.

    Of unit vectors u = f / |f| it is (g - (g . u) u) / |f|, a difference.
    """
    terms = loss_terms(call)
    if call.first.numel():
        features, length = call.first.double(), torch.ones(())
        if call.arguments.get("normalize"):
            length = features.norm(dim=1, keepdim=True)
            features = features / length
        means = pk.region_stats(features, call.arguments["mask"], 2, backend="eager").mean
        cancelled = float(features.square().mean().sqrt() / means.abs().max())
        direct = call.replaced(features=features, normalize=False).results("eager")
        size = float((direct["gradient in features"] / length).abs().max())
        terms["gradient in features"] = size * max(cancelled, 1.0)
    return terms


metric_expression_loss = Op(
    pk.metric_expression_loss,
    {
        "features": Features(),
        "mask": ObjectLabels(),
        "form": Choice(("means", "pairwise")),
        "normalize": Flag(),
        "mining": Choice((None, "hard")),
        "grad": Choice(("exact", "released")),
        # the negative value that a sample has
        "ignore_index": Integer((-1,)),
    },
    {
        "means": Case(),
        "pairwise": Case({"form": "pairwise"}),
        "normalized": Case({"normalize": True}),
        "normalized, pairwise": Case({"normalize": True, "form": "pairwise"}),
        "mined": Case({"mining": "hard"}, unstable=MINING),
        # every image counts, with a value of 4 - 0; the gradient is written by hand
        "released": Case(
            {"grad": "released"}, nothing=(4,), no_images=(0,), gradcheck=None, unstable=MINING
        ),
        "released, normalized": Case(
            {"grad": "released", "normalize": True},
            nothing=(4,),
            no_images=(0,),
            gradcheck=None,
            unstable=MINING,
        ),
    },
    SIZES,
    bad={
        "mined pairwise": (ValueError, "^form.*pairwise", {"form": "pairwise", "mining": "hard"}),
        "released pairwise": (
            ValueError,
            "^form.*pairwise",
            {"form": "pairwise", "grad": "released"},
        ),
    },
    module=pk.MetricExpressionLoss,
    dependent=("form", "mining", "grad"),
    terms=metric_expression_terms,
    memory=memory,
    ignored=ignored,
)

discriminative_loss = Op(
    pk.discriminative_loss,
    {
        "features": Features(),
        "labels": Labels(),
        "num_regions": Count("R"),
        "delta_var": Number((0, 0.1, 2.0), minimum=0),
        "delta_dist": Number((0.0, 1.5, 30.0), minimum=0),
        "weights": Option(((1.0, 1.0, 1e-3), (0.0, 1.0, 0.0), (2, -1, 0.5))),
        "norm": Choice((1, 2)),
        "pixel_weighting": Choice(("cluster", "pixel")),
        "ignore_index": Integer((None, 0, -1, 300, 2**63 - 1, -(2**63))),
    },
    {
        "cluster": Case(),
        "pixel, norm 1": Case(
            {"norm": 1, "pixel_weighting": "pixel", "ignore_index": 0, "delta_var": 0.1}
        ),
    },
    SIZES,
    bad={
        "two weights": (ValueError, "^weights: expected three", {"weights": (1, 2)}),
        "ignore_index": (ValueError, "^ignore_index", {"ignore_index": 10**30}),
    },
    module=pk.DiscriminativeLoss,
    terms=loss_terms,
    memory=memory,
    ignored=ignored,
)


def distance_terms(call: Call) -> dict[str, float]:
    """The gradient in a weight is g . (f - mean) / (sum of weights), where g adds up the gradients
    of all pixels, which cancel. With min-max the nearest and the farthest pixel get the sum of all
    cotangents.
    """
    if not call.first.numel():
        return {}
    distance = call.replaced(normalize=None).outputs("eager")["value"].flatten(1)
    slopes = 2 * distance.sqrt() if call.arguments.get("squared") else torch.ones_like(distance)
    lengths = distance.sqrt() if call.arguments.get("squared") else distance
    pulls = (cotangent(distance).abs() * slopes).sum(1) * lengths.amax(1)
    terms = {"gradient in weights": float((pulls / call.arguments["weights"].sum((1, 2))).max())}
    if call.arguments.get("normalize") is None:
        return terms
    spread = (distance.amax(1) - distance.amin(1)).min()
    largest = float(cotangent(distance).abs().sum() / spread)
    return {"gradient in features": largest, "gradient in weights": largest}


background_distance = Op(
    pk.background_distance,
    {
        "features": Features(),
        "weights": Weights(),
        "squared": Flag(),
        "normalize": Choice((None, "minmax")),
    },
    {
        "": Case(),
        "squared": Case({"squared": True}),
        "minmax": Case({"normalize": "minmax"}),
    },
    SIZES,
    terms=distance_terms,
    memory=memory,
)


def pool_terms(call: Call) -> dict[str, float]:
    """The gradient in a weight is g . (f - mean) / (sum of weights + eps)."""
    features, weights = call.first, call.arguments["weights"]
    if not features.numel() or not weights.numel():
        return {}
    pulls = cotangent(call.outputs("eager")["value"]).abs().sum(1) * float(features.abs().max())
    totals = weights.sum((1, 2))
    terms = (pulls / totals.where(totals > 0, torch.inf)).max()
    return {"gradient in weights": float(terms.nan_to_num(0, 0, 0))}


masked_average_pool = Op(
    pk.masked_average_pool,
    {
        "features": Features(),
        "weights": Weights(),
        "eps": Number((0, 1e-5, 1.0), minimum=0),
        "upsample": Choice((None, "bilinear")),
    },
    {
        "": Case(),
        "upsampled": Case({"upsample": "bilinear"}, arguments={"weights": Weights("BXY")}),
    },
    SIZES,
    dependent=("upsample",),
    terms=pool_terms,
    memory=memory,
    ignored=lambda call: (
        {} if call.arguments.get("upsample") else {"features": call.arguments["weights"] == 0}
    ),
)

compact_labels = Op(
    pk.compact_labels,
    {
        "labels": Labels(),
        "ignore_index": Option((None, 0, (), (-1, 3, 2**63 - 1), (-(2**63),))),
    },
    {"": Case(), "ignoring": Case({"ignore_index": (-1, 1)}, nothing=(-1, 1))},
    SIZES,
    bad={
        "ignore a float": (TypeError, "^ignore_index: expected", {"ignore_index": (0.5,)}),
        "ignore a name": (TypeError, "^ignore_index: expected an int", {"ignore_index": "void"}),
        "ignore too large": (ValueError, "^ignore_index: expected", {"ignore_index": (2**63,)}),
    },
    nothing=(0, 1),
    # the number of regions is an int
    compiles=False,
)

OPS = (
    *(region_stats, cas_loss, metric_expression_loss, discriminative_loss),
    *(background_distance, masked_average_pool, compact_labels),
)
