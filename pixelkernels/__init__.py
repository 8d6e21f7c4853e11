"""Fused kernels for the per-pixel embedding-distance steps of segmentation research."""

from ._dispatch import BackendUnavailable, available_backends, explain, use_backend
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

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CASLoss",
    "ClickMaps",
    "DiscriminativeLoss",
    "MetricExpressionLoss",
    "NextClick",
    "RegionStats",
    "available_backends",
    "background_distance",
    "cas_loss",
    "click_maps",
    "compact_labels",
    "discriminative_loss",
    "distance_transform",
    "explain",
    "masked_average_pool",
    "metric_expression_loss",
    "next_click",
    "region_stats",
    "simulate_clicks",
    "use_backend",
]
