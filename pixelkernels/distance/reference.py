"""Distance in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: p = (row, column) is a pixel, s a click or a True pixel of a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# the squared distance where there is no True pixel: the largest int32
NOWHERE = 2**31 - 1


def click_maps(
    points: Tensor,
    labels: Tensor,
    height: int,
    width: int,
    encoding: str,
    radius: float,
    truncate: float,
) -> Tensor:
    """min_s |p - s| over the positive and over the negative clicks s, encoded; [B, 2, H, W]."""
    pixels = torch.cartesian_prod(
        torch.arange(height, device=points.device), torch.arange(width, device=points.device)
    ).reshape(height, width, 2)
    squared = (pixels - points[:, :, None, None]).square().sum(-1)
    is_click = (labels >= 0) & ~points.isnan().any(-1)
    nearest = []
    for label in (1, 0):
        own = (is_click & (labels == label))[..., None, None]
        distances = torch.where(own, squared, torch.inf)
        # without clicks, the minimum is over this one
        infinite = distances.new_full((distances.shape[0], 1, height, width), torch.inf)
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


def distance_transform(
    mask: Tensor, squared: bool, row_spacing: float, column_spacing: float, border: bool
) -> Tensor:
    """min_s |p - s| in float32, or its square in int32."""
    d2 = squared_distance(mask, (row_spacing, column_spacing), border)
    return d2.clamp(max=NOWHERE).int() if squared else d2.sqrt().float()


def squared_distance(mask: Tensor, spacing: tuple[float, float], border: bool) -> Tensor:
    """min_s |p - s|^2 over the True pixels s of a mask [N, H, W], in float64.

    |p - s|^2 is a sum over the axes, so the minimum is taken along one axis after the other.
    """
    if border:
        mask = functional.pad(mask, (1, 1, 1, 1), value=True)
    to_true = torch.where(mask, 0, torch.inf).double()
    along_columns = _minimum_along_rows(to_true.mT, spacing[0]).mT
    d2 = _minimum_along_rows(along_columns, spacing[1])
    return d2[:, 1:-1, 1:-1] if border else d2


def _minimum_along_rows(values: Tensor, spacing: float) -> Tensor:
    """min_j values_j + (spacing (i - j))^2 for every i of every row of [N, R, L]."""
    position = spacing * torch.arange(values.shape[2], dtype=values.dtype, device=values.device)
    cost = (position[:, None] - position).square()
    if values.numel() == 0:
        return values
    return torch.stack([(row[:, None] + cost).amin(2) for row in values.unbind(1)], 1)


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


def pick_pixels(
    allowed: Tensor, seeds: Tensor, farthest: Tensor, count: int, squared_spacing: int
) -> Tensor:
    """Pick `count` allowed pixels whose squared distances are >= `squared_spacing`; [B, count, 2].

    Each pick is the allowed pixel with the largest of the random ranks of `seeds` [B], so it is
    uniform. In images with `farthest` [B], the second and later picks are the pixels farthest from
    the previous ones. (-1, -1) if no pixel is left.
    """
    batch, height, width = allowed.shape
    points = allowed.new_full((batch, count, 2), -1, dtype=torch.int64)
    if allowed.numel() == 0:
        return points
    rows = torch.arange(height, dtype=torch.int32, device=allowed.device)[:, None]
    columns = torch.arange(width, dtype=torch.int32, device=allowed.device)
    order = random_ranks(seeds, height * width).view(allowed.shape)
    gap = torch.full_like(order, NOWHERE)
    for i in range(count):
        rank = torch.where(farthest[:, None, None], gap, order) if i else order
        index = torch.where(allowed, rank, -1).flatten(1).argmax(1)
        point = torch.stack([index // width, index % width], 1)
        found = allowed.flatten(1).gather(1, index[:, None])
        points[:, i] = torch.where(found, point, -1)
        row, column = point.int()[:, :, None, None].unbind(1)
        d2 = (rows - row).square() + (columns - column).square()
        gap = torch.minimum(gap, d2)
        allowed = allowed & (d2 >= squared_spacing)
    return points
