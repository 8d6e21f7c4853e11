"""A small per-pixel embedding network, the same whichever backend computes its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 16  # of the embedding, as MEnet's
WIDTH = 32
DILATIONS = (1, 2, 4, 8)


class EmbeddingNet(nn.Module):
    """[B, 3, H, W] -> [B, 16, H, W]: context at a quarter of the size, and each pixel's detail.

    Most of it works on few pixels, so that the loss is a visible share of a training step. Two
    trainings that differ in rounding alone should stay together, so nothing in it is sharp: smooth
    activations, normalised layers whose weights do not start small, and an eps that keeps the
    normalisation from blowing up even surfaces.
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
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        context = F.interpolate(self.context(images), size=images.shape[2:], mode="bilinear")
        return self.embed(F.silu(self.detail(images) + context))


def _layer(channels: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, WIDTH, 3, stride=stride, padding=dilation, dilation=dilation),
        nn.GroupNorm(4, WIDTH, eps=0.1),
        nn.SiLU(),
    )


def from_seed(seed: int, device: str) -> EmbeddingNet:
    """The same weights for the same seed on every device; leaves the random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmbeddingNet().to(device)
