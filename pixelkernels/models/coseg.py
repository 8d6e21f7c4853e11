"""Co-segmentation of image pairs (the IS-Triplet paper, Li and Liu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelkernels._core.named_tuples import serializable
from pixelkernels.triplet import is_triplet_loss

from .backbones import ResNetStages
from .correlation import displacement_correlation
from .layers import Convolution, Deconvolution, cat, check_images, check_like, size_of
from .losses import segmentation_loss


@serializable
class CoSegmentation(NamedTuple):
    """The outputs for both images of every pair; the images of a pair are adjacent."""

    embedding: Tensor  # [2B, embedding_channels, H, W]
    logits: Tensor  # [2B, 2, H, W], of background and object


class CoSegNet(nn.Module):
    """A Siamese ResNet U-net that segments the object common to two images.

    A correlation layer compares the encoder's deepest maps of both images. Six deconvolutions
    follow: the first keeps the size, each of the others doubles it and is concatenated with the
    encoder's map of that scale (the last with the image). The result is an embedding of the input's
    size, which a 1x1 convolution maps to two classes. About 44 million parameters in the paper's
    configuration.

    Layers: `encoder` (ResNetStages), `squeeze` (1x1, to 512 channels that are concatenated with the
    correlation), `deconvolutions`, `joins` (3x3, after the concatenations), `classify` (1x1).

    Args:
        depth: of the ResNet, see ResNetStages.
        weights: of the ResNet, torchvision's name or None.
        width: of the ResNet.
        displacement: of the correlation, in cells of 32 pixels; 13 covers images of 448 x 448.
        decoder: channels after the first five deconvolutions.
        embedding_channels: after the sixth.
    """

    LEAST = 33

    def __init__(
        self,
        *,
        depth: int | Sequence[int] = 50,
        weights: str | None = None,
        width: int = 64,
        displacement: int = 13,
        decoder: Sequence[int] = (512, 512, 256, 128, 64),
        embedding_channels: int = 64,
    ) -> None:
        super().__init__()
        if len(decoder) != 5:
            raise ValueError(f"decoder: expected five numbers of channels, got {list(decoder)}")
        self.encoder = ResNetStages(depth, weights=weights, width=width)
        self.displacement = displacement
        self.squeeze = nn.Conv2d(self.encoder.channels[-1], decoder[0], 1)
        first = decoder[0] + (2 * displacement + 1) ** 2
        channels, skips = [first, *decoder], [3, *self.encoder.channels[:-1]][::-1]
        outs = [*decoder, embedding_channels]
        self.deconvolutions = nn.ModuleList(
            Deconvolution(channels[i], outs[i], stride=2 if i else 1) for i in range(6)
        )
        self.joins = nn.ModuleList(
            Convolution(outs[i] + skips[i - 1], outs[i]) for i in range(1, 5)
        )
        self.embed = nn.Conv2d(embedding_channels + 3, embedding_channels, 3, padding=1)
        self.classify = nn.Conv2d(embedding_channels, 2, 1)

    def forward(self, images: Tensor) -> CoSegmentation:
        """images [B, 2, 3, H, W]: pairs."""
        check_images(images, "B 2 3 H W", self.LEAST)
        flat = images.flatten(0, 1)
        *skips, deepest = self.encoder(flat)
        pairs = deepest.unflatten(0, images.shape[:2])
        other = pairs.flip(1).flatten(0, 1)
        x = cat(displacement_correlation(deepest, other, self.displacement), self.squeeze(deepest))
        x = self.deconvolutions[0](x, size_of(x))
        for i, skip in enumerate(reversed(skips)):
            x = self.joins[i](cat(self.deconvolutions[i + 1](x, size_of(skip)), skip))
        embedding = self.embed(cat(self.deconvolutions[5](x, size_of(flat)), flat))
        return CoSegmentation(embedding, self.classify(embedding))

    def loss(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        segmentation: str = "dice",
        triplet_weight: float = 1.0,
        num_samples: int = 5000,
        margin: float = 3.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Eq. 5: a segmentation loss plus `triplet_weight` times the IS-Triplet loss.

        Args:
            images: [B, 2, 3, H, W].
            masks: [B, 2, H, W], nonzero is the object.
            segmentation: "dice", "cross_entropy" or "focal".
            triplet_weight: lambda; the paper starts at 1 and multiplies by 0.85 after each epoch.
            num_samples, margin, generator: as in `is_triplet_loss`.
        """
        check_like("masks", masks, images)
        result, flat = self(images), masks.flatten(0, 1) != 0
        loss = segmentation_loss(result.logits, flat, segmentation)
        if triplet_weight == 0:
            return loss
        triplets = is_triplet_loss(
            result.embedding, flat, num_samples=num_samples, margin=margin, generator=generator
        )
        return loss + triplet_weight * triplets

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The objects' masks, bool [B, 2, H, W]."""
        mask = self(images).logits.argmax(1).bool()
        return mask.unflatten(0, images.shape[:2])
