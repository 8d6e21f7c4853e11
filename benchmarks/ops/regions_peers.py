"""Peers of the regions family: plain PyTorch, independent of the library.

Features are [B, C, N]. `by_one_hot` and `by_scatter` are the two common ways to reduce by label.
All labels are in [0, num_regions).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

# (labels [B, N], num_regions, dtype) -> the sum by region, [B, K, N] -> [B, K, R], and its
# transpose, [B, K, R] -> [B, K, N]
Map = Callable[[Tensor], Tensor]
Reductions = Callable[[Tensor, int, torch.dtype], tuple[Map, Map]]
Statistics = tuple[Tensor, Tensor, Tensor]


def by_one_hot(labels: Tensor, num_regions: int, dtype: torch.dtype) -> tuple[Map, Map]:
    region = torch.arange(num_regions, device=labels.device)
    member = (labels[:, None] == region[:, None]).to(dtype)
    return lambda values: values @ member.mT, lambda table: table @ member


def by_scatter(labels: Tensor, num_regions: int, dtype: torch.dtype) -> tuple[Map, Map]:
    index = labels[:, None]

    def region_sum(values: Tensor) -> Tensor:
        sums = values.new_zeros(*values.shape[:2], num_regions)
        return sums.scatter_add(2, index.expand_as(values), values)

    def per_pixel(table: Tensor) -> Tensor:
        return table.gather(2, index.expand(-1, table.shape[1], -1))

    return region_sum, per_pixel


def region_stats(
    features: Tensor, labels: Tensor, num_regions: int, reductions: Reductions
) -> Statistics:
    """Count [B, R], mean [B, R, C] and variance [B, R] in two passes."""
    x = features.flatten(2)
    region_sum, per_pixel = reductions(labels.flatten(1), num_regions, x.dtype)
    count = region_sum(torch.ones_like(x[:, :1]))
    size = count.clamp(min=1)
    mean = region_sum(x) / size
    distance = (x - per_pixel(mean)).square().sum(1, keepdim=True)
    variance = region_sum(distance) / size
    return count[:, 0], mean.mT, variance[:, 0]


def region_stats_torch_scatter(features: Tensor, labels: Tensor, num_regions: int) -> Statistics:
    """With torch_scatter, as torch-em and spoco."""
    from torch_scatter import scatter

    x, index = features.flatten(2), labels.flatten(1)[:, None]
    size = {"dim": 2, "dim_size": num_regions}
    count = scatter(torch.ones_like(x[:, :1]), index, reduce="sum", **size)[:, 0]
    mean = scatter(x, index.expand_as(x), reduce="mean", **size)
    own = mean.gather(2, index.expand_as(x))
    distance = (x - own).square().sum(1, keepdim=True)
    return count, mean.mT, scatter(distance, index, reduce="mean", **size)[:, 0]


def region_stats_index_add(features: Tensor, labels: Tensor, num_regions: int) -> Statistics:
    batch, channels = features.shape[:2]
    x = features.permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(batch, device=labels.device)[:, None] * num_regions
    index = (labels.flatten(1) + first).flatten()
    count = x.new_zeros(batch * num_regions).index_add(0, index, torch.ones_like(x[:, 0]))
    size = count.clamp(min=1)
    mean = x.new_zeros(batch * num_regions, channels).index_add(0, index, x) / size[:, None]
    distance = (x - mean.index_select(0, index)).square().sum(1)
    variance = x.new_zeros(batch * num_regions).index_add(0, index, distance) / size
    shape = (batch, num_regions)
    return count.view(shape), mean.view(*shape, channels), variance.view(shape)


def region_stats_loop(features: Tensor, labels: Tensor, num_regions: int) -> Statistics:
    """One boolean mask per image and label, as in the papers' own code."""
    counts, means, variances = [], [], []
    for image, label in zip(features, labels, strict=True):
        for region in range(num_regions):
            pixels = image[:, label == region]
            size = max(pixels.shape[1], 1)
            mean = pixels.sum(1) / size
            counts.append(image.new_tensor(pixels.shape[1]))
            means.append(mean)
            variances.append((pixels - mean[:, None]).square().sum() / size)
    shape = (len(features), num_regions)
    count, variance = torch.stack(counts).view(shape), torch.stack(variances).view(shape)
    return count, torch.stack(means).view(*shape, -1), variance


def cas_loss(count: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """CAS eq. 1 with alpha 0.5 on the statistics of the regions, which are all there."""
    present = (count > 0).to(mean.dtype)
    gaps = (mean[:, :, None] - mean[:, None]).square().sum(-1)
    apart = (gaps * present[:, :, None] * present[:, None]).sum((1, 2))
    return (0.5 * variance.sum(1) - 0.5 * apart).mean()


def _contrast(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distance to the own class mean minus that to the other, and both masks, [B, N]."""
    x = features.flatten(2)
    salient = mask.flatten(1).to(x.dtype)[:, None]
    rest = 1 - salient
    mean = (x * salient).sum(2, keepdim=True) / salient.sum(2, keepdim=True)
    mean_rest = (x * rest).sum(2, keepdim=True) / rest.sum(2, keepdim=True)
    gap = (x - mean).square().sum(1) - (x - mean_rest).square().sum(1)
    return gap * (salient - rest)[:, 0], salient[:, 0] > 0, rest[:, 0] > 0


def metric_expression(features: Tensor, mask: Tensor) -> tuple[Tensor]:
    """MEnet eq. 3 as written."""
    return (_contrast(features, mask)[0].mean(),)


def metric_expression_closed(features: Tensor, mask: Tensor) -> tuple[Tensor]:
    """The same in closed form: minus the squared distance between the class means."""
    salient = mask.flatten(1).to(features.dtype)
    weights = torch.stack((salient, 1 - salient), 2)
    mean = features.flatten(2) @ (weights / weights.sum(1, keepdim=True))
    return (-(mean[..., 0] - mean[..., 1]).square().sum(1).mean(),)


def metric_expression_hard(features: Tensor, mask: Tensor) -> tuple[Tensor]:
    """Hard mining by one sort: of the larger class, the pixels from the n-th largest score up."""
    score, salient, rest = _contrast(features, mask)
    sizes = torch.stack((salient.sum(1), rest.sum(1)))
    kept = sizes.amin(0)[:, None]
    larger = torch.where((sizes[0] > sizes[1])[:, None], salient, rest)
    ranked = torch.where(larger, score.detach(), -torch.inf).sort(1, descending=True).values
    mined = ~larger | (score >= ranked.gather(1, kept - 1))
    return ((torch.where(mined, score, 0).sum(1, keepdim=True) / (2 * kept)).mean(),)


def metric_expression_hard_loop(features: Tensor, mask: Tensor) -> tuple[Tensor]:
    """Hard mining image by image with topk."""
    scores, salient, _ = _contrast(features, mask)
    losses = []
    for score, chosen in zip(scores, salient, strict=True):
        sides = score[chosen], score[~chosen]
        kept = min(len(side) for side in sides)
        losses.append(torch.cat([side.topk(kept).values for side in sides]).mean())
    return (torch.stack(losses).mean(),)


def _push_and_regulariser(mean: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    clusters = present.sum(1)
    pairs = present[:, :, None] & present[:, None]
    pairs = pairs & ~torch.eye(present.shape[1], dtype=torch.bool, device=mean.device)
    gap = vector_norm(mean[:, :, None] - mean[:, None], dim=-1)
    push = torch.where(pairs, (3.0 - gap).relu().square(), 0).sum((1, 2))
    push = push / (clusters * (clusters - 1)).clamp(min=1)
    return push, vector_norm(mean, dim=-1).sum(1) / clusters


def discriminative(
    features: Tensor, labels: Tensor, num_regions: int, reductions: Reductions
) -> tuple[Tensor]:
    """De Brabandere et al. with their margins 0.5 and 1.5 and weights 1, 1 and 0.001."""
    x = features.flatten(2)
    region_sum, per_pixel = reductions(labels.flatten(1), num_regions, x.dtype)
    count = region_sum(torch.ones_like(x[:, :1]))
    mean = region_sum(x) / count.clamp(min=1)
    distance = vector_norm(x - per_pixel(mean), dim=1, keepdim=True)
    pull = region_sum((distance - 0.5).relu().square()) / count.clamp(min=1)
    present = count[:, 0] > 0
    pull = pull[:, 0].sum(1) / present.sum(1)
    push, regulariser = _push_and_regulariser(mean.mT, present)
    return ((pull + push + 1e-3 * regulariser).mean(),)


def discriminative_loop(features: Tensor, labels: Tensor, num_regions: int) -> tuple[Tensor]:
    """One boolean mask per image and label, as most public code has it."""
    losses = []
    for image, label in zip(features, labels, strict=True):
        means, pulls = [], []
        for region in range(num_regions):
            pixels = image[:, label == region]
            if pixels.shape[1]:
                mean = pixels.mean(1)
                distance = vector_norm(pixels - mean[:, None], dim=0)
                means.append(mean)
                pulls.append((distance - 0.5).relu().square().mean())
        mean = torch.stack(means)[None]
        present = torch.ones_like(mean[..., 0], dtype=torch.bool)
        push, regulariser = _push_and_regulariser(mean, present)
        losses.append(torch.stack(pulls).mean() + push[0] + 1e-3 * regulariser[0])
    return (torch.stack(losses).mean(),)


def background_distance(features: Tensor, weights: Tensor) -> tuple[Tensor]:
    """MEnet eq. 5 as written."""
    w = weights[:, None]
    mean = (features * w).sum((2, 3), keepdim=True) / w.sum((2, 3), keepdim=True)
    return (vector_norm(features - mean, dim=1),)


def background_distance_matmul(features: Tensor, weights: Tensor) -> tuple[Tensor]:
    """The same, with the weighted mean as a matrix product."""
    w = weights.flatten(1)
    mean = features.flatten(2) @ (w / w.sum(1, keepdim=True))[..., None]
    return (vector_norm(features - mean[..., None], dim=1),)


def pool_upsampled(features: Tensor, weights: Tensor) -> tuple[Tensor]:
    """PANet's pooling as written: the features are resized to the weights."""
    size = weights.shape[1:]
    large = functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
    pooled = (large * weights[:, None]).sum((2, 3))
    return (pooled / (weights.sum((1, 2)) + 1e-5)[:, None],)


def pool_adjoint(features: Tensor, weights: Tensor) -> tuple[Tensor]:
    """The same, with the weights resized by the transpose of the interpolation."""
    batch, _, height, width = features.shape
    resized = torch.ops.aten.upsample_bilinear2d_backward(
        weights[:, None], weights.shape[1:], [batch, 1, height, width], False
    )
    pooled = features.flatten(2) @ resized.flatten(2).mT
    return (pooled[..., 0] / (weights.sum((1, 2)) + 1e-5)[:, None],)
