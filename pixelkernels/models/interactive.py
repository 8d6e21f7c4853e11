"""Few-shot interactive segmentation with clicks (Bhatia): a few annotated images show the class."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelkernels._core.named_tuples import serializable
from pixelkernels.distance import click_maps
from pixelkernels.regions import masked_average_pool
from pixelkernels.similarity import prior_mask

from .backbones import VGGStages
from .layers import Convolution, cat, check_images, check_like, resized, size_of

FARTHEST = 255.0  # click maps are truncated at this distance


@serializable
class Support(NamedTuple):
    """Annotated images of the class: images [B, S, 3, H, W] and masks [B, S, H, W], nonzero
    in the object."""

    images: Tensor
    masks: Tensor


@serializable
class Clicks(NamedTuple):
    """Points [B, N, 2] (row, column) and labels [B, N]: 1 positive, 0 negative, -1 padding."""

    points: Tensor
    labels: Tensor


class FewShotInteractiveNet(nn.Module):
    """Segments the clicked instance of the class that the support images show.

    The feature junction (section 2.4) joins three inputs: the features of the query image fused
    with its click maps; those of the support images, averaged over their masks; and the interactive
    prior focus, which is the prior mask (similarity of query and support in the features of a
    frozen network) fused with the click maps. About 25 million parameters in the thesis'
    configuration, of which 15 million are frozen.

    Layers: `fuse` (5 to 3 channels), `features` (VGGStages), `middle` (1x1), `prior_features`
    (VGGStages, frozen), `focus` (3 channels to 1), `junction`, `head`.

    Args:
        weights: of both VGG16, torchvision's name or None.
        batch_norm: VGG16 with batch norm, to train from scratch.
        width: of VGG16.
        channels: of the junction.
    """

    LEAST = 32

    def __init__(
        self,
        *,
        weights: str | None = None,
        batch_norm: bool = False,
        width: int = 64,
        channels: int = 256,
    ) -> None:
        super().__init__()
        self.fuse = nn.Sequential(Convolution(5, 16), nn.Conv2d(16, 3, 3, padding=1))
        self.features = VGGStages(2, weights=weights, batch_norm=batch_norm, width=width)
        third, fourth = self.features.channels
        self.middle = nn.Sequential(nn.Conv2d(third + fourth, channels, 1), nn.ReLU(inplace=True))
        self.prior_features = VGGStages(weights=weights, batch_norm=batch_norm, width=width)
        self.prior_features.requires_grad_(False)
        self.focus = nn.Sequential(Convolution(3, 16), nn.Conv2d(16, 1, 3, padding=1))
        self.joined_channels = 2 * channels + 1
        self.channels = channels
        self.junction = nn.Sequential(
            Convolution(self.joined_channels, channels), Convolution(channels, channels)
        )
        self.head = nn.Sequential(Convolution(channels, channels), nn.Conv2d(channels, 1, 1))

    def train(self, mode: bool = True) -> FewShotInteractiveNet:
        super().train(mode)
        self.prior_features.eval()  # frozen, so batch norms must not update their statistics
        return self

    def join(self, images: Tensor, clicks: Clicks, support: Support) -> Tensor:
        """The input of the junction: [B, joined_channels, h, w] at stride 4."""
        check_images(images, "B 3 H W", self.LEAST)
        check_images(support.images, "B S 3 H W", self.LEAST)
        check_like("support.masks", support.masks, support.images)
        if support.images.shape[-2:] != images.shape[-2:]:
            raise ValueError(
                f"support.images: expected the size of the images, {list(size_of(images))}, got"
                f" {list(size_of(support.images))}"
            )
        maps = click_maps(*clicks, size_of(images), truncate=FARTHEST) / FARTHEST
        shots, masks = support.images.flatten(0, 1), support.masks.flatten(0, 1) != 0
        # one batch, so that the statistics of batch norms cover query and support together
        fused = self.fuse(cat(images, maps))
        both = self._middle(torch.cat([fused, shots.to(fused)]))
        query, shots = both[: len(images)], both[len(images) :]
        pooled = masked_average_pool(shots, masks, upsample="bilinear")
        prototype = pooled.unflatten(0, support.masks.shape[:2]).mean(1)
        size = size_of(query)
        prior = resized(self._prior(images, support)[:, None], size)
        focused = self.focus(cat(prior, resized(maps, size)))
        return cat(query, prototype[..., None, None].expand_as(query), focused)

    def classify(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features of the junction -> logits [B, H, W]."""
        return resized(self.head(features), size)[:, 0]

    def forward(self, images: Tensor, clicks: Clicks, support: Support) -> Tensor:
        """Logits [B, H, W] of the clicked instance in images [B, 3, H, W]."""
        return self.classify(self.junction(self.join(images, clicks, support)), size_of(images))

    def loss(self, images: Tensor, clicks: Clicks, support: Support, masks: Tensor) -> Tensor:
        """Binary cross entropy with the instances' masks [B, H, W], nonzero in the object."""
        check_like("masks", masks, images)
        logits = self(images, clicks, support)
        return F.binary_cross_entropy_with_logits(logits, (masks != 0).to(logits))

    def _middle(self, images: Tensor) -> Tensor:
        third, fourth = self.features(images)
        return self.middle(cat(third, resized(fourth, size_of(third))))

    @torch.no_grad()
    def _prior(self, images: Tensor, support: Support) -> Tensor:
        query = self.prior_features(images)[-1]
        shots = self.prior_features(support.images.flatten(0, 1))[-1]
        shots = shots.unflatten(0, support.images.shape[:2])
        return prior_mask(query, shots, support.masks != 0)
