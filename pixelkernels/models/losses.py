"""Losses that the papers combine with the library's or compare them with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from .layers import object_logits


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - 2 |P T| / (|P| + |T|) of each image's object probabilities P and mask T, on average.

    Args:
        logits: [B, 2, H, W], of background and object.
        mask: [B, H, W], 0/1. Where object and prediction are both empty, the loss is 0.
    """
    probability, target = object_logits(logits).sigmoid().flatten(1), mask.to(logits).flatten(1)
    overlap, sizes = (probability * target).sum(1), probability.sum(1) + target.sum(1)
    return (1 - (2 * overlap + 1) / (sizes + 1)).mean()


def segmentation_loss(logits: Tensor, mask: Tensor, kind: str = "dice") -> Tensor:
    """ "dice", "cross_entropy" or "focal" (gamma 2, no class weights)."""
    if kind == "dice":
        return dice_loss(logits, mask)
    if kind == "cross_entropy":
        return F.cross_entropy(logits, mask.long())
    if kind == "focal":
        x = object_logits(logits)
        return sigmoid_focal_loss(x, mask.to(x), alpha=-1, gamma=2, reduction="mean")
    raise ValueError(f"kind: expected dice, cross_entropy or focal, got {kind!r}")


def class_agnostic_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """For each image the smaller cross entropy of the mask and of its complement, on average.

    The class-agnostic cross entropy that the CAS paper compares with (section 4): it asks for two
    regions, and for either name of each.
    """
    named = [
        F.cross_entropy(logits, side.long(), reduction="none").flatten(1).mean(1)
        for side in (mask.bool(), ~mask.bool())
    ]
    return torch.minimum(*named).mean()
