"""Class-agnostic segmentation (the CAS paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from pixelkernels.regions import cas_loss

from .backbones import ResNetStages
from .layers import check_images, check_like, resized, size_of
from .losses import class_agnostic_cross_entropy
from .menet import adaptive_mask

HEADS = {"fcn": FCNHead, "deeplab": DeepLabHead}


class CASNet(nn.Module):
    """FCN-ResNet101 or DeepLab-v3 whose softmax output is a descriptor of each pixel.

    About 52 million parameters with "fcn", 59 million with "deeplab".

    Layers: `backbone` (ResNetStages, dilated to stride 8), `head` (torchvision's).

    Args:
        channels: of the descriptors.
        architecture: "fcn" or "deeplab".
        depth: of the ResNet, see ResNetStages.
        weights: of the ResNet, torchvision's name or None.
        width: of the ResNet.
    """

    LEAST = 33

    def __init__(
        self,
        channels: int = 2,
        *,
        architecture: str = "fcn",
        depth: int | Sequence[int] = 101,
        weights: str | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        if architecture not in HEADS:
            raise ValueError(f"architecture: expected {' or '.join(HEADS)}, got {architecture!r}")
        self.backbone = ResNetStages(depth, weights=weights, dilated=True, width=width)
        self.head = HEADS[architecture](self.backbone.channels[-1], channels)

    def logits(self, images: Tensor) -> Tensor:
        """The descriptors before the softmax, [B, channels, H, W]."""
        check_images(images, "B 3 H W", self.LEAST)
        return resized(self.head(self.backbone(images)[-1]), size_of(images))

    def forward(self, images: Tensor) -> Tensor:
        """The descriptors [B, channels, H, W] of images [B, 3, H, W]; each sums to 1."""
        return self.logits(images).softmax(1)

    def loss(
        self,
        images: Tensor,
        labels: Tensor,
        num_regions: int,
        *,
        kind: str = "cas",
        alpha: float = 0.5,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            images: [B, 3, H, W].
            labels: [B, H, W], the region of each pixel; labels outside [0, num_regions) are
                ignored.
            num_regions: the largest number of regions in an image.
            kind: "cas", or one of the paper's baselines for two regions: "cross_entropy", which
                takes labels as classes, and "class_agnostic_cross_entropy".
            alpha: of `cas_loss`.
        """
        check_like("labels", labels, images)
        if kind == "cas":
            return cas_loss(self(images), labels, num_regions, alpha=alpha)
        if kind == "cross_entropy":
            return F.cross_entropy(self.logits(images), labels.long(), ignore_index=-1)
        if kind == "class_agnostic_cross_entropy":
            return class_agnostic_cross_entropy(self.logits(images), labels)
        raise ValueError(
            "kind: expected cas, cross_entropy or class_agnostic_cross_entropy, got " + repr(kind)
        )

    @torch.no_grad()
    def choose_channel(self, images: Tensor, masks: Tensor) -> int:
        """The channel with the largest Pearson correlation with the masks [B, H, W], nonzero in the
        object.

        Training without classes does not fix which channel is the object; a few annotated images
        decide it.
        """
        check_like("masks", masks, images)
        maps = self(images).transpose(0, 1).flatten(1)
        target = (masks != 0).to(maps).flatten()
        maps, target = maps - maps.mean(1, keepdim=True), target - target.mean()
        return int((F.normalize(maps, dim=1) @ target).argmax())

    @torch.no_grad()
    def predict(self, images: Tensor, channel: int) -> Tensor:
        """The masks of a channel, bool [B, H, W]: where it is at least twice the image's mean."""
        return adaptive_mask(self(images)[:, channel])
