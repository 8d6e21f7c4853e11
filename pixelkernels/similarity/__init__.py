"""Dense similarity between two images, and the labels it transfers."""

from .api import (
    TransferredLabels,
    label_transfer,
    matching_scores,
    pair_similarity_loss,
    prior_mask,
    sample_reference,
)
from .modules import LabelTransfer, PriorMask, SiameseSimilarityLoss

__all__ = [
    "LabelTransfer",
    "PriorMask",
    "SiameseSimilarityLoss",
    "TransferredLabels",
    "label_transfer",
    "matching_scores",
    "pair_similarity_loss",
    "prior_mask",
    "sample_reference",
]
