"""Seeded inputs, made on the CPU so that every device measures the same values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SEED = 20240
# As half-way through training: the distances between regions, and of pixels from their region's
# mean, are near the margins of the discriminative loss, so its hinges are partly active.
REGION_SPREAD = 0.5
PIXEL_NOISE = 0.125


@dataclass(frozen=True)
class Inputs:
    """The positional tensor arguments of a call, and the positions of the differentiable ones."""

    tensors: tuple[Tensor, ...]
    differentiable: tuple[int, ...] = (0,)

    def leaves(self) -> Inputs:
        """The same values as new leaves; the differentiable ones require a gradient."""
        return replace(
            self,
            tensors=tuple(
                tensor.detach().requires_grad_(position in self.differentiable)
                for position, tensor in enumerate(self.tensors)
            ),
        )

    def differentiated(self) -> tuple[Tensor, ...]:
        return tuple(self.tensors[position] for position in self.differentiable)

    def double(self) -> Inputs:
        widened = (t.double() if t.is_floating_point() else t for t in self.tensors)
        return replace(self, tensors=tuple(widened))

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Inputs:
        moved = (t.to(device, dtype if t.is_floating_point() else None) for t in self.tensors)
        return replace(self, tensors=tuple(moved))


def label_map(
    variant: str, generator: torch.Generator, batch: int, height: int, width: int, regions: int
) -> Tensor:
    """[B, H, W] labels: "random" per pixel, or "coherent", the Voronoi cells of random points."""
    if variant == "random":
        return torch.randint(regions, (batch, height, width), generator=generator)
    if variant != "coherent":
        raise ValueError(f"variant: expected 'coherent' or 'random', got {variant!r}")
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    cells = []
    for _ in range(batch):
        row, column = torch.rand(2, regions, 1, 1, generator=generator)
        distance = (rows - row * height).square() + (columns - column * width).square()
        cells.append(distance.argmin(0))
    return torch.stack(cells)


def mask(
    variant: str, generator: torch.Generator, batch: int, height: int, width: int, cells: int
) -> Tensor:
    """[B, H, W] bool: one cell of a "coherent" label map, 1 % of all pixels ("random"), or the same
    pattern in every image."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    match variant:
        case "coherent":
            return label_map(variant, generator, batch, height, width, cells) == 0
        case "random":
            return torch.rand(batch, height, width, generator=generator) < 0.01
        case "full" | "empty":
            pattern = torch.full((height, width), variant == "full")
        case "single":
            pattern = (rows == height // 3) & (columns == 2 * width // 3)
        case "diagonal":
            pattern = rows * width // height == columns
        case "checkerboard":
            pattern = (rows + columns) % 2 == 0
        case _:
            raise ValueError(f"variant: unknown mask {variant!r}")
    return pattern.repeat(batch, 1, 1)


def embeddings(generator: torch.Generator, labels: Tensor, regions: int, channels: int) -> Tensor:
    """[B, C, H, W]: the random centre of each region, plus noise."""
    batch, height, width = labels.shape
    centres = REGION_SPREAD * torch.randn(batch, channels, regions, generator=generator)
    index = labels.flatten(1)[:, None].expand(-1, channels, -1)
    noise = PIXEL_NOISE * torch.randn(batch, channels, height, width, generator=generator)
    return centres.gather(2, index).unflatten(2, (height, width)) + noise
