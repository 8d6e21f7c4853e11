"""Labels grown into the background."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.operators import to_kernel_dtype
from . import ops
from .reference import NOWHERE


def expand_labels(
    labels: Tensor,
    distance: float = 1.0,
    *,
    spatial_dims: int = 2,
    sampling: Sequence[float] | None = None,
    backend: str | None = None,
) -> Tensor:
    """Grow every label by up to `distance`, without overlap: `skimage.segmentation.expand_labels`.

    A pixel of the background takes the label of the nearest labelled pixel, if that is within
    `distance`. Among equally near ones, it is that of the smallest column, then row, then depth.

    Args:
        labels: [..., H, W], or [..., D, H, W] with spatial_dims=3; integer, 0 is the background.
        distance: in pixels, or in the unit of `sampling`, >= 0.
        spatial_dims: 2 or 3. With 2, labels have at most 4 dimensions.
        sampling: the spacing of the pixels along each axis. Distances are then float32.

    Returns: the shape and dtype of `labels`.
    Memory: the result, a copy of non-contiguous labels, and 4 bytes per pixel; triton and cuda take
    8 of volumes, and all 12 of volumes with `sampling` or with sides above 32767.

    Example:

        >>> pk.expand_labels(torch.tensor([[0, 1, 0, 0, 0, 2]]), 1)
        tensor([[1, 1, 1, 0, 2, 2]])
    """
    check.images("labels", labels, spatial_dims)
    distance = check.number("distance", distance, minimum=0)
    spacing = check.spacing(sampling, spatial_dims, nearest=True)
    chosen = choose("expand_labels", (labels,), backend)
    space = labels.shape[labels.dim() - spatial_dims :]
    images = to_kernel_dtype(labels.reshape(math.prod(labels.shape[:-spatial_dims]), *space))
    exact = sampling is None and max(space) <= check.LONGEST_SIDES[spatial_dims]
    limit = _largest_square(distance) if exact else distance
    found = ops.expand_labels(chosen, images, float(limit), exact, *spacing)
    return found.to(labels.dtype).view(labels.shape)


def _largest_square(distance: float) -> int:
    """The largest integer whose root is at most `distance`."""
    if distance >= math.sqrt(NOWHERE):
        return NOWHERE - 1
    square = int(distance**2) + 1  # the root may be `distance` by rounding
    return square if math.sqrt(square) <= distance else square - 1
