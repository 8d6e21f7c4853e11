"""ContrastiveSeg's pixel contrast (lib/loss/loss_contrast.py and lib/loss/loss_contrast_mem.py)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelkernels._core import validation as check
from pixelkernels._core.numerics import wide
from pixelkernels.similarity.anchors import anchors_at, draw
from pixelkernels.similarity.contrast import contrast_losses

PACKAGE = "lib"
# the label of rows without an anchor; no image has it
NONE = -(2**62)


class PixelContrastLoss(nn.Module):
    """`PixelContrastLoss(configer)(feats, labels, predict, queue)`: the contrast of the anchors of
    `sample_anchors` with one another or, given a queue, with a bank.

    Args:
        configer: `get` and `exists` give `contrast` its `temperature`, `base_temperature`,
            `max_samples` and `max_views`, and `loss`, `params` perhaps its `ce_ignore_index`, which
            is -1 otherwise.
        skip_class_0: as the original, leave class 0 out of the bank. In its place are as many rows
            of zeros with label 0, the last ones of the bank: similarities of 0 to every anchor,
            positives of class 0 and negatives of the others. False: the bank is the whole queue.
        skip_diagonal: as the original, entry i of the bank is no positive of anchor i, although it
            is not the anchor. The anchors are in the order (view, image, class). False: every entry
            of its class is a positive of an anchor.

    Args of the call:
        feats: [B, D, h, w], used as they are: the network normalises them.
        labels: [B, H, W]; resized to h x w by their nearest pixels.
        predict: labels [B, h, w].
        queue: [C, K, D], K features of each class; None: the anchors are the bank, and neither
            option has an effect. The variant without a memory has no such argument.

    Returns: a scalar: the mean over the anchors of temperature / base_temperature times the mean
    over the positives of -log(e^s / (e^s + the sum over the negatives)). An anchor without a
    positive, which makes the original NaN, is left out. Without anchors, where the original raises,
    the loss is 0. Random numbers are those of the device. float32 for features of 16 bits.
    """

    def __init__(
        self, configer: Any, *, skip_class_0: bool = True, skip_diagonal: bool = True
    ) -> None:
        super().__init__()
        self.configer = configer
        self.temperature = configer.get("contrast", "temperature")
        self.base_temperature = configer.get("contrast", "base_temperature")
        self.ignore_label = -1
        parameters = configer.get("loss", "params") if configer.exists("loss", "params") else {}
        if "ce_ignore_index" in parameters:
            self.ignore_label = parameters["ce_ignore_index"]
        self.max_samples = configer.get("contrast", "max_samples")
        self.max_views = configer.get("contrast", "max_views")
        self.skip_class_0 = check.flag("skip_class_0", skip_class_0)
        self.skip_diagonal = check.flag("skip_diagonal", skip_diagonal)

    def forward(
        self,
        feats: Tensor,
        labels: Tensor | None = None,
        predict: Tensor | None = None,
        queue: Tensor | None = None,
    ) -> Tensor:
        if labels is None or predict is None:
            raise ValueError("labels, predict: expected tensors, got None")
        small = F.interpolate(labels[:, None].float(), feats.shape[2:], mode="nearest")
        small = check.labels("labels", small[:, 0].long(), "feats", feats)
        check.labels("predict", predict, "feats", feats)
        pixels, drawn, groups, views = draw(
            small, predict, self.max_samples, self.max_views, self.ignore_label, None
        )
        diagonal = 0 if queue is None or self.skip_diagonal else None
        if queue is not None and self.skip_diagonal:
            pixels = pixels[by_view(len(pixels), groups, views)]
        anchors, kinds = anchors_at(feats, small, pixels, drawn, NONE)
        anchors = wide(anchors)
        bank, bank_kinds = anchors, kinds
        if queue is not None:
            if queue.dim() != 3 or queue.shape[2] != feats.shape[1]:
                raise ValueError(
                    f"queue: expected shape [C, K, {feats.shape[1]}], got {list(queue.shape)}"
                )
            bank, bank_kinds = self._bank(queue.to(anchors))
        losses, positives = contrast_losses(
            anchors, kinds, bank, bank_kinds, self.temperature, "negatives", NONE, diagonal, None
        )
        mean = losses.sum() / (positives > 0).sum().clamp(min=1)
        return mean * (self.temperature / self.base_temperature)

    def _bank(self, queue: Tensor) -> tuple[Tensor, Tensor]:
        classes, entries, _ = queue.shape
        kinds = torch.arange(classes, device=queue.device).repeat_interleave(entries)
        if not self.skip_class_0:
            return queue.flatten(0, 1), kinds
        zeros = torch.zeros_like(queue[:1])
        return torch.cat((queue[1:], zeros)).flatten(0, 1), kinds.roll(-entries)


def by_view(rows: int, groups: Tensor, views: Tensor) -> Tensor:
    """The order of anchors that lie group by group, with `views` each, by which they lie view by
    view; it leaves the rows after them where they are."""
    row = torch.arange(rows, device=groups.device)
    count = groups.clamp(min=1)
    return torch.where(row < groups * views, row % count * views + row // count, row)


REPLACES = {
    "loss.loss_contrast:PixelContrastLoss": PixelContrastLoss,
    "loss.loss_contrast_mem:PixelContrastLoss": PixelContrastLoss,
}
