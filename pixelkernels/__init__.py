"""Fused kernels for the per-pixel embedding-distance steps of segmentation research."""

from ._dispatch import BackendUnavailable, available_backends, explain, use_backend
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
    "DiscriminativeLoss",
    "MetricExpressionLoss",
    "RegionStats",
    "available_backends",
    "background_distance",
    "cas_loss",
    "compact_labels",
    "discriminative_loss",
    "explain",
    "masked_average_pool",
    "metric_expression_loss",
    "region_stats",
    "use_backend",
]
