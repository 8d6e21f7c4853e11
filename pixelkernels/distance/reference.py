"""Distance in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: p = (row, column) is a pixel, s a click or a True pixel of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# the squared distance where there is no True pixel: the largest int32
NOWHERE = 2**31 - 1


def click_maps(
    points: Tensor,
    labels: Tensor,
    depth: int,
    height: int,
    width: int,
    encoding: str,
    radius: float,
    truncate: float,
) -> Tensor:
    """min_s |p - s| over the positive and over the negative clicks s, encoded; [B, 2, *space].

    The depth is that of volumes, whose points have three coordinates.
    """
    space = (depth, height, width)[-points.shape[2] :]
    squared = points.new_zeros((*labels.shape, *space))
    for axis, side in enumerate(space):
        pixels = torch.arange(side, device=points.device).view(-1, *[1] * (len(space) - axis - 1))
        squared = squared + (pixels - _spread(points[..., axis], space)).square()
    is_click = (labels >= 0) & ~points.isnan().any(-1)
    nearest = []
    for label in (1, 0):
        own = _spread(is_click & (labels == label), space)
        distances = torch.where(own, squared, torch.inf)
        # without clicks, the minimum is over this one
        infinite = distances.new_full((distances.shape[0], 1, *space), torch.inf)
        nearest.append(torch.cat([distances, infinite], 1).amin(1))
    d2 = torch.stack(nearest, 1)
    match encoding:
        case "euclidean":
            return d2.sqrt().clamp(max=truncate)
        case "disk":
            return (d2 <= radius**2).to(d2.dtype)
        case "tanh":
            return torch.tanh(2 * d2.sqrt() / radius)
        case _:
            return torch.exp(-d2 / (2 * radius**2))


def _spread(values: Tensor, space: Sequence[int]) -> Tensor:
    """[B, N] with a dimension of size 1 for each axis."""
    return values.view(*values.shape, *[1] * len(space))


def distance_transform(
    mask: Tensor,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
    border: bool,
) -> Tensor:
    """min_s |p - s| in float32, or its square in int32."""
    spacing = (depth_spacing, row_spacing, column_spacing)
    return _distance(squared_distance(mask, spacing, border), squared)


def label_distance(
    labels: Tensor,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
    border: bool,
    background: bool,
) -> Tensor:
    """min_s |p - s| over the pixels s with another label than p, in float32, or its square, int32.

    With `border`, the pixels around an image have another label. Without `background`, it is 0
    where the label is 0.
    """
    axes = labels.dim() - 1
    d2 = torch.full_like(labels, torch.inf, dtype=torch.float64)
    for axis, step in enumerate((depth_spacing, row_spacing, column_spacing)[-axes:], 1):
        lines, own = d2.movedim(axis, -1), labels.movedim(axis, -1)
        position = torch.arange(lines.shape[-1], device=labels.device)
        best = torch.full_like(lines, torch.inf)
        for j in range(lines.shape[-1]):
            # a pixel with another label is at the distance 0 from one
            value = torch.where(own[..., j, None] == own, lines[..., j, None], 0)
            best = torch.minimum(best, value + (step * (position - j).double()).square())
        if border:
            side = torch.minimum(position + 1, len(position) - position)
            best = torch.minimum(best, (step * side.double()).square())
        d2 = best.movedim(-1, axis)
    return _distance(d2 if background else torch.where(labels == 0, 0, d2), squared)


def nearest_true(
    mask: Tensor,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
) -> tuple[Tensor, Tensor]:
    """The distance, and argmin_s |p - s|, int32 [N, axes, *space], -1 without any s."""
    d2, indices = _nearest(mask, (depth_spacing, row_spacing, column_spacing))
    return _distance(d2, squared), torch.where(d2.isinf()[:, None], -1, indices).int()


def expand_labels(
    labels: Tensor,
    limit: float,
    squared: bool,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
) -> Tensor:
    """labels_s for s = argmin_s |p - s| over the pixels with labels_s != 0, if |p - s| is at most
    `limit`, or its square; else 0.
    """
    d2, indices = _nearest(labels != 0, (depth_spacing, row_spacing, column_spacing))
    source = torch.zeros_like(d2, dtype=torch.int64)
    for axis, side in enumerate(labels.shape[1:]):
        source = source * side + indices[:, axis]
    nearest = labels.flatten(1).gather(1, source.flatten(1)).view(labels.shape)
    return torch.where(_distance(d2, squared) <= limit, nearest, 0).to(labels.dtype)


def squared_distance(mask: Tensor, spacing: Sequence[float], border: bool) -> Tensor:
    """min_s |p - s|^2 over the True pixels s of a mask [N, *space], in float64.

    `spacing` ends with that of the columns. With `border`, the pixels around an image are True.
    """
    axes = mask.dim() - 1
    if not border:
        return _nearest(mask, spacing)[0]
    d2, _ = _nearest(functional.pad(mask, (1, 1) * axes, value=True), spacing)
    inside = (slice(None), *[slice(1, -1)] * axes)
    return d2[inside]


def _nearest(mask: Tensor, spacing: Sequence[float]) -> tuple[Tensor, Tensor]:
    """min_s |p - s|^2, and the coordinates of s, [N, axes, *space].

    |p - s|^2 is a sum over the axes, so the minimum is taken along one axis after the other. Among
    equal values, each takes the first.
    """
    axes = mask.dim() - 1
    d2 = torch.where(mask, 0, torch.inf).double()
    coordinates: list[Tensor] = []
    for axis, step in enumerate(spacing[-axes:], 1):
        d2, nearest = (x.movedim(-1, axis) for x in _minimum_along_last(d2.movedim(axis, -1), step))
        coordinates = [x.gather(axis, nearest) for x in coordinates] + [nearest]
    return d2, torch.stack(coordinates, 1)


def _distance(d2: Tensor, squared: bool) -> Tensor:
    return d2.clamp(max=NOWHERE).int() if squared else d2.sqrt().float()


def _minimum_along_last(values: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """min_j values_j + (spacing (i - j))^2 for every i of the last axis, and argmin_j."""
    position = torch.arange(values.shape[-1], device=values.device)
    best, nearest = torch.full_like(values, torch.inf), torch.zeros_like(values, dtype=torch.long)
    for j in range(values.shape[-1]):
        cost = values[..., j : j + 1] + (spacing * (position - j).double()).square()
        nearest = torch.where(cost < best, j, nearest)  # the first of equal values
        best = torch.minimum(cost, best)
    return best, nearest


def random_ranks(seeds: Tensor, pixels: int) -> Tensor:
    """For each seed [B] a random rank of every pixel, [B, pixels] int32 >= 0: its index, hashed by
    MurmurHash3's finaliser with both halves of the seed.
    """
    word = 2**32 - 1
    # modulo 2^32, and as negative numbers, so that no product exceeds an int64
    weyl, first, second = (x - 2**32 for x in (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35))
    h = torch.arange(pixels, device=seeds.device)
    for key in (seeds & word, seeds >> 32 & word):
        h = h * weyl + key[:, None] & word
        h = (h ^ h >> 16) * first & word
        h = (h ^ h >> 13) * second & word
        h = h ^ h >> 16
    return (h >> 1).int()


def coordinates(index: Tensor, space: Sequence[int]) -> Tensor:
    """The coordinates [B, axes] of the pixels `index` [B], in row-major order."""
    found = []
    for side in reversed(space):
        found.append(index % max(side, 1))
        index = index // max(side, 1)
    return torch.stack(found[::-1], 1)


def pick_pixels(
    allowed: Tensor, seeds: Tensor, farthest: Tensor, count: int, squared_spacing: int
) -> Tensor:
    """Pick `count` allowed pixels whose squared distances are >= `squared_spacing`; [B, count,
    axes].

    Each pick is the allowed pixel with the largest of the random ranks of `seeds` [B], so it is
    uniform. In images with `farthest` [B], the second and later picks are the pixels farthest from
    the previous ones. -1 if no pixel is left.
    """
    batch, *space = allowed.shape
    points = allowed.new_full((batch, count, len(space)), -1, dtype=torch.int64)
    if allowed.numel() == 0:
        return points
    axes = [torch.arange(side, dtype=torch.int32, device=allowed.device) for side in space]
    pixels = torch.meshgrid(*axes, indexing="ij")
    farthest = farthest.view(-1, *[1] * len(space))
    order = random_ranks(seeds, allowed[0].numel()).view(allowed.shape)
    gap = torch.full_like(order, NOWHERE)
    for i in range(count):
        rank = torch.where(farthest, gap, order) if i else order
        index = torch.where(allowed, rank, -1).flatten(1).argmax(1)
        point = coordinates(index, space)
        found = allowed.flatten(1).gather(1, index[:, None])
        points[:, i] = torch.where(found, point, -1)
        offsets = zip(pixels, point.int().unbind(1), strict=True)
        squares = ((axis - at.view(farthest.shape)).square() for axis, at in offsets)
        d2 = sum(squares, start=torch.zeros_like(order))
        gap = torch.minimum(gap, d2)
        allowed = allowed & (d2 >= squared_spacing)
    return points
