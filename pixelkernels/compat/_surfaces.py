"""Distances between the surfaces of masks, for the surface metrics of MONAI and torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelkernels.distance import distance_transform

# The pixels of both masks that are transformed at a time bound the memory. A GPU needs more of
# them to be busy; on the CPU, fewer pairs of masks have a smaller common bounding box.
CPU_PIXELS, GPU_PIXELS = 2**21, 2**26

Spacing = tuple[float, ...]
# bool [n, *space] to the distances [n, *space] to the True pixels of each mask
Transform = Callable[[Tensor], Tensor]


class Surfaces(NamedTuple):
    """`counts` are the edge pixels of both masks of a pair. `distances`, float32, are those from
    the first mask's edge pixels to the second's, then perhaps those from the second's to the
    first's; if one mask is empty, +inf for each edge pixel of the other."""

    counts: tuple[int, int]
    distances: tuple[Tensor, ...]


def surfaces(
    masks: Tensor,
    spacings: Sequence[Spacing],
    *,
    symmetric: bool,
    transform: Transform | None = None,
) -> Iterator[Surfaces]:
    """The surface distances of every image and class, class by class of each image.

    An edge pixel is a True pixel with a neighbour along an axis that is False or outside of the
    image. Distances are rounded once, from float64.

    Args:
        masks: bool [2, B, C, *space]: two masks of every image and class.
        spacings: the spacing of the axes of each image.
        symmetric: also measure from the second masks to the first.
        transform: computes the distances, if they are not Euclidean.
    """
    limit = CPU_PIXELS if masks.is_cpu else GPU_PIXELS
    at_once = max(1, limit // max(1, 2 * prod(masks.shape[3:])))
    start = 0
    for spacing, group in groupby(spacings):
        end = start + len(list(group))
        for pairs in masks[:, start:end].flatten(1, 2).split(at_once, 1):
            yield from _of_pairs(pairs, spacing, symmetric, transform)
        start = end


def _of_pairs(
    masks: Tensor, spacing: Spacing, symmetric: bool, transform: Transform | None
) -> Iterator[Surfaces]:
    """Of masks [2, n, *space] at once."""
    edges = _edges(_cropped(masks))
    counts = edges.flatten(2).count_nonzero(2).tolist()
    sources, targets = (edges, edges.flip(0)) if symmetric else (edges[:1], edges[1:])
    found = _measured(sources.flatten(0, 1), targets.flatten(0, 1), spacing, transform)
    parts = found.split([count for row in counts[: len(sources)] for count in row])
    for i, pair in enumerate(zip(*counts, strict=True)):
        distances = parts[i :: masks.shape[1]]
        if not all(pair):
            distances = (found.new_full((max(pair),), torch.inf),) * len(sources)
        yield Surfaces(pair, distances)


def _cropped(masks: Tensor) -> Tensor:
    """The common bounding box of masks [2, n, *space], a view. What is outside of it changes
    neither edges nor distances."""
    union = masks.any(0).any(0)
    for axis in range(union.dim()):
        others = [i for i in range(union.dim()) if i != axis]
        inside = union.any(others).nonzero().flatten().tolist() or [0, -1]
        masks = masks.narrow(2 + axis, inside[0], inside[-1] + 1 - inside[0])
    return masks


def _edges(masks: Tensor) -> Tensor:
    """The edge pixels of masks [2, n, *space]."""
    inner = masks.clone(memory_format=torch.contiguous_format)
    for axis in range(2, masks.dim()):
        last = masks.shape[axis] - 1
        if last < 1:
            return masks.contiguous()
        inner.narrow(axis, 1, last).logical_and_(masks.narrow(axis, 0, last))
        inner.narrow(axis, 0, last).logical_and_(masks.narrow(axis, 1, last))
        inner.select(axis, 0).zero_()
        inner.select(axis, last).zero_()
    return inner.logical_xor_(masks)


def _measured(
    sources: Tensor, targets: Tensor, spacing: Spacing, transform: Transform | None
) -> Tensor:
    """The distances of the True pixels of each source [n, *space] to those of its target; any
    number if the target has none."""
    if transform is not None:
        return _at(sources, transform(targets)).float()
    axes = len(spacing)
    try:
        if len(set(spacing)) == 1:
            squares = distance_transform(targets, spatial_dims=axes, squared=True)
            return _at(sources, squares).double().sqrt_().mul_(abs(spacing[0])).float()
        found = distance_transform(
            targets, spatial_dims=axes, sampling=spacing, return_indices=True
        )
    except ValueError:  # sides and spacings that it rejects
        from .scipy import distance_transform_edt

        return _at(sources, on_cpu(lambda x: distance_transform_edt(x, spacing), targets)).float()
    places = sources.nonzero()
    offsets = found.indices.movedim(1, -1)[places.unbind(1)] - places[:, 1:]
    lengths = offsets.double() * offsets.new_tensor(spacing, dtype=torch.float64)
    return lengths.square_().sum(1).sqrt_().float()


def _at(sources: Tensor, distances: Tensor) -> Tensor:
    # several times as fast as an index of several dimensions
    return distances.flatten()[sources.flatten()]


def on_cpu(transform: Callable[[np.ndarray], Any], targets: Tensor) -> Tensor:
    """A transform of arrays that measures to zeros, of each target [n, *space] on the CPU."""
    maps = np.empty(targets.shape)
    for distances, target in zip(maps, targets.cpu().numpy(), strict=True):
        distances[...] = transform(~target)
    return torch.from_numpy(maps).to(targets.device)
