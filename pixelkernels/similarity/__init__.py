"""Dense similarity between two images, and the labels it transfers."""

from .api import (
    LabelTransfer,
    PriorMask,
    TransferredLabels,
    label_transfer,
    matching_scores,
    prior_mask,
    sample_reference,
)

__all__ = [
    "LabelTransfer",
    "PriorMask",
    "TransferredLabels",
    "label_transfer",
    "matching_scores",
    "prior_mask",
    "sample_reference",
]
