"""Region centroids and variances, and the losses made of them."""

from .api import (
    RegionStats,
    background_distance,
    cas_loss,
    compact_labels,
    discriminative_loss,
    masked_average_pool,
    metric_expression_loss,
    region_stats,
)
from .modules import CASLoss, DiscriminativeLoss, MetricExpressionLoss

__all__ = [
    "CASLoss",
    "DiscriminativeLoss",
    "MetricExpressionLoss",
    "RegionStats",
    "background_distance",
    "cas_loss",
    "compact_labels",
    "discriminative_loss",
    "masked_average_pool",
    "metric_expression_loss",
    "region_stats",
]
