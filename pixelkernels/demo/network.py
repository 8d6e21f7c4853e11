"""A small per-pixel embedding network, the same whichever backend computes its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 16  # of the embedding, as MEnet's
WIDTH = 32
DILATIONS = (1, 2, 4, 8)


class EmbeddingNet(nn.Module):
    """[B, 3, H, W] -> [B, 16, H, W]: context at a quarter of the size, joined with the detail of
    each pixel.

    Most of it works on few pixels, so that the loss is a visible share of a training step. Its
    activations are smooth and
    its layers normalised: rounding then stays rounding over a training, instead of flipping units
    on and off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.context = nn.Sequential(
            nn.Conv2d(3, WIDTH // 2, 3, stride=2, padding=1),
            nn.SiLU(),
            *_layer(WIDTH // 2, stride=2),
            *(module for dilation in DILATIONS for module in _layer(WIDTH, dilation=dilation)),
            nn.Conv2d(WIDTH, CHANNELS, 1),
        )
        self.embed = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, images: Tensor) -> Tensor:
        context = F.interpolate(self.context(images), size=images.shape[2:], mode="bilinear")
        return self.embed(F.silu(self.detail(images) + context))


def _layer(channels: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, WIDTH, 3, stride=stride, padding=dilation, dilation=dilation),
        nn.GroupNorm(4, WIDTH),
        nn.SiLU(),
    )


def from_seed(seed: int, device: str) -> EmbeddingNet:
    """The same weights for the same seed on every device; leaves the random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmbeddingNet().to(device)
