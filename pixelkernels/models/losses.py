"""Losses that the papers combine with the library's losses or use as baselines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from .layers import object_logits


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - (2 |P T| + 1) / (|P| + |T| + 1) of an image's object probabilities P and mask T, averaged
    over images; 0 if both are empty.

    Args:
        logits: [B, 2, H, W], of background and object.
        mask: [B, H, W], nonzero is the object.
    """
    probability = object_logits(logits).sigmoid().flatten(1)
    target = (mask != 0).to(logits).flatten(1)
    overlap, sizes = (probability * target).sum(1), probability.sum(1) + target.sum(1)
    return (1 - (2 * overlap + 1) / (sizes + 1)).mean()


def segmentation_loss(logits: Tensor, mask: Tensor, kind: str = "dice") -> Tensor:
    """The loss of a kind: "dice", "cross_entropy" or "focal" (gamma 2, no class weights)."""
    if kind == "dice":
        return dice_loss(logits, mask)
    if kind == "cross_entropy":
        return F.cross_entropy(logits, (mask != 0).long())
    if kind == "focal":
        x = object_logits(logits)
        return sigmoid_focal_loss(x, (mask != 0).to(x), alpha=-1, gamma=2, reduction="mean")
    raise ValueError(f"kind: expected dice, cross_entropy or focal, got {kind!r}")


def class_agnostic_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The smaller of the cross entropies with the mask and its complement, averaged over images.

    A baseline of the CAS paper (section 4): either channel may be the object.
    """
    losses = [
        F.cross_entropy(logits, target.long(), reduction="none").flatten(1).mean(1)
        for target in (mask.bool(), ~mask.bool())
    ]
    return torch.minimum(*losses).mean()
