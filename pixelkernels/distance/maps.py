"""Click maps: clicks encoded as images, an input of interactive segmentation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose, is_transformed
from .._core.modules import OptionsModule
from . import ops

# whose squares are normal numbers in float32
LEAST_RADIUS, MOST_RADIUS = 2.0**-60, 2.0**60
LARGEST_FLOAT = 2.0**127
COORDINATES = {2: "(row, column)", 3: "(depth, row, column)"}


def click_maps(
    points: Tensor,
    labels: Tensor,
    size: Sequence[int],
    *,
    spatial_dims: int = 2,
    encoding: ops.Encoding = "euclidean",
    radius: float | None = None,
    truncate: float | None = 255.0,
    backend: str | None = None,
) -> Tensor:
    """Distance maps of positive and negative clicks, the input of interactive segmentation.

    With d(p) = min_s |p - s| over the clicks s of one label:

        euclidean  min(d, truncate); without clicks: truncate
        disk       1 where d <= radius, else 0; without clicks: 0
        tanh       tanh(2 d / radius); without clicks: 1
        gaussian   max_s exp(-|p - s|^2 / (2 radius^2)); without clicks: 0

    Equivalent eager code, for one image and label:

        d = torch.cdist(pixels, points[b][labels[b] == 1]).amin(1).view(height, width)

    Args:
        points: [B, N, 2], (row, column), integer or floating point; may lie outside the image. With
            spatial_dims=3: [B, N, 3], (depth, row, column).
        labels: [B, N], integer or bool: 1 positive, 0 negative, -1 padding, whose point is ignored.
        size: (height, width) of the maps, or (depth, height, width).
        spatial_dims: 2 or 3.
        encoding: "euclidean", "disk", "tanh" or "gaussian".
        radius: in pixels, > 0; for all encodings but "euclidean".
        truncate: the largest value of "euclidean"; None: no limit, and +inf without clicks.

    Returns: float32 [B, 2, H, W] or [B, 2, D, H, W], the positive map first. Points are converted
    to float32.
    Memory: the result; on CPU also N floats per few rows.
    Source: Xu et al. (truncated distances); the tanh and disk maps of f-BRS and RITM.

    Example:

        >>> points, labels = torch.tensor([[[3, 4], [0, 0]]]), torch.tensor([[1, -1]])
        >>> pk.click_maps(points, labels, (6, 8))[0, :, 0, 0]
        tensor([  5., 255.])
    """
    space = check_clicks(points, labels, size, spatial_dims)
    options = check_encoding(encoding, radius, truncate)
    if _can_be_read(points):
        _warn_of_swapped_coordinates(points, labels, space[3 - spatial_dims :])
    points, labels = points.detach().float(), labels.long()
    labels = ops.click_labels(labels)
    # the point of a padding entry may hold anything
    points = ops.click_points(torch.where(labels[..., None] < 0, 0, points))
    chosen = choose("click_maps", (points, labels), backend)
    return ops.click_maps(chosen, points, labels, *space, *options)


def check_clicks(points: Any, labels: Any, size: Any, spatial_dims: Any) -> tuple[int, int, int]:
    """The depth, height and width of the maps; a depth of 1 for images."""
    check.tensor("points", points)
    check.option("spatial_dims", spatial_dims, COORDINATES)
    if not points.is_floating_point() and points.dtype not in check.INTEGER_DTYPES:
        raise TypeError(f"points: expected a real dtype, got {points.dtype}")
    if points.dim() != 3 or points.shape[2] != spatial_dims:
        raise ValueError(
            f"points: expected shape [B, N, {spatial_dims}] of {COORDINATES[spatial_dims]}, got"
            f" {list(points.shape)}"
        )
    check.integers("labels", labels)
    if labels.shape != points.shape[:2]:
        raise ValueError(
            f"labels: expected shape {list(points.shape[:2])} for points of shape"
            f" {list(points.shape)}, got {list(labels.shape)}"
        )
    check.on_device("labels", labels, "points", points)
    sides = check.sequence("size", size, spatial_dims)
    depth, height, width = [1] * (3 - spatial_dims) + [
        check.count("size", side, minimum=0) for side in sides
    ]
    return depth, height, width


def check_encoding(encoding: Any, radius: Any, truncate: Any) -> tuple[int, float, float]:
    """The number of the encoding, the radius (unused by "euclidean") and the largest value."""
    if check.option("encoding", encoding, ops.ENCODINGS) == "euclidean":
        if radius is not None:
            raise ValueError(f"radius: expected None with encoding='euclidean', got {radius!r}")
    elif radius is None:
        raise ValueError(f"radius: expected a positive number with encoding={encoding!r}, got None")
    else:
        radius = check.positive("radius", radius)
    limit = math.inf if truncate is None else check.number("truncate", truncate, minimum=0)
    limit = limit if limit < LARGEST_FLOAT else math.inf
    # The square of the radius must be a normal float32. Beyond these limits, the maps no longer
    # depend on it.
    clipped_radius = min(max(radius or 0.0, LEAST_RADIUS), MOST_RADIUS)
    return ops.ENCODINGS.index(encoding), clipped_radius, limit


def _can_be_read(points: Tensor) -> bool:
    """Without synchronising or breaking a graph."""
    if torch.compiler.is_compiling() or type(points) is not Tensor or points.device.type != "cpu":
        return False
    return not is_transformed(points)


def _warn_of_swapped_coordinates(points: Tensor, labels: Tensor, size: Sequence[int]) -> None:
    if not points.numel():
        return
    most = points.flatten(0, 1).amax(0).tolist()
    if all(x < side for x, side in zip(most, size, strict=True)):
        return
    clicks = points[labels >= 0]
    sides = clicks.new_tensor(size, dtype=torch.float64)
    outside = (clicks >= sides).any()
    if outside and ((clicks >= 0) & (clicks < sides.flip(0))).all():
        order = COORDINATES[len(size)]
        shape = " x ".join(map(str, size))
        warnings.warn(
            f"points: some are outside of the {shape} image, and all would be inside in the"
            f" opposite order; points are {order}, so pass `points.flip(-1)` for (x, y) or"
            " (x, y, z)",
            stacklevel=3,
        )


class ClickMaps(OptionsModule):
    """`click_maps` as a module: `maps(points, labels, size)`.

    Args:
        spatial_dims, encoding, radius, truncate, backend: as in `click_maps`.

    Example:

        >>> maps = pk.ClickMaps(encoding="disk", radius=5)
        >>> maps(torch.tensor([[[3, 4]]]), torch.tensor([[1]]), (6, 8)).shape
        torch.Size([1, 2, 6, 8])
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        encoding: ops.Encoding = "euclidean",
        radius: float | None = None,
        truncate: float | None = 255.0,
        backend: str | None = None,
    ) -> None:
        check.option("spatial_dims", spatial_dims, COORDINATES)
        check_encoding(encoding, radius, truncate)
        super().__init__(
            spatial_dims=spatial_dims,
            encoding=encoding,
            radius=radius,
            truncate=truncate,
            backend=backend,
        )

    def forward(self, points: Tensor, labels: Tensor, size: Sequence[int]) -> Tensor:
        return click_maps(points, labels, size, **self.options)

    if TYPE_CHECKING:

        def __call__(self, points: Tensor, labels: Tensor, size: Sequence[int]) -> Tensor: ...
