"""Samples of the similarity family."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk
from pixelkernels.similarity import reference as oracle

from ..arguments import (
    Choice,
    Count,
    Element,
    Features,
    Flag,
    Generator,
    Group,
    Integer,
    Labels,
    Number,
    Weights,
)
from ..op import Call, Case, Memory, Op, Sizes, cotangent, dims

# query H x W, reference P x Q, the weights of a reference X x Y
SIZES = Sizes(
    tiny=dims("B2 D5 H2 W3 P3 Q5 X3 Y5 L3 S2 n2"),
    small=(
        dims("B2 D21 H3 W5 P6 Q13 X6 Y13 L3 S2 n9"),
        dims("B1 D16 H9 W30 P3 Q7 X8 Y5 L3 S1 n9"),
        dims("B1 D70 H3 W5 P2 Q5 X2 Y5 L4 S1 n9"),
        dims("B2 D0 H3 W4 P2 Q3 X2 Y3 L2 S1 n5"),
    ),
    ordinary=(
        dims("B1 D1 H1 W1 P1 Q2 X1 Y2 L1 S1 n1"),
        dims("B2 D5 H1 W1000 P1 Q7 X1 Y7 L4 S1 n5"),
        dims("B1 D515 H4 W30 P6 Q23 X6 Y23 L3 S1 n20"),
        dims("B1 D9 H3 W50 P30 Q30 X15 Y40 L70 S1 n2"),
        dims("B2 D33 H14 W19 P40 Q29 X40 Y29 L4 S3 n99"),
    ),
    threads=dims("B2 D9 H40 W50 P30 Q70 X30 Y70 L4 S1 n50"),
    # the matrix of all pairs would take 0.6 GB
    large=dims("B1 D8 H80 W160 P80 Q160 L4 n100"),
    empty=({"B": 0}, {"H": 0}, {"P": 0, "X": 0}),
)
MIB = 1 << 20
METRICS = ("dot", "cosine", "sqeuclidean")
TRANSFORMS = ("identity", "sigmoid", "exp")
REDUCES = ("sum", "mean", "max", "min", "topk", "softmax")


def worst(metric: str, scale: float) -> float:
    """The score of a class without points."""
    return torch.inf if metric == "sqeuclidean" and scale > 0 else -torch.inf


def matching_case(metric: str, transform: str, reduce: str) -> Case:
    """Scale and shift are tensors. The scale of every other combination is below 0."""
    codes = METRICS.index(metric) + TRANSFORMS.index(transform) + REDUCES.index(reduce)
    scale = -0.3 if codes % 2 else 0.3
    if (metric, transform) == ("sqeuclidean", "exp"):
        scale *= 0.1  # the exponential of a large distance is no float16
    k = {"k": 3} if reduce == "topk" else {}
    return Case(
        {"metric": metric, "transform": transform, "reduce": reduce, **k},
        given=("scale", "shift"),
        arguments={"scale": Element("", scale, or_number=True)},
        nothing=(worst(metric, scale),),
    )


def matching_terms(call: Call) -> dict[str, float]:
    """A score adds up the points of a class one after the other, in float32: a few roundings more
    than eager's pairwise sum. The gradients in scale and shift add up terms of all pairs, which
    cancel.
    """
    options = call.arguments
    query, points, labels = (options[name] for name in ("query", "reference", "labels"))
    results = call.results("eager")
    scores = next(x for name, x in results.items() if name != "labels")
    if not scores.numel() or not labels.numel():
        return {}
    pairs = oracle.similarity(
        query.double().flatten(2), points.double().flatten(2), options.get("metric", "dot")
    )
    terms = float(cotangent(scores).abs().sum() * (1 + pairs.abs().max()))
    if options.get("reduce", "sum") == "sum":
        terms *= labels[0].numel() / options["num_classes"]
    scale, shift = float(options.get("scale", 1.0)), float(options.get("shift", 0.0))
    is_exp = options.get("transform") == "exp"
    slope = float((scale * pairs + shift).exp().max()) if is_exp else 1.0
    terms *= slope
    condition = matching_condition(call, pairs)
    largest = 4 * condition * float(scores.where(scores.isfinite(), 0).abs().max())
    found = {"value": largest, "scores": largest}
    # of a squared distance: q times the sum of the slopes, less the sum of the slopes times p
    parts = 2 if options.get("metric") == "sqeuclidean" else 1
    for name, own, other in (("query", query, points), ("reference", points, query)):
        gradient = results[f"gradient in {name}"]
        if gradient.numel():
            size = float(gradient.abs().max())
            weight = abs(scale) * slope * float(cotangent(scores).abs().max())
            if options.get("reduce") == "softmax":  # a difference: one point has no gradient
                size = max(size, weight * float(other.abs().max()))
            if options.get("metric") == "cosine":  # a difference: parallel features have none
                lengths = own.double().flatten(2).norm(dim=1).clamp(min=1e-12)
                size = max(size, weight / float(lengths.min()))
            found[f"gradient in {name}"] = parts * condition * size
    for name in ("scale", "shift"):
        found[f"gradient in {name}"] = condition * terms
    return found


def matching_condition(call: Call, pairs: Tensor) -> float:
    """How many times its own rounding f(scale s + shift) is uncertain, for the rounding of s.

    The sums of s have terms of size t, so the argument has terms of size a = |scale| t + |shift|.
    The relative slope of a sigmoid or an exponential is at most 1, so f is as uncertain as a. A
    softmax is twice as uncertain as its exponent f is in absolute numbers.
    """
    options = call.arguments
    scale, shift = float(options.get("scale", 1.0)), float(options.get("shift", 0.0))
    terms = float(pairs.abs().max())
    if options.get("metric") == "sqeuclidean":  # |q|^2 + |p|^2 - 2 q.p
        query, points = (options[name].double().square().sum(1) for name in ("query", "reference"))
        terms = 2 * float(query.max() + points.max())
    terms = abs(scale) * terms + abs(shift)
    transform = options.get("transform", "identity")
    if options.get("reduce") != "softmax":
        return 1 if transform == "identity" else 1 + terms
    exponent = {
        "identity": terms,
        "sigmoid": 1 + terms / 4,
        "exp": float((scale * pairs + shift).exp().max()) * (1 + terms),
    }
    return 1 + 2 * exponent[transform]


def matching_memory(call: Call) -> Memory:
    query, points = call.arguments["query"], call.arguments["reference"]
    scores = 4 * call.arguments["num_classes"] * query[:, 0].numel()
    # int64 labels and their order take as much as two channels each
    forward = query.nbytes + points.nbytes + 3 * scores + 8 * MIB
    return Memory(forward, 10 * query.nbytes + 32 * MIB)


def other_labels(call: Call) -> dict[str, Tensor]:
    labels = call.arguments["labels"]
    features = "reference" if "reference" in call.arguments else "features"
    return {features: (labels < 0) | (labels >= call.arguments["num_classes"])}


MATCHING = {
    "query": Features("BDHW", 0.4),
    "reference": Features("BDPQ", 0.4),
    "labels": Labels("BPQ", "L"),
    "num_classes": Count("L"),
    "metric": Choice(METRICS),
    "transform": Choice(TRANSFORMS),
    "scale": Element("", 0.3, or_number=True, choices=(1.0, 0.1, -0.3, 3, 0)),
    "shift": Element("", -0.2, or_number=True, choices=(0.0, 0.5, -1)),
    "reduce": Choice(REDUCES),
    "k": Integer((1, 2, 3, 7, 64, 10**6, 2**62)),
    "group": Group(),
}
GIVEN = {
    "scale and shift are numbers": Case(
        {"metric": "sqeuclidean", "reduce": "topk", "k": 3, "scale": 0.3, "shift": -0.2},
        nothing=(torch.inf,),
    ),
    "points without a grid": Case(
        {"transform": "sigmoid", "reduce": "mean"},
        arguments={
            "query": Features("BDW", 0.4),
            "reference": Features("BDQ", 0.4),
            "labels": Labels("BQ", "L"),
        },
    ),
}
MATCHING_BAD: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "k missing": (ValueError, "^k: expected .*None", {"reduce": "topk"}),
    "k without topk": (ValueError, "^k: expected .*3", {"reduce": "sum", "k": 3}),
    "k zero": (ValueError, "^k: expected at least 1", {"reduce": "topk", "k": 0}),
    "k too large": (ValueError, "^k: expected", {"reduce": "topk", "k": 2**63}),
    "reference of another dtype": (
        TypeError,
        "^reference: expected .*float32.*float64",
        {"reference": torch.zeros(2, 5, 3, 5, dtype=torch.float64)},
    ),
    "no cuda": (pk.BackendUnavailable, "no cuda implementation", {"backend": "cuda"}),
}

matching_scores = Op(
    pk.matching_scores,
    MATCHING,
    {"-".join(names): matching_case(*names) for names in product(METRICS, TRANSFORMS, REDUCES)}
    | GIVEN,
    SIZES,
    quick=(
        *("cosine-sigmoid-mean", "dot-identity-sum", "sqeuclidean-identity-min", "dot-exp-softmax"),
        *("cosine-identity-topk", "dot-sigmoid-max", "sqeuclidean-sigmoid-sum", *GIVEN),
    ),
    bad=MATCHING_BAD,
    dependent=("reduce", "k"),
    nothing=(-torch.inf,),
    terms=matching_terms,
    memory=matching_memory,
    ignored=other_labels,
)

label_transfer = Op(
    pk.label_transfer,
    MATCHING,
    {
        "nearest": Case({"metric": "sqeuclidean", "reduce": "min"}, nothing=(-1, torch.inf)),
        "best of each class": Case({"metric": "cosine", "reduce": "topk", "k": 3}),
        "affine": Case({"reduce": "sum"}, ("scale", "shift")),
    },
    SIZES,
    module=pk.LabelTransfer,
    dependent=("reduce", "k"),
    nothing=(-1, -torch.inf),
    terms=matching_terms,
    memory=matching_memory,
    ignored=other_labels,
)

sample_reference = Op(
    pk.sample_reference,
    {
        "features": Features("BDHW"),
        "labels": Labels("BHW", "L"),
        "num_classes": Count("L"),
        "num_per_class": Count("n"),
        "generator": Generator(),
    },
    {"": Case()},
    SIZES._replace(large=dims("B2 D64 H256 W256 L5 n100"), interpreted=dims("B2 D3 H33 W31 L2 n7")),
    draws=True,
    keeps_layout=False,
    once_differentiable=False,
    nothing=(0, -1),
    memory=lambda call: Memory(
        8 * call.arguments["labels"].numel() + 4 * MIB,
        8 * call.arguments["labels"].numel() + 2 * call.arguments["features"].nbytes + 4 * MIB,
    ),
    ignored=other_labels,
)


def masked_support(call: Call) -> dict[str, Tensor]:
    support, weights = call.arguments["support"], call.arguments["weights"]
    if call.arguments.get("reduce") == "softmax" or weights.shape[-2:] != support.shape[-2:]:
        return {}
    return {"support": weights == 0}


def prior_terms(call: Call) -> dict[str, float]:
    """A weight scales both sides of a cosine: its gradient is what is left of two terms that are as
    large as the cotangent divided by the weight. With min-max the least and the largest score get
    the sum of all cotangents, and the range is a difference of scores.
    """
    if not all(x.numel() for x in call.tensors.values()):
        return {}
    # a softmax adds up the points one after the other
    roundings = 4 if call.arguments.get("reduce") == "softmax" else 1
    if not call.arguments.get("normalize", "minmax"):
        largest = float(call.outputs("eager")["value"].abs().max())
        return {"value": roundings * largest, "gradient in weights": 2 / 0.1}
    raw = call.replaced(normalize=None).outputs("eager")["value"].flatten(1)
    spread = float((raw.amax(1) - raw.amin(1)).min()) + 1e-7
    condition = roundings * float(raw.abs().max()) / spread
    terms = float(cotangent(raw).abs().sum()) / spread * (1 + condition)
    found = {"value": condition, "gradient in weights": terms / 0.1}
    # a cosine's gradient is a difference of terms of 1 / length
    for name, x in call.named(Features).items():
        length = float(x.double().norm(dim=-3).clamp(1e-7, 1).min())
        found[f"gradient in {name}"] = terms / length
    return found


def prior_memory(call: Call) -> Memory:
    query, support = call.arguments["query"], call.arguments["support"]
    both = 3 * (query.nbytes + support.nbytes)
    # packed, and for matrix tiles in three terms of two bytes each
    packed = support[0].nbytes * 5 // 2
    return Memory(packed + 4 * MIB, both + 12 * MIB)


SHOTS = {"support": Features("BSDPQ", 0.4), "weights": Weights("BSXY")}
prior_mask = Op(
    pk.prior_mask,
    {
        "query": Features("BDHW", 0.4),
        "support": Features("BDPQ", 0.4),
        "weights": Weights("BXY"),
        "eps": Number((0, 1e-7, 1.0), minimum=0),
        "minmax_eps": Number((1e-7, 1), minimum=0),
        "reduce": Choice(("max", "softmax")),
        "normalize": Choice(("minmax", None)),
    },
    {
        "": Case(),
        "raw": Case({"normalize": None}),
        # a weight of 0 enters the softmax, and has a gradient
        "softmax": Case({"reduce": "softmax", "normalize": None}, nothing=()),
        "shots": Case(arguments=SHOTS),
        "softmax of shots": Case({"reduce": "softmax"}, arguments=SHOTS, nothing=()),
    },
    SIZES._replace(large=dims("B2 D512 H60 W60 P60 Q60 X60 Y60 S2")),
    bad={
        "support of another dtype": (
            TypeError,
            "^support: expected",
            {"support": torch.zeros(2, 5, 3, 5, dtype=torch.float16)},
        ),
        "weights without shots": (
            ValueError,
            r"^weights: expected .*\[2, 3, 'H', 'W'\]",
            {"support": torch.zeros(2, 3, 5, 3, 5)},
        ),
        "empty weights": (
            ValueError,
            r"^weights: expected a size .*got \[0, 3\]",
            {"weights": torch.zeros(2, 0, 3)},
        ),
        "no shots": (
            ValueError,
            "^support: expected at least one shot",
            {"support": torch.zeros(2, 0, 5, 3, 5), "weights": torch.zeros(2, 0, 3, 5)},
        ),
    },
    module=pk.PriorMask,
    keeps_layout=False,
    terms=prior_terms,
    memory=prior_memory,
    ignored=masked_support,
)


def invalid_pixels(call: Call) -> dict[str, Tensor]:
    return {name: call.arguments[f"{name}_labels"] < 0 for name in ("x", "y")}


RUNNING = ("running_mean", "running_var")
pair_similarity_loss = Op(
    pk.pair_similarity_loss,
    {
        "x": Features("BDHW"),
        "y": Features("BDPQ"),
        "x_labels": Labels("BHW", None),
        "y_labels": Labels("BPQ", None),
        "weight": Element("1", 1.3),
        "bias": Element("1", -0.4),
        "running_mean": Element("1", 0.3, buffer=True),
        "running_var": Element("1", 2.0, buffer=True),
        "training": Flag(),
        "momentum": Number((0, 0.1, 1.0), minimum=0),
        "eps": Number((1e-5, 1, 0.1), minimum=0),
        "group": Group(),
    },
    {
        "affine": Case(given=("weight", "bias")),
        "": Case(),
        "running": Case(given=("weight", "bias", *RUNNING), nothing=(0, 0.3, 2.0)),
        "evaluation": Case(
            {"training": False, "eps": 0.1}, ("weight", "bias", *RUNNING), nothing=(0, 0.3, 2.0)
        ),
    },
    # torch's products of larger matrices are rounded by the number of threads
    SIZES._replace(large={**SIZES.large, "D": 128}, threads=dims("B2 D19 H9 W11 P5 Q14")),
    bad={
        "y of another dtype": (
            TypeError,
            "^y: expected .*float64",
            {"y": torch.zeros(2, 5, 3, 5, dtype=torch.float64)},
        ),
        "one running statistic": (
            ValueError,
            "running_mean and running_var",
            {"running_mean": torch.ones(1)},
        ),
        "evaluation without statistics": (
            ValueError,
            "^running_mean: expected .*training=False",
            {"training": False},
        ),
    },
    dependent=("training",),
    keeps_layout=False,
    terms=lambda call: {"gradient in bias": 1.0},
    memory=lambda call: Memory(
        2.5 * sum(call.arguments[name].nbytes for name in "xy") + 32 * MIB,
        2.5 * sum(call.arguments[name].nbytes for name in "xy") + 32 * MIB,
    ),
    ignored=invalid_pixels,
)

OPS = (matching_scores, label_transfer, sample_reference, prior_mask, pair_similarity_loss)
