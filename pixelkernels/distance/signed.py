"""Signed distances to the boundary of an object."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.operators import Kernel, to_mask
from . import ops

Boundary = Literal["edges", "inner"]
BOUNDARIES = get_args(Boundary)
# of a chunk: on a CPU the maps of a volume of 96^3 stay in the L3 cache
CHUNK_PIXELS = {"cpu": 2**20, "gpu": 2**24}


def signed_distance(
    mask: Tensor,
    *,
    spatial_dims: int = 2,
    sampling: Sequence[float] | None = None,
    boundary: Boundary = "edges",
    backend: str | None = None,
) -> Tensor:
    """The exact distance from each pixel to the boundary of its image's object, negative inside.

    With d(p, S) = min_s |p - s| over the pixels s of S:

        phi(p) = d(p, object)                 outside of the object
        phi(p) = 1 - d(p, background)         inside, boundary="edges"
        phi(p) = -d(p, background)            inside, boundary="inner", but 0 on the inner boundary:
                                              object pixels with a background pixel at a face

    Args:
        mask: [..., H, W], or [..., D, H, W] with spatial_dims=3; bool or integer, the object.
            Leading dimensions are a batch.
        spatial_dims: 2 or 3, as in `distance_transform`.
        sampling: the spacing of the pixels along each axis, as in `distance_transform`. The 1 of
            "edges" stays 1, as in the original.
        boundary: "edges" or "inner". The border of the image is no boundary.

    Returns: float32 of the shape of `mask`. Images that are empty or full have no boundary: 0.
    Memory: besides the result 13 bytes per pixel of one image, or of several with 2^20 pixels
    together (2^24 on a GPU, all on eager), and a bool copy of an integer or non-contiguous mask.
    Source: "edges": `one_hot2dist` of Kervadec et al., Boundary loss. "inner": `compute_sdf` of Xue
    et al. (2020), SASSNet and DTC, before it is divided by its extremes.

    Example:

        >>> mask = torch.tensor([[0, 0, 1, 1, 1]])
        >>> pk.signed_distance(mask)
        tensor([[ 2.,  1.,  0., -1., -2.]])
        >>> pk.signed_distance(mask, boundary="inner")
        tensor([[ 2.,  1.,  0., -2., -3.]])
    """
    check.images("mask", mask, spatial_dims)
    spacing = check.spacing(sampling, spatial_dims)
    check.option("boundary", boundary, BOUNDARIES)
    chosen = choose("signed_distance", (mask,), backend)
    images = mask.flatten(end_dim=-spatial_dims - 1) if mask.dim() > spatial_dims else mask[None]
    images = to_mask("mask", images).contiguous()
    return to_boundary(chosen, images, *spacing, boundary == "inner").view(mask.shape)


# ---- the operator ----


def _signed(
    backend: str,
    images: Tensor,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
    inner: bool,
) -> Tensor:
    found = ops.label_distance(
        backend, images, False, depth_spacing, row_spacing, column_spacing, False, True
    )
    found.mul_(1 - images.to(torch.int8) - (_interior(images) if inner else images).to(torch.int8))
    if not inner:
        found.add_(images)
    # infinite in an image that is empty or full
    return found.nan_to_num_(0, 0, 0)


def _interior(images: Tensor) -> Tensor:
    """The object without the pixels that have a background pixel at a face."""
    found = images.clone()
    for axis in range(1, images.dim()):
        line, own = found.movedim(axis, 0), images.movedim(axis, 0)
        line[1:].bitwise_and_(own[:-1])
        line[:-1].bitwise_and_(own[1:])
    return found


def _signed_in_chunks(backend: str, images: Tensor, *options: Any) -> Tensor:
    found = torch.empty_like(images, dtype=torch.float32)
    for (part,) in chunks(images, len(images)):
        found[part] = _signed(backend, images[part], *options)
    return found


def chunks(like: Tensor, *counts: int) -> Iterator[tuple[slice, ...]]:
    """Slices of leading dimensions of these sizes, for chunks that fit into caches or bound memory.

    `like` ends with the axes of the space. A chunk has at least one image of it.
    """
    images = math.prod(like.shape[: len(counts)])
    pixels = CHUNK_PIXELS["cpu" if like.device.type == "cpu" else "gpu"]
    left = max(pixels * images // max(like.numel(), 1), 1)
    steps: list[int] = []
    for count in reversed(counts):
        steps.insert(0, max(min(left, count), 1))
        left = max(left // max(count, 1), 1)
    starts = (range(0, count, step) for count, step in zip(counts, steps, strict=True))
    for first in itertools.product(*starts):
        yield tuple(slice(i, i + step) for i, step in zip(first, steps, strict=True))


# images [N, H, W] or [N, D, H, W] bool -> float32 of the same shape
to_boundary = Kernel(
    "distance",
    "signed_distance(Tensor images, float depth_spacing, float row_spacing, float column_spacing,"
    " bool inner) -> Tensor",
    lambda images, *rest: torch.empty_like(images, dtype=torch.float32),
    eager=partial(_signed, "eager"),
    made_of=_signed_in_chunks,
)
