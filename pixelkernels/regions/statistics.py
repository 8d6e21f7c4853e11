"""Region statistics: pixel count, mean and variance of every region of a label map."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.distributed import gathered
from .._core.named_tuples import serializable
from .._core.operators import to_kernel_dtype
from . import ops

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@serializable
class RegionStats(NamedTuple):
    """`count` [B, R] int64, `mean` [B, R, C] and `variance` [B, R] of each region."""

    count: Tensor  # type: ignore[assignment]  # a tuple has a method of that name
    mean: Tensor
    variance: Tensor


def region_stats(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> RegionStats:
    """Pixel count, mean and variance of every region of every image.

    mean_r = 1/n_r sum_{i in r} f_i and variance_r = 1/n_r sum_{i in r} |f_i - mean_r|^2, the mean
    squared Euclidean distance to the mean. Equivalent eager code, for one image and region:

        f = features[b][:, labels[b] == r]
        mean, variance = f.mean(1), (f - f.mean(1, keepdim=True)).square().sum(0).mean()

    Args:
        features: [B, C, H, W], floating point.
        labels: [B, H, W], integer or bool; a pixel outside [0, num_regions) is ignored.
        num_regions: R >= 1.
        group: statistics over the ranks of this process group. Each rank holds a part of the same B
            images, such as a tile: H and W may differ, B and C not. All ranks get the same result.
            The gradient is that of the sum of the ranks' losses.

    Returns: RegionStats(count [B, R] int64, mean [B, R, C], variance [B, R]); 0, 0, 0 for an absent
    region. Differentiable in mean and variance. The sums are taken about values of the region
    itself, so the variance of nearly constant features far from 0 is accurate.

    Memory: forward, block partials of at most a quarter of the float32 features; backward, the
    gradient alone.
    Source: the means and spreads of MEnet eqs. 2-3 and CAS eq. 1.

    Example:

        >>> features, labels = torch.randn(2, 16, 32, 32), torch.randint(5, (2, 32, 32))
        >>> pk.region_stats(features, labels, 5).mean.shape
        torch.Size([2, 5, 16])
    """
    check.features("features", features)
    check.labels("labels", labels, "features", features)
    num_regions = check.regions("num_regions", num_regions)
    check.group(group)
    chosen = choose("region_stats", (features, labels), backend)
    count, mean, variance = ops.region_stats(
        chosen, features, to_kernel_dtype(labels), num_regions, False
    )
    stats = RegionStats(count, mean, variance)
    return stats if group is None else _of_all_ranks(stats, group)


def _of_all_ranks(own: RegionStats, group: ProcessGroup) -> RegionStats:
    """The statistics of the pixels of all ranks, from each rank's own."""
    counts = gathered(own.count[None], 0, group)
    parts = torch.cat((own.mean, own.variance[..., None]), 2)
    parts = gathered(parts[None], 0, group).double()
    means, variances = parts[..., :-1], parts[..., -1]
    share = counts / counts.sum(0).clamp(min=1).double()
    mean = (share[..., None] * means).sum(0)
    variance = (share * (variances + (means - mean).square().sum(-1))).sum(0)
    return RegionStats(counts.sum(0), mean.to(own.mean.dtype), variance.to(own.variance.dtype))
