"""Distance: the operators and their fakes. Masks and clicks have no gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .._core.operators import Kernel, define_check
from . import reference

kernel = partial(Kernel, "distance")

# the numbers that the kernels know the encodings of click_maps by
ENCODINGS = ("euclidean", "disk", "tanh", "gaussian")

CLICK_POINTS = "expected no NaN in a click"
CLICK_LABELS = "expected 1 (positive), 0 (negative) or -1 (padding)"


# points [B, N, 2] float32 and labels [B, N] int64, 1, 0 or -1 -> float32 [B, 2, H, W], the map of
# the clicks with label 1 first; a NaN coordinate counts as no click
click_maps = kernel(
    "click_maps(Tensor points, Tensor labels, SymInt height, SymInt width, int encoding,"
    " float radius, float truncate) -> Tensor",
    lambda points, labels, height, width, *rest: points.new_empty(
        (points.shape[0], 2, height, width)
    ),
    eager=lambda points, labels, height, width, encoding, *rest: reference.click_maps(
        points, labels, height, width, ENCODINGS[encoding], *rest
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
    eager=reference.distance_transform,
)

# prediction [B, H, W] bool and target [B, H, W] -> of the missed and of the wrong pixels, the
# largest squared distance of an allowed one to where these end, [B, 2] int32 (0 for none), and the
# first pixel that has it, [B, 2] int64; with draws [B] int64 >= 0, of the deeper kind instead the
# draws[b] modulo n-th of the n allowed pixels that are deeper than half of the deepest
deepest_errors = kernel(
    "deepest_errors(Tensor prediction, Tensor target, Tensor? allowed, int ignore_label,"
    " Tensor? draws) -> (Tensor depth, Tensor place)",
    lambda prediction, *rest: (
        prediction.new_empty((prediction.shape[0], 2), dtype=torch.int32),
        prediction.new_empty((prediction.shape[0], 2), dtype=torch.int64),
    ),
    cpu_only=True,
)
# allowed [B, H, W] bool, order [B, H, W] int32 >= 0, farthest [B] bool -> points [B, count, 2]
pick_pixels = kernel(
    "pick_pixels(Tensor allowed, Tensor order, Tensor farthest, int count, int apart) -> Tensor",
    lambda allowed, order, farthest, count, apart: allowed.new_empty(
        (allowed.shape[0], count, 2), dtype=torch.int64
    ),
    eager=reference.pick_pixels,
    cpu_only=True,
)

click_points = define_check(
    "click_points",
    "points",
    CLICK_POINTS,
    torch.isnan,
    absent=torch.nan,
)
click_labels = define_check(
    "click_labels",
    "labels",
    CLICK_LABELS,
    lambda labels: (labels < -1) | (labels > 1),
    absent=-1,
)
