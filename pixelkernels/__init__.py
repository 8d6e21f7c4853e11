"""Fused kernels for the per-pixel embedding-distance steps of segmentation research."""

from ._core.dispatch import BackendUnavailable, available_backends, explain, use_backend
from .distance import (
    ClickMaps,
    NextClick,
    click_maps,
    distance_transform,
    next_click,
    simulate_clicks,
)
from .regions import (
    CASLoss,
    DiscriminativeLoss,
    MetricExpressionLoss,
    RegionStats,
    background_distance,
    cas_loss,
    compact_labels,
    discriminative_loss,
    masked_average_pool,
    metric_expression_loss,
    region_stats,
)
from .similarity import (
    LabelTransfer,
    PriorMask,
    SiameseSimilarityLoss,
    TransferredLabels,
    label_transfer,
    matching_scores,
    pair_similarity_loss,
    prior_mask,
    sample_reference,
)
from .triplet import ISTripletLoss, is_triplet_loss, sample_pixels, triplet_hinge

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CASLoss",
    "ClickMaps",
    "DiscriminativeLoss",
    "ISTripletLoss",
    "LabelTransfer",
    "MetricExpressionLoss",
    "NextClick",
    "PriorMask",
    "RegionStats",
    "SiameseSimilarityLoss",
    "TransferredLabels",
    "available_backends",
    "background_distance",
    "cas_loss",
    "click_maps",
    "compact_labels",
    "discriminative_loss",
    "distance_transform",
    "explain",
    "is_triplet_loss",
    "label_transfer",
    "masked_average_pool",
    "matching_scores",
    "metric_expression_loss",
    "next_click",
    "pair_similarity_loss",
    "prior_mask",
    "region_stats",
    "sample_pixels",
    "sample_reference",
    "simulate_clicks",
    "triplet_hinge",
    "use_backend",
]
