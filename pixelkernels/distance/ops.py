"""Distance: the operators and their fakes. Masks and clicks have no gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .._library import Kernel, define_check

kernel = partial(Kernel, "distance")

# the numbers that the kernels know the encodings of click_maps by
ENCODINGS = ("euclidean", "disk", "tanh", "gaussian")


# points [B, N, 2] float32 and labels [B, N] int64, 1, 0 or -1 -> float32 [B, 2, H, W], the map of
# the clicks with label 1 first; a NaN coordinate counts as no click
click_maps = kernel(
    "click_maps(Tensor points, Tensor labels, SymInt height, SymInt width, int encoding,"
    " float radius, float truncate) -> Tensor",
    lambda points, labels, height, width, *rest: points.new_empty(
        (points.shape[0], 2, height, width)
    ),
)


def _transform_fake(mask: Tensor, squared: bool, *rest: float) -> Tensor:
    return torch.empty_like(mask, dtype=torch.int32 if squared else torch.float32)


# mask [N, H, W] bool -> the distance to the nearest True pixel (+inf), or its square (int32,
# 2^31 - 1); with `border` the pixels around the image are True
distance_transform = kernel(
    "distance_transform(Tensor mask, bool squared, float row_spacing, float column_spacing,"
    " bool border) -> Tensor",
    _transform_fake,
)

click_points = define_check(
    "click_points",
    "points",
    "expected no NaN in a click",
    lambda points: ~points.isnan(),
    absent=torch.nan,
)
click_labels = define_check(
    "click_labels",
    "labels",
    "expected 1 (positive), 0 (negative) or -1 (padding)",
    lambda labels: (labels >= -1) & (labels <= 1),
    absent=-1,
)
