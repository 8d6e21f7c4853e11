"""Simulated clicks on the photos' objects, and their maps."""

from __future__ import annotations

import torch
from torch import Tensor

import pixelkernels as pk

SEED = 0
POSITIVE, NEGATIVE = 4, 4

# in image sides: the library's defaults are for photos of a few hundred pixels
MARGIN, SPACING, BAND = 0.025, 0.05, 0.2
RADIUS = 0.5


def simulate(objects: Tensor) -> tuple[Tensor, Tensor]:
    """Points [B, 8, 2] and labels [B, 8] on objects [B, H, W], the same in every call."""
    side = objects.shape[-1]
    return pk.simulate_clicks(
        objects,
        POSITIVE,
        NEGATIVE,
        strategy="boundary",
        margin=MARGIN * side,
        spacing=SPACING * side,
        band=BAND * side,
        generator=torch.Generator(objects.device).manual_seed(SEED),
    )


def maps(points: Tensor, labels: Tensor, side: int) -> Tensor:
    """[B, 2, side, side] in [0, 1]: how far each pixel is from the positive and negative clicks."""
    return pk.click_maps(points, labels, (side, side), encoding="tanh", radius=RADIUS * side)
