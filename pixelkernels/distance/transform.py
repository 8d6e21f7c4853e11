"""Exact Euclidean distance transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.named_tuples import serializable
from .._core.operators import to_kernel_dtype, to_mask
from . import ops


@serializable
class DistanceTransform(NamedTuple):
    """`distances` [..., H, W] and `indices` [..., 2, H, W], or the same of volumes."""

    distances: Tensor
    indices: Tensor


@overload
def distance_transform(
    mask: Tensor,
    *,
    spatial_dims: int = 2,
    squared: bool = False,
    sampling: Sequence[float] | None = None,
    multilabel: bool = False,
    black_border: bool = False,
    return_indices: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...
@overload
def distance_transform(
    mask: Tensor,
    *,
    spatial_dims: int = 2,
    squared: bool = False,
    sampling: Sequence[float] | None = None,
    return_indices: Literal[True],
    backend: str | None = None,
) -> DistanceTransform: ...
def distance_transform(
    mask: Tensor,
    *,
    spatial_dims: int = 2,
    squared: bool = False,
    sampling: Sequence[float] | None = None,
    multilabel: bool = False,
    black_border: bool = False,
    return_indices: bool = False,
    backend: str | None = None,
) -> Tensor | DistanceTransform:
    """The exact Euclidean distance from each pixel to the nearest True pixel of its image.

    d(p) = min_s |p - s| over the True pixels s, so 0 on them: a batched
    `scipy.ndimage.distance_transform_edt(~mask)`, of images or of volumes.

    With `multilabel`, `mask` has labels, and d(p) is the distance to the nearest pixel of another
    label, 0 where the label is 0: a batched `edt.edt(labels)`.

    Args:
        mask: [..., H, W], or [..., D, H, W] with spatial_dims=3; bool or integer. Leading
            dimensions are a batch.
        spatial_dims: 2 or 3. With 2, a mask of more than 4 dimensions raises ValueError, since it
            may well be a batch of volumes.
        squared: return squared distances, int32; sides are at most 32767, of volumes 26755.
        sampling: the spacing of the pixels along each axis, from 2^-60 to 2^40; not with `squared`.
        multilabel: measure from label to label instead of to True. Labels are any integers.
        black_border: the pixels around an image are True, or have another label, as in `edt`.
        return_indices: return the nearest True pixels, too; not with `multilabel` or
            `black_border`. The largest spacing is then at most 1024 times the smallest.

    Returns: the shape of `mask`; float32 with +inf in images without a True pixel, or of one label,
    or int32 with 2^31 - 1 there. Squared distances are exact, others their square roots, rounded
    once. With `sampling`, or a side above 32767 (26755 of volumes), squared distances are float32.
    With `return_indices`: DistanceTransform(distances, indices), where indices [..., 2, H, W] or
    [..., 3, D, H, W], int32, are the coordinates of the nearest True pixel, or -1 without one.
    Among equally near ones, it is that of the smallest column, then of the smallest row, then of
    the smallest depth. It is the same on every backend.
    Memory: the result, and a bool copy of an integer or non-contiguous mask; of labels 1 byte per
    pixel, and a copy of non-contiguous ones. Besides, per pixel, triton takes 3 bytes for images (5
    if H > 32767) and 5 for volumes (9 if a side exceeds 32767), 6 (10) of labels; cuda takes 4 with
    indices (8 of volumes with `sampling`), and a few megabytes if a line does not fit in shared
    memory.
    Source: Felzenszwalb and Huttenlocher, distance transforms of sampled functions.

    Example:

        >>> mask = torch.tensor([[1, 0, 0], [0, 0, 0]])
        >>> pk.distance_transform(mask, squared=True)
        tensor([[0, 1, 4],
                [1, 2, 5]], dtype=torch.int32)
        >>> distances, indices = pk.distance_transform(mask, return_indices=True)
        >>> indices[:, 1, 2].tolist()
        [0, 0]
        >>> pk.distance_transform(torch.tensor([[7, 7, 7, 7, 0, 2, 2]]), multilabel=True)
        tensor([[4., 3., 2., 1., 0., 1., 2.]])
    """
    spacing = check_arguments(
        mask, spatial_dims, squared, sampling, multilabel, black_border, return_indices
    )
    chosen = choose("distance_transform", (mask,), backend)
    batch, space = mask.shape[:-spatial_dims], mask.shape[-spatial_dims:]
    images = mask.flatten(end_dim=-spatial_dims - 1) if batch else mask[None]
    border = bool(black_border)
    if multilabel:
        labels = to_kernel_dtype(images)
        found = ops.label_distance(chosen, labels, bool(squared), *spacing, border, False)
        return found.view(mask.shape)
    images = to_mask("mask", images).contiguous()
    if not return_indices:
        found = ops.distance_transform(chosen, images, bool(squared), *spacing, border)
        return found.view(mask.shape)
    distances, indices = ops.nearest_true(chosen, images, bool(squared), *spacing)
    return DistanceTransform(distances.view(mask.shape), indices.view(*batch, spatial_dims, *space))


def check_arguments(
    mask: Any,
    spatial_dims: Any,
    squared: Any,
    sampling: Any,
    multilabel: Any,
    black_border: Any,
    return_indices: Any,
) -> tuple[float, float, float]:
    """The spacing of depth, rows and columns; 1 for the depth of an image."""
    check.images("mask", mask, spatial_dims)
    check.flag("squared", squared)
    check.flag("multilabel", multilabel)
    check.flag("black_border", black_border)
    check.flag("return_indices", return_indices)
    if return_indices and (multilabel or black_border):
        name = "multilabel" if multilabel else "black_border"
        raise ValueError(f"{name}: expected False with return_indices=True")
    if squared:
        check.short_sides("mask", mask, spatial_dims)
        if sampling is not None:
            raise ValueError(f"sampling: expected None with squared=True, got {sampling!r}")
    return check.spacing(sampling, spatial_dims, nearest=return_indices)
