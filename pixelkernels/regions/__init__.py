"""Region centroids and variances, and the losses made of them.

Common to all functions:

- Features: [B, C, H, W] in any strides; float16, bfloat16, float32, or float64 (`cpu` and `eager`).
  Kernels accumulate, and return statistics and losses, in float32 (float64 for float64).
- Labels: [B, H, W], any integer dtype or bool. A pixel with a label outside [0, num_regions) is
  ignored: it enters no result and its gradient is 0, even if its features are NaN.
- Masks: [B, H, W], any integer dtype or bool; nonzero is the object, but for `ignore_index`.
- A loss is the mean over the images that have something to compare, and 0 with gradient 0 if there
  are none.
- Backends: cuda, triton, cpu and eager, in this order; `backend` asks for one of them and raises
  `BackendUnavailable` if it cannot serve. All but eager give the same bits on every run, allocate
  no temporary larger than the features, and differentiate once. eager is as deterministic as
  torch's scatter_add on the device.
- Wrong types and dtypes raise TypeError, wrong shapes, devices and options ValueError, before a
  kernel is launched.
"""

from .cas import CASLoss, cas_loss
from .discriminative import DiscriminativeLoss, discriminative_loss
from .labels import compact_labels
from .metric_expression import MetricExpressionLoss, metric_expression_loss
from .pooling import background_distance, masked_average_pool
from .statistics import RegionStats, region_stats

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
