"""The photographs and their labellings as the tensors that networks and losses take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import pixelkernels as pk

from . import clicks, labels
from .photos import Photo

NUM_SAMPLES = 2000


class Scene(NamedTuple):
    """A batch of photos, and what every step of the demo may want to know about them."""

    names: list[str]
    images: Tensor  # [B, 3, H, W], about -2 to 2
    mask: Tensor  # [B, H, W] bool: the salient object
    regions: Tensor  # [B, H, W] int64, -1 nowhere
    num_regions: int
    # [B, H, W]: the weight of each pixel as background, known without looking at labels
    background: Tensor
    points: Tensor  # [B, N, 2]: simulated clicks
    click_labels: Tensor  # [B, N]: 1 on the object, 0 off it, -1 padding
    # [B, K] each: pixels drawn from the object twice, then twice from around it
    pixels: tuple[Tensor, ...]


def build(photos: list[Photo], device: str) -> Scene:
    images = normalized(photos, device)
    objects = np.stack([labels.salient_object(photo.pixels) for photo in photos])
    mask = torch.from_numpy(objects).to(device)
    found = np.stack([labels.many_regions(photo.pixels) for photo in photos])
    regions, num_regions = pk.compact_labels(torch.from_numpy(found).to(device))
    points, click_labels = clicks.simulate(mask)
    return Scene(
        names=[photo.name for photo in photos],
        images=images,
        mask=mask,
        regions=regions,
        num_regions=num_regions,
        background=_border_weights(images.shape[2])
        .expand(len(photos), -1, -1)
        .contiguous()
        .to(device),
        points=points,
        click_labels=click_labels,
        pixels=draw(mask),
    )


def draw(mask: Tensor) -> tuple[Tensor, ...]:
    """Once for both sides: each backend has its own stream of random numbers."""
    return tuple(pk.sample_pixels(m, NUM_SAMPLES) for m in (mask, mask, ~mask, ~mask))


def normalized(photos: list[Photo], device: str) -> Tensor:
    """[B, 3, H, W], about -2 to 2."""
    pixels = torch.from_numpy(np.stack([photo.pixels for photo in photos])).to(device)
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def _border_weights(side: int) -> Tensor:
    """[side, side]: 1 at the border, falling to 0 towards the centre: photographers seldom put the
    object there.
    """
    along = torch.linspace(-1, 1, side).abs()
    return torch.maximum(along[:, None], along).pow(8)
