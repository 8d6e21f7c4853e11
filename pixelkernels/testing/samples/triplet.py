"""Samples of the triplet family."""

from __future__ import annotations

import torch
from torch import Tensor

import pixelkernels as pk

from ..arguments import (
    Choice,
    Count,
    Features,
    Flag,
    Generator,
    Integer,
    Mask,
    Number,
    ObjectLabels,
    Pixels,
)
from ..op import Call, Case, Memory, Op, Sizes, dims

SIZES = Sizes(
    tiny=dims("B2 C3 H5 W6 K30 n7"),
    small=(
        dims("B2 C21 H5 W7 K40 n13"),
        dims("B2 C70 H5 W7 K17 n40"),
        dims("B2 C1 H4 W6 K1 n1"),
        dims("B2 C0 H4 W6 K9 n5"),
    ),
    ordinary=(
        dims("B3 C21 H9 W13 K150 n20"),
        dims("B2 C200 H11 W17 K700 n200"),
    ),
    threads=dims("B3 C40 H70 W90 K1500 n900"),
    large=dims("B2 C32 H256 W256 K2000 n2000"),
    empty=({"B": 0}, {"H": 0}, {"K": 0}),
)
DRAWING = SIZES._replace(interpreted=dims("B2 C3 H29 W31 n7"))
MIB = 1 << 20
HINGE = {
    "margin": Number((1e-3, 3, 50.0), positive=True),
    "squared": Flag(),
    "eps": Number((0, 1e-6, 0.1), minimum=0),
}
# with an eps of 1e-6 the distance of a pixel to itself bends within a step of finite differences
GRADCHECK = {"eps": 1e-3, "margin": 0.7}


def memory(call: Call) -> Memory:
    """Forward what sampling one image takes, and the distances of the rows; then the gradient."""
    features: Tensor = call.arguments["features"]
    return Memory(4 * features[0, 0].numel() + 4 * MIB, features.nbytes + 4 * MIB)


def in_no_row(call: Call) -> dict[str, Tensor]:
    """Pixels of no row, or of rows alone that lack another pixel."""
    features, sets = call.arguments["features"], torch.stack(list(call.named(Pixels).values()))
    used = features.new_zeros(len(features), features[0, 0].numel() + 1, dtype=torch.bool)
    last = used.shape[1] - 1
    present = (sets >= 0).all(0)
    for index in sets.long():
        used.scatter_(1, torch.where(present, index, last), True)
    return {"features": ~used[:, :last].view(features[:, 0].shape)}


triplet_hinge = Op(
    pk.triplet_hinge,
    {
        "features": Features(),
        **{name: Pixels() for name in ("anchor", "positive", "negative")},
        **HINGE,
        "reduction": Choice(("mean", "sum", "none")),
    },
    {
        "mean": Case({"margin": 1.5}, gradcheck=GRADCHECK),
        "rows": Case({"reduction": "none", "squared": True}),
        "sum": Case({"reduction": "sum"}, gradcheck=GRADCHECK),
        "distances of rows": Case({"reduction": "none"}, gradcheck=GRADCHECK),
    },
    SIZES,
    memory=memory,
    ignored=in_no_row,
)

is_triplet_loss = Op(
    pk.is_triplet_loss,
    {
        "features": Features(),
        "mask": ObjectLabels(),
        "num_samples": Count("n", limited=False),
        **HINGE,
        # the negative value that a sample has
        "ignore_index": Integer((-1,)),
        "generator": Generator(),
    },
    {
        "": Case(gradcheck=GRADCHECK),
        "squared": Case({"squared": True}),
    },
    DRAWING,
    module=pk.ISTripletLoss,
    draws=True,
    memory=memory,
    ignored=lambda call: {"features": call.arguments["mask"] < 0},
)

sample_pixels = Op(
    pk.sample_pixels,
    {
        "mask": Mask(),
        "num_samples": Count("n"),
        "generator": Generator(),
    },
    {"": Case()},
    DRAWING,
    draws=True,
    nothing=(-1,),
)

OPS = (triplet_hinge, is_triplet_loss, sample_pixels)
