"""The metrics that the papers report, computed with torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_fbeta_score,
    binary_jaccard_index,
)

from .menet import adaptive_mask


def jaccard(prediction: Tensor, target: Tensor) -> float:
    """Intersection over union of all pixels of two masks; 0 if both are empty."""
    return float(binary_jaccard_index((prediction != 0).long(), (target != 0).long()))


def pixel_precision(prediction: Tensor, target: Tensor) -> float:
    """The share of correct pixels, object and background (co-segmentation)."""
    return float(binary_accuracy((prediction != 0).long(), (target != 0).long()))


def mean_iou(predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """The mean over classes of the IoU over all images of a class."""
    pairs = zip(predictions, targets, strict=True)
    return sum(jaccard(p, t) for p, t in pairs) / len(targets)


def foreground_background_iou(prediction: Tensor, target: Tensor) -> float:
    """FB-IoU: the mean of the IoUs of object and background, regardless of class."""
    prediction, target = prediction.bool(), target.bool()
    return (jaccard(prediction, target) + jaccard(~prediction, ~target)) / 2


def saliency_measures(saliency: Tensor, target: Tensor) -> dict[str, float]:
    """F-beta (beta^2 = 0.3, eq. 16 of the MEnet paper) of the masks at twice the mean saliency, and
    the mean absolute error (eq. 17), averaged over images.

    Args:
        saliency: [B, H, W] in [0, 1].
        target: [B, H, W], nonzero is the object.
    """
    target = target != 0
    scores = [
        float(binary_fbeta_score(found.long(), mask.long(), beta=0.3**0.5))
        for found, mask in zip(adaptive_mask(saliency), target, strict=True)
    ]
    return {
        "adaptive F-beta": sum(scores) / len(scores),
        "MAE": float((saliency - target.to(saliency)).abs().mean()),
    }


def clicks_to_reach(ious: Tensor, threshold: float) -> Tensor:
    """The number of clicks until the IoU is at least `threshold`, or all clicks if it never is;
    int64 [B] for IoUs [clicks, B].
    """
    reached = torch.cat([ious >= threshold, torch.ones_like(ious[:1], dtype=torch.bool)])
    return (reached.int().argmax(0) + 1).clamp(max=len(ious))
