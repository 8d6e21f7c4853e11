"""Distance: the operators and their fake kernels. Masks and clicks have no gradient."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from .._core.operators import Kernel, define_check
from . import reference

kernel = partial(Kernel, "distance")

Encoding = Literal["euclidean", "disk", "tanh", "gaussian"]
# the kernels number the encodings of click_maps in this order
ENCODINGS = get_args(Encoding)

CLICK_POINTS = "expected no NaN in a click"
CLICK_LABELS = "expected 1 (positive), 0 (negative) or -1 (padding)"


def _maps_fake(
    points: Tensor, labels: Tensor, depth: int, height: int, width: int, *rest: float
) -> Tensor:
    space = (depth, height, width)[-points.shape[2] :]
    return points.new_empty((points.shape[0], 2, *space))


# points [B, N, 2] float32, labels [B, N] int64 -> float32 [B, 2, H, W], the map of the clicks with
# label 1 first, then 0; a click with another label or a NaN coordinate is absent. In volumes:
# points [B, N, 3] -> [B, 2, D, H, W]; images have depth 1.
click_maps = kernel(
    "click_maps(Tensor points, Tensor labels, SymInt depth, SymInt height, SymInt width,"
    " int encoding, float radius, float truncate) -> Tensor",
    _maps_fake,
    eager=lambda points, labels, depth, height, width, encoding, *rest: reference.click_maps(
        points, labels, depth, height, width, ENCODINGS[encoding], *rest
    ),
)


def _transform_fake(mask: Tensor, squared: bool, *rest: float) -> Tensor:
    return torch.empty_like(mask, dtype=torch.int32 if squared else torch.float32)


def _nearest_fake(mask: Tensor, squared: bool, *rest: float) -> tuple[Tensor, Tensor]:
    images, *space = mask.shape
    indices = mask.new_empty((images, len(space), *space), dtype=torch.int32)
    return _transform_fake(mask, squared), indices


# mask [N, H, W] or [N, D, H, W] bool -> the distance to the nearest True pixel (+inf without one),
# or its square (int32, 2^31 - 1 without one); with `border`, the pixels around the image are True
distance_transform = kernel(
    "distance_transform(Tensor mask, bool squared, float depth_spacing, float row_spacing,"
    " float column_spacing, bool border) -> Tensor",
    _transform_fake,
    eager=reference.distance_transform,
)

# labels [N, H, W] or [N, D, H, W], bool or integer -> as above, the distance to the nearest pixel
# with another label; with `border`, the pixels around the image have another one. Without
# `background`, it is 0 where the label is 0.
label_distance = kernel(
    "label_distance(Tensor labels, bool squared, float depth_spacing, float row_spacing,"
    " float column_spacing, bool border, bool background) -> Tensor",
    _transform_fake,
    eager=reference.label_distance,
)

# as distance_transform without a border, and the nearest True pixel: int32 [N, 2 or 3, *space], -1
# without one. Tie-break: the smallest column, then the smallest row, then the smallest depth.
# Costs are integers, or float64: the square of the product of spacing and steps for each axis,
# rounded, and their sum in the order of the axes. So all backends choose the same pixel.
nearest_true = kernel(
    "nearest_true(Tensor mask, bool squared, float depth_spacing, float row_spacing,"
    " float column_spacing) -> (Tensor distance, Tensor indices)",
    _nearest_fake,
    eager=reference.nearest_true,
)

# labels [N, H, W] or [N, D, H, W], integer or bool -> the label of the pixel that nearest_true
# finds in `labels != 0`, or 0 if that is farther than `limit`. With `squared`, the limit is that of
# the square, an integer; else it and the distances are float32.
expand_labels = kernel(
    "expand_labels(Tensor labels, float limit, bool squared, float depth_spacing,"
    " float row_spacing, float column_spacing) -> Tensor",
    lambda labels, *rest: torch.empty_like(labels),
    eager=reference.expand_labels,
)

# prediction [B, H, W] bool, target [B, H, W] as from `to_object_labels`, allowed [B, H, W] bool,
# draws [B] int64 >= 0 -> for false negatives and false positives: depth [B, 2] int32, the largest
# squared depth of an allowed error pixel (0 without any); index [B, 2] int64, the first pixel with
# it. With draws, the index of the deeper kind is pixel (draws modulo n) of the n allowed ones that
# are deeper than half of the maximum.
deepest_errors = kernel(
    "deepest_errors(Tensor prediction, Tensor target, Tensor? allowed, Tensor? draws)"
    " -> (Tensor depth, Tensor index)",
    lambda prediction, *rest: (
        prediction.new_empty((prediction.shape[0], 2), dtype=torch.int32),
        prediction.new_empty((prediction.shape[0], 2), dtype=torch.int64),
    ),
    cpu_only=True,
)
# see reference.pick_pixels
pick_pixels = kernel(
    "pick_pixels(Tensor allowed, Tensor seeds, Tensor farthest, int count, int squared_spacing)"
    " -> Tensor",
    lambda allowed, seeds, farthest, count, squared_spacing: allowed.new_empty(
        (allowed.shape[0], count, allowed.dim() - 1), dtype=torch.int64
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
