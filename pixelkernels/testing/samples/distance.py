"""Samples of the distance family."""

from __future__ import annotations

import torch
from torch import Tensor

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels.distance import reference

from ..arguments import (
    Choice,
    ClickLabels,
    Count,
    Flag,
    Generator,
    Integer,
    Mask,
    Number,
    ObjectLabels,
    Option,
    Points,
    Size,
)
from ..op import Call, Case, Memory, Op, Sizes, dims

SIZES = Sizes(
    tiny=dims("B2 N5 H6 W9 P2 Q2"),
    small=(
        dims("B2 N40 H3 W70 P2 Q3"),
        dims("B1 N5 H20 W1 P1 Q1"),
    ),
    ordinary=(
        dims("B1 N1 H1 W1 P1 Q1"),
        dims("B1 N5 H1057 W1 P1 Q1"),
        dims("B2 N12 H7 W15 P1 Q1"),
        dims("B2 N1 H33 W17 P3 Q4"),
        dims("B3 N300 H50 W97 P3 Q4"),
    ),
    threads=dims("B4 N12 H140 W150 P6 Q7"),
    large=dims("B16 N300 H512 W512 P3 Q3"),
    empty=({"B": 0}, {"H": 0}, {"W": 0}, {"N": 0}),
)
MIB = 1 << 20
NOWHERE = 2**31 - 1


def result_alone(call: Call) -> Memory:
    return Memory(sum(x.nbytes for x in call.outputs().values()) + 4 * MIB)


def result_and_changes(call: Call) -> Memory:
    """Of labels, a byte for each pixel says where they change."""
    changes = call.arguments["mask"].numel() if call.arguments.get("multilabel") else 0
    return Memory(result_alone(call).forward + changes)


def exact_maps(call: Call) -> Tensor:
    """The maps of points in float64, which the function rounds to float32."""
    given = call.arguments
    points, labels, size = given["points"].double(), given["labels"], given["size"]
    truncate = given.get("truncate", 255.0)
    depth, height, width = (1, *size)[-3:]
    maps = reference.click_maps(
        points,
        labels.long(),
        depth,
        height,
        width,
        given.get("encoding", "euclidean"),
        given.get("radius") or 0.0,
        torch.inf if truncate is None else truncate,
    )
    return maps


click_maps = Op(
    pk.click_maps,
    {
        "points": Points(),
        "labels": ClickLabels(),
        "size": Size(),
        "spatial_dims": Choice((2, 3)),
        "encoding": Choice(("euclidean", "disk", "tanh", "gaussian")),
        "radius": Option((0.5, 1, 6.5, 260, 1e-30, 1e-300, 1e30, 1e300)),
        "truncate": Number((None, 0, 5, 255.0, float("inf"), 1e300), minimum=0),
    },
    {
        "euclidean": Case({"truncate": 30.0}, nothing=(30,)),
        "whole": Case({"truncate": None}, nothing=(torch.inf,)),
        "disk": Case({"encoding": "disk", "radius": 6.5}),
        "tanh": Case({"encoding": "tanh", "radius": 20.0}, nothing=(1,)),
        "gaussian": Case({"encoding": "gaussian", "radius": 9.0}),
        "volume": Case(
            {"spatial_dims": 3, "truncate": 30.0},
            arguments={"points": Points("BN3"), "size": Size("ZHW")},
            dims={"Z": 3},
            nothing=(30,),
        ),
    },
    SIZES,
    bad={
        "radius missing": (
            ValueError,
            "^radius: expected .*None",
            {"encoding": "disk", "truncate": 255.0},
        ),
        "radius zero": (ValueError, "^radius: expected", {"encoding": "tanh", "radius": 0}),
        "radius too large": (
            ValueError,
            "^radius: expected",
            {"encoding": "disk", "radius": 10**400},
        ),
        "radius of a distance": (ValueError, "^radius: expected None", {"radius": 3}),
    },
    module=pk.ClickMaps,
    numpy=pkn.click_maps,
    dependent=("spatial_dims", "encoding", "radius"),
    memory=result_alone,
    oracle=exact_maps,
)

distance_transform = Op(
    pk.distance_transform,
    {
        "mask": Mask(),
        "spatial_dims": Choice((2, 3)),
        "squared": Flag(),
        "sampling": Option((None, (0.5, 2), (1e-9, 3.7))),
        "multilabel": Flag(),
        "black_border": Flag(),
        "return_indices": Flag(),
    },
    {
        "": Case(),
        "squared": Case({"squared": True}, nothing=(NOWHERE,)),
        "sampling": Case({"sampling": (1.5, 0.7)}),
        # the batch is one volume
        "volume": Case({"spatial_dims": 3}),
        "border": Case({"black_border": True}, nothing=()),
        "labels": Case({"multilabel": True}, nothing=(0,)),
        "labels in a volume": Case(
            {
                "spatial_dims": 3,
                "multilabel": True,
                "black_border": True,
                "sampling": (2.5, 0.5, 0.7),
            },
            nothing=(0,),
        ),
        "nearest": Case({"return_indices": True}, nothing=(torch.inf, -1)),
        "nearest in a volume": Case(
            {"spatial_dims": 3, "sampling": (2.5, 0.5, 0.7), "return_indices": True},
            nothing=(torch.inf, -1),
        ),
    },
    SIZES,
    bad={
        "sampling of squares": (
            ValueError,
            "^sampling: expected",
            {"squared": True, "sampling": (1, 1)},
        ),
        "sampling zero": (ValueError, "^sampling: expected", {"sampling": (0, 1)}),
        "sampling too large": (ValueError, "^sampling: expected", {"sampling": (1.0, 1e300)}),
        "sampling a number": (TypeError, "^sampling: expected", {"sampling": 2.0}),
        "sampling of a volume": (ValueError, "^sampling: expected 2", {"sampling": (1, 1, 1)}),
        "sampling too anisotropic": (
            ValueError,
            "^sampling: expected quotients",
            {"sampling": (1, 1025), "return_indices": True},
        ),
        "indices of labels": (
            ValueError,
            "^multilabel: expected False",
            {"multilabel": True, "return_indices": True},
        ),
        "indices beyond the border": (
            ValueError,
            "^black_border: expected False",
            {"black_border": True, "return_indices": True},
        ),
        "no volume": (
            ValueError,
            r"^mask: expected shape \[..., D, H, W\]",
            {"mask": torch.zeros(3, 4, dtype=torch.bool), "spatial_dims": 3},
        ),
    },
    numpy=pkn.distance_transform,
    dependent=(
        "spatial_dims",
        "squared",
        "sampling",
        "multilabel",
        "black_border",
        "return_indices",
    ),
    nothing=(torch.inf,),
    memory=result_and_changes,
)

expand_labels = Op(
    pk.expand_labels,
    {
        "labels": Mask(),
        "distance": Number((0, 1, 2.5, 1e300), minimum=0),
        "spatial_dims": Choice((2, 3)),
        "sampling": Option((None, (0.5, 2))),
    },
    {
        "": Case({"distance": 3}),
        "sampling": Case({"distance": 2.5, "sampling": (0.5, 0.7)}),
        "volume": Case(
            {"distance": 2, "spatial_dims": 3},
            arguments={"labels": Mask("BZHW")},
            dims={"Z": 2},
        ),
    },
    SIZES,
    dependent=("spatial_dims", "sampling"),
    memory=lambda call: Memory(
        sum(x.nbytes for x in call.outputs().values())
        + (4 if call.arguments["labels"].dim() == 3 else 8) * call.arguments["labels"].numel()
        + 4 * MIB
    ),
)

next_click = Op(
    pk.next_click,
    {
        "prediction": Mask(),
        "target": ObjectLabels(),
        "spatial_dims": Choice((2, 3)),
        "not_clicked": Mask(optional=True),
        # the negative value that a sample has
        "ignore_index": Integer((-1,)),
        "random": Flag(),
        "generator": Generator(),
    },
    {
        "": Case(),
        "not clicked": Case({}, ("not_clicked",)),
        "random": Case({"random": True}),
        "volume": Case(
            {"spatial_dims": 3},
            arguments={"prediction": Mask("BZHW"), "target": ObjectLabels("BZHW")},
            dims={"Z": 3},
        ),
    },
    SIZES,
    numpy=pkn.next_click,
    dependent=("spatial_dims",),
    draws=True,
    nothing=(0, 0, 0),
    memory=lambda call: Memory(
        9 * MIB
        + (2 if call.arguments["target"].dim() == 3 else 14) * call.arguments["target"].numel()
    ),
)

simulate_clicks = Op(
    pk.simulate_clicks,
    {
        "target": Mask(),
        "num_positive": Count("P", minimum=0),
        "num_negative": Count("Q", minimum=0),
        "spatial_dims": Choice((2, 3)),
        "others": Mask(optional=True),
        "strategy": Choice(("background", "objects", "boundary", "mixed")),
        "margin": Number((0, 1.5, 5, 1e300), minimum=0),
        "spacing": Number((0.0, 3, 10, float("inf")), minimum=0),
        "band": Number((0, 4.2, 40, float("inf")), minimum=0),
        "generator": Generator(),
    },
    {
        strategy: Case(
            {"strategy": strategy, "margin": 1, "spacing": 3, "band": 8},
            ("others",) if strategy in ("objects", "mixed") else (),
        )
        for strategy in ("mixed", "background", "objects", "boundary")
    }
    | {
        "volume": Case(
            {"spatial_dims": 3, "strategy": "boundary", "margin": 1, "spacing": 2, "band": 8},
            arguments={"target": Mask("BZHW")},
            dims={"Z": 3},
        )
    },
    SIZES,
    # a volume takes half a minute in Triton's interpreter
    quick=("mixed", "background", "objects", "boundary"),
    dependent=("spatial_dims",),
    draws=True,
    # an empty target leaves the whole image to negative clicks
    nothing=(),
    memory=lambda call: Memory(40 * call.arguments["target"].numel() + 4 * MIB),
)

OPS = (click_maps, distance_transform, expand_labels, next_click, simulate_clicks)
