"""How well predictions fit the masks."""

from __future__ import annotations

from torch import Tensor

from pixelkernels.models.metrics import mean_iou


def object_iou(predicted: Tensor, truth: Tensor) -> float:
    """The mean over images and their objects of the IoU, without the unlabelled pixels.

    Args:
        predicted: labels [N, H, W].
        truth: labels [N, H, W]: positive of an object, 0 of the background, -1 unlabelled. At least
            one is positive.
    """
    pairs = []
    for found, labels in zip(predicted, truth, strict=True):
        kept = labels >= 0
        pairs += [
            (found[kept] == label, labels[kept] == label) for label in labels[labels > 0].unique()
        ]
    found_masks, masks = zip(*pairs, strict=True)
    return mean_iou(found_masks, masks)


def uniform(predicted: Tensor, truth: Tensor) -> int:
    """The number of images with more than one label that are predicted to have one only."""
    return sum(
        found.unique().numel() == 1 and labels[labels >= 0].unique().numel() > 1
        for found, labels in zip(predicted, truth, strict=True)
    )
