"""Exact Euclidean distance transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.operators import to_mask
from . import ops

# the squares of these, and of the sides of images, are normal numbers in float32
LEAST_SPACING, MOST_SPACING = 2.0**-60, 2.0**40


def distance_transform(
    mask: Tensor,
    *,
    squared: bool = False,
    sampling: Sequence[float] | None = None,
    backend: str | None = None,
) -> Tensor:
    """The exact Euclidean distance from each pixel to the nearest True pixel of its image.

    d(p) = min_s |p - s| over the True pixels s, so 0 on them: a batched
    `scipy.ndimage.distance_transform_edt(~mask)`.

    Args:
        mask: [..., H, W], bool or integer; all leading dimensions are a batch.
        squared: return squared distances, int32; sides are at most 32767.
        sampling: (row, column) spacing of the pixels, from 2^-60 to 2^40; not with `squared`.

    Returns: the shape of `mask`; float32 with +inf in images without a True pixel, or int32 with
    2^31 - 1 there. Squared distances are exact, others their square roots, rounded once. With
    `sampling`, or a side above 32767, squared distances are float32.
    Memory: the result, and a bool copy of an integer or non-contiguous mask. triton takes 3 more
    bytes per pixel (5 if H > 32767), cuda 4 if a row does not fit in shared memory (more than 20000
    pixels).
    Source: Felzenszwalb and Huttenlocher, distance transforms of sampled functions.

    Example:

        >>> pk.distance_transform(torch.tensor([[1, 0, 0], [0, 0, 0]]), squared=True)
        tensor([[0, 1, 4],
                [1, 2, 5]], dtype=torch.int32)
    """
    spacing = check_arguments(mask, squared, sampling)
    chosen = choose("distance_transform", (mask,), backend)
    images = mask.flatten(end_dim=-3) if mask.dim() > 2 else mask[None]
    images = to_mask("mask", images).contiguous()
    return ops.distance_transform(chosen, images, bool(squared), *spacing, False).view(mask.shape)


def check_arguments(mask: Any, squared: Any, sampling: Any) -> tuple[float, float]:
    """The spacing of the pixels."""
    check.integers("mask", mask)
    check.flag("squared", squared)
    if mask.dim() < 2:
        raise ValueError(f"mask: expected shape [..., H, W], got {list(mask.shape)}")
    if sampling is None:
        spacing = (1.0, 1.0)
    else:
        row, column = check.pair("sampling", sampling)
        spacing = (check.positive("sampling", row), check.positive("sampling", column))
        if not LEAST_SPACING <= min(spacing) <= max(spacing) <= MOST_SPACING:
            raise ValueError(
                f"sampling: expected numbers from {LEAST_SPACING:.0e} to {MOST_SPACING:.0e}, got"
                f" {sampling!r}"
            )
        if squared:
            raise ValueError(f"sampling: expected None with squared=True, got {sampling!r}")
    if squared:
        check.short_sides("mask", mask)
    return spacing
