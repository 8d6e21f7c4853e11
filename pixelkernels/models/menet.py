"""Saliency in a learned metric space (the MEnet paper)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelkernels._core.named_tuples import serializable
from pixelkernels.regions import background_distance, metric_expression_loss

from .layers import Convolution, Deconvolution, cat, check_images, check_like, size_of

STAGES = 6


@serializable
class Saliency(NamedTuple):
    metric: Tensor  # [B, 16, H, W], the metric space
    logits: Tensor  # [B, 2, H, W], of background and object


class MEnet(nn.Module):
    """A symmetric encoder-decoder. Each of its 13 scales contributes one map to the metric space.

    Six encoder stages halve the size and double the channels, and the last map is averaged to 1x1;
    six decoder stages double the size and are concatenated with the encoder's map of that scale.
    Convolutions make one map of the image and of each stage, resized to the input's size (nearest,
    eq. 14). 16 kernels combine the 13 maps into the metric space, and 2 kernels make the classes
    from it. About 62 million parameters in the paper's configuration.

    Layers: `encoder`, `upward` and `decoder` (each stage `convolutions` layers), `scales` (the 13
    single maps), `balance` and `norm` (batch norms before and after `metric`), `metric`,
    `classify`.

    Args:
        width: channels after the first stage.
        convolutions: layers in each stage.
        metric_channels: of the metric space.
    """

    LEAST = 64

    def __init__(
        self, *, width: int = 32, convolutions: int = 4, metric_channels: int = 16
    ) -> None:
        super().__init__()
        down = [3, *(width << i for i in range(STAGES))]
        up = [*down[:0:-1], width]
        self.encoder = nn.ModuleList(
            _stage(Convolution(down[i], down[i + 1], stride=2), down[i + 1], convolutions)
            for i in range(STAGES)
        )
        self.upward = nn.ModuleList(
            [nn.Conv2d(up[0], up[1], 1)]
            + [Deconvolution(up[i], up[i + 1]) for i in range(1, STAGES)]
        )
        self.decoder = nn.ModuleList(
            _stage(Convolution(up[i + 1] + down[-2 - i], up[i + 1]), up[i + 1], convolutions)
            for i in range(STAGES)
        )
        self.scales = nn.ModuleList(
            nn.Conv2d(channels, 1, 3, padding=1) for channels in (*down, *up[1:])
        )
        count = len(self.scales)
        # the scales differ in size, and eq. 3 is unbounded below unless the features are bounded
        self.balance, self.norm = nn.BatchNorm2d(count), nn.BatchNorm2d(metric_channels)
        self.metric = nn.Conv2d(count, metric_channels, 3, padding=1, bias=False)
        self.classify = nn.Conv2d(metric_channels, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Saliency:
        """images [B, 3, H, W]."""
        check_images(images, "B 3 H W", self.LEAST)
        maps = [images]
        for stage in self.encoder:
            maps.append(stage(maps[-1]))
        maps[-1] = F.adaptive_avg_pool2d(maps[-1], 1)
        x = maps[-1]
        for i, (upward, stage) in enumerate(zip(self.upward, self.decoder, strict=True)):
            skip = maps[STAGES - 1 - i]
            size = size_of(skip)
            # the first input is 1x1, so it is broadcast
            x = upward(x).expand(-1, -1, *size) if i == 0 else upward(x, size)
            x = stage(cat(x, skip))
            maps.append(x)
        size = size_of(images)
        single = [
            F.interpolate(scale(x), size, mode="nearest")
            for scale, x in zip(self.scales, maps, strict=True)
        ]
        metric = self.norm(self.metric(self.balance(cat(*single))))
        return Saliency(metric, self.classify(metric))

    def loss(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        mining: Literal["hard"] | None = "hard",
        normalize: bool = True,
    ) -> Tensor:
        """Eq. 4: the metric loss (eq. 3) plus the cross entropy.

        Args:
            images: [B, 3, H, W].
            masks: [B, H, W], nonzero is the object.
            mining: "hard" uses as many pixels of the larger class as the smaller one has.
            normalize: normalise the features, as in the released code; otherwise eq. 3 is unbounded
                below.
        """
        check_like("masks", masks, images)
        masks = masks != 0
        metric, logits = self(images)
        distances = metric_expression_loss(metric, masks, normalize=normalize, mining=mining)
        return distances + F.cross_entropy(logits, masks.long())

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """Eq. 5: the distance of each pixel to the mean of the predicted background, scaled to
        [0, 1] per image; [B, H, W].
        """
        metric, logits = self(images)
        background = (logits[:, 0] > logits[:, 1]).to(metric.dtype)
        return background_distance(F.normalize(metric, dim=1), background, normalize="minmax")

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The salient objects' masks, bool [B, H, W]: saliency of at least twice its mean. Nothing,
        or next to nothing, of an object that covers most of its image.
        """
        return adaptive_mask(self.saliency(images))


def adaptive_mask(saliency: Tensor) -> Tensor:
    """saliency >= min(2 * mean of its image, 1), for saliency [B, H, W] in [0, 1] (eq. 15 of the
    paper).
    """
    return saliency >= (2 * saliency.mean((-2, -1), keepdim=True)).clamp(max=1)


def _stage(first: nn.Module, channels: int, convolutions: int) -> nn.Sequential:
    return nn.Sequential(first, *(Convolution(channels, channels) for _ in range(convolutions - 1)))
