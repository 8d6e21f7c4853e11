"""Distance, stated in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: p = (row, col) is a pixel, s a click or a True pixel of a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def click_maps(
    points: Tensor,
    labels: Tensor,
    height: int,
    width: int,
    encoding: str,
    radius: float,
    truncate: float,
) -> Tensor:
    """The encoding of min_s |p - s| over the positive and over the negative clicks."""
    pixels = torch.cartesian_prod(
        torch.arange(height, device=points.device), torch.arange(width, device=points.device)
    ).reshape(height, width, 2)
    squared = (pixels - points[:, :, None, None]).square().sum(-1)
    is_click = (labels >= 0) & ~points.isnan().any(-1)
    nearest = []
    for label in (1, 0):
        own = (is_click & (labels == label))[..., None, None]
        apart = torch.where(own, squared, torch.inf)
        nowhere = apart.new_full((apart.shape[0], 1, height, width), torch.inf)
        nearest.append(torch.cat([apart, nowhere], 1).amin(1))
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


def squared_distance(mask: Tensor, spacing: tuple[float, float], border: bool) -> Tensor:
    """min_s |p - s|^2 over the True pixels s of a mask [N, H, W], in float64.

    |p - s|^2 is a sum over the axes, so one axis after the other can be minimised over.
    """
    if border:
        mask = functional.pad(mask, (1, 1, 1, 1), value=True)
    to_true = torch.where(mask, 0, torch.inf).double()
    along_columns = _minimum_along_rows(to_true.mT, spacing[0]).mT
    d2 = _minimum_along_rows(along_columns, spacing[1])
    return d2[:, 1:-1, 1:-1] if border else d2


def _minimum_along_rows(values: Tensor, spacing: float) -> Tensor:
    """min_j values_j + (spacing (i - j))^2 for every i of every row of [N, R, L]."""
    place = spacing * torch.arange(values.shape[2], dtype=values.dtype, device=values.device)
    cost = (place[:, None] - place).square()
    if values.numel() == 0:
        return values
    return torch.stack([(row[:, None] + cost).amin(2) for row in values.unbind(1)], 1)
