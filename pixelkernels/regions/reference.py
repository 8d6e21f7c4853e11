"""Regions in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: N = H*W pixels i with features f_i; R regions, region r is the set of pixels with label r,
n_r their number and mu_r their mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .._core.numerics import mean_over_images, wide

# of the released code: MEnet "demotes losses exactly 0 to -100" when it ranks pixels
ZERO_SCORE_RANKS_AS = -100.0
RELEASED_CAS_EPS = 3e-5


def region_stats(
    features: Tensor, labels: Tensor, num_regions: int, normalize: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """mu_r = 1/n_r sum_{i in r} f_i and variance_r = 1/n_r sum_{i in r} |f_i - mu_r|^2."""
    x, index = _pixels(features, labels, num_regions, normalize)
    count = _region_sum(torch.ones_like(index, dtype=x.dtype)[:, None], index, num_regions)
    mean = _region_sum(x, index, num_regions) / count.clamp(min=1)
    squared_distance = (x - _at(mean, index)).square().sum(1, keepdim=True)
    variance = _region_sum(squared_distance, index, num_regions) / count.clamp(min=1)
    return count[:, 0].long(), mean.mT, variance[:, 0]


def cas_loss(descriptors: Tensor, labels: Tensor, num_regions: int, alpha: float) -> Tensor:
    """CAS eq. 1: alpha sum_i variance_i - (1 - alpha) sum_{i != j} |mu_i - mu_j|^2."""
    count, mean, variance = region_stats(descriptors, labels, num_regions)
    present = count > 0
    uniformer = variance.sum(1)
    discriminator = _pairs(present, (mean[:, :, None] - mean[:, None]).square().sum(-1))
    loss = alpha * uniformer - (1 - alpha) * discriminator
    return mean_over_images(loss, present.any(1))


def cas_loss_released(
    descriptors: Tensor, labels: Tensor, alpha: float, divisor: float | None
) -> Tensor:
    """The released CAS loss: every pixel enters both regions, with weights label + eps and
    1 - label + eps."""
    x, index = _pixels(descriptors, labels, 2)
    is_0, is_1 = ((index == region)[:, None].to(x.dtype) for region in (0, 1))
    w_1 = is_1 + RELEASED_CAS_EPS * (is_0 + is_1)
    w_0 = is_0 + RELEASED_CAS_EPS * (is_0 + is_1)
    total = w_1.sum(2).clamp(min=RELEASED_CAS_EPS)
    mean_1 = (w_1 * x).sum(2) / total
    mean_0 = (w_0 * x).sum(2) / w_0.sum(2).clamp(min=RELEASED_CAS_EPS)
    deviation = w_1 * (x - mean_1[..., None])
    uniformer = deviation.square().sum((1, 2)) / (total[:, 0] + RELEASED_CAS_EPS)
    discriminator = (mean_1 - mean_0).square().sum(1)
    loss = alpha * uniformer - (1 - alpha) * discriminator
    return loss.sum() / (max(loss.shape[0], 1) if divisor is None else divisor)


def metric_expression_loss(
    features: Tensor, mask: Tensor, form: str, normalize: bool, mining: bool
) -> Tensor:
    """MEnet eq. 3 (form "means", all pixels or the mined ones) or eq. 2 (form "pairwise")."""
    x, index = _pixels(features, mask, 2, normalize)
    count, mean, variance = region_stats(features, mask, 2, normalize)
    own = (x - _at(mean.mT, index)).square().sum(1)
    other = (x - _at(mean.flip(1).mT, index)).square().sum(1)
    if form == "pairwise":
        # the mean over k of |f_i - f_k|^2 is |f_i - mu|^2 + variance
        own = own + _at(variance[:, None], index)[:, 0]
        other = other + _at(variance.flip(1)[:, None], index)[:, 0]
    both = (count > 0).all(1)
    chosen = index < 2
    if mining:
        chosen = hard_pixels((own - other).detach(), mask.flatten(1)) % 2 == 1
    loss = torch.where(chosen, own - other, 0).sum(1) / chosen.sum(1).clamp(min=1)
    return mean_over_images(loss, both)


def metric_expression_loss_released(features: Tensor, mask: Tensor, normalize: bool) -> Tensor:
    """The released MEnet layer: 4 + the loss over all pixels, with a hand-written gradient.

    The gradient of a mined pixel is (mean of the other class - mean of its own) / (C H W): without
    the factor 2, the division by the number of images, and the parts through the means and the
    normalisation. Other pixels have gradient 0.
    """
    with torch.no_grad():
        _, mean, _ = region_stats(features, mask, 2, normalize)
        gap = mean[:, 1] - mean[:, 0]
        value = mean_over_images(
            4 - gap.square().sum(1), mean.new_ones(len(mean), dtype=torch.bool)
        )
        scores = contrast_scores(features, mask, mean, normalize)
        mined = hard_pixels(scores.flatten(1), mask.flatten(1))
        direction = (mined == 1).to(gap.dtype) - (mined == 3).to(gap.dtype)
        gradient = gap[:, :, None] * direction[:, None] / max(features[0:1].numel(), 1)
    x = torch.where((mined % 2 == 1)[:, None], wide(features).flatten(2), 0)
    surrogate = (x * gradient).sum()
    return value + surrogate - surrogate.detach()


def contrast_scores(features: Tensor, mask: Tensor, mean: Tensor, normalize: bool) -> Tensor:
    """t_i = |f_i - own mean|^2 - |f_i - other mean|^2, [B, H, W]; 0 outside both classes."""
    x, index = _pixels(features, mask, 2, normalize)
    own = (x - _at(mean.mT, index)).square().sum(1)
    other = (x - _at(mean.flip(1).mT, index)).square().sum(1)
    return (own - other).unflatten(1, mask.shape[1:])


def hard_pixels(scores: Tensor, mask: Tensor) -> Tensor:
    """MEnet's hard mining on flat [B, N] scores: 2*mask + 1 for a mined pixel, 2*mask for another,
    4 for a pixel in neither class.

    All pixels of the smaller class are mined, and as many of the larger class (the background if
    they are equal): those with the largest scores. Ties take the larger flat index; a score of
    exactly 0 ranks as -100.
    """
    foreground, background = mask == 1, mask == 0
    n_foreground, n_background = foreground.sum(1), background.sum(1)
    keep = torch.minimum(n_foreground, n_background)[:, None]
    larger = torch.where((n_foreground > n_background)[:, None], foreground, background)
    smaller = torch.where((n_foreground > n_background)[:, None], background, foreground)
    key = torch.where(scores == 0, ZERO_SCORE_RANKS_AS, scores)
    # stable sorts: by descending index, by descending score, then the larger class first
    order = key.flip(1).argsort(dim=1, descending=True, stable=True)
    order = mask.shape[1] - 1 - order
    order = order.gather(
        1, larger.gather(1, order).byte().argsort(dim=1, descending=True, stable=True)
    )
    rank = torch.empty_like(order).scatter(
        1, order, torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    )
    mined = ((larger & (rank < keep)) | smaller) & (keep > 0)
    return torch.where(foreground | background, 2 * foreground.byte() + mined.byte(), 4).byte()


def discriminative_loss(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    delta_var: float,
    delta_dist: float,
    weights: tuple[float, float, float],
    norm: int,
    pixel_weighting: str,
    ignore_index: int | None,
) -> Tensor:
    """De Brabandere et al., eqs. 1-4, with one norm for the pull, push and regularisation terms."""
    if ignore_index is not None:
        labels = torch.where(labels.long() == ignore_index, -1, labels.long())
    x, index = _pixels(features, labels, num_regions)
    count, mean, _ = region_stats(features, labels, num_regions)
    present = count > 0
    clusters = present.sum(1)
    hinge = (vector_norm(x - _at(mean.mT, index), norm, 1, keepdim=True) - delta_var).relu()
    pull = _region_sum(hinge.square(), index, num_regions)[:, 0]
    if pixel_weighting == "cluster":
        pull = (pull / count.clamp(min=1)).sum(1) / clusters.clamp(min=1)
    else:
        pull = pull.sum(1) / count.sum(1).clamp(min=1)
    # not -1: there torch 2.11 leaves out the pixel_weighting of one channel on meta tensors
    gap = vector_norm(mean[:, :, None] - mean[:, None], norm, 3)
    push = _pairs(present, (2 * delta_dist - gap).relu().square())
    push = push / (clusters * (clusters - 1)).clamp(min=1)
    regulariser = vector_norm(mean, norm, 2).sum(1) / clusters.clamp(min=1)
    loss = weights[0] * pull + weights[1] * push + weights[2] * regulariser
    return mean_over_images(loss, clusters > 0)


def background_distance(features: Tensor, weights: Tensor, squared: bool) -> Tensor:
    """MEnet eq. 5: S_i = |f_i - sum_j w_j f_j / sum_j w_j|, or its square."""
    mean, total = weighted_mean(features, weights, 0.0)
    distance = (wide(features) - mean[:, :, None, None]).square().sum(1)
    if not squared:
        # the gradient of sqrt at 0 is infinite
        positive = distance > 0
        distance = torch.where(positive, torch.where(positive, distance, 1).sqrt(), distance)
    return torch.where((total == 0)[:, None, None], 0, distance)


def weighted_mean(features: Tensor, weights: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """mean = sum_i w_i f_i / (sum_i w_i + eps), 0 if that is 0/0, and total = sum_i w_i."""
    x = wide(features).flatten(2)
    w = weights.flatten(1).to(x.dtype)
    # a pixel of weight exactly 0 may be NaN; then the gradient in its weight is 0, too
    readable = (w != 0) | x.isfinite().all(1)
    w = torch.where(readable, w, 0)
    total = w.sum(1)
    divisor = (total + eps)[:, None]
    mean = (torch.where(readable[:, None], x, 0) * w[:, None]).sum(2)
    return torch.where(divisor == 0, 0, mean / torch.where(divisor == 0, 1, divisor)), total


def compact_labels(labels: Tensor, ignore: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The rank of each label among the distinct labels of its image, -1 if ignored; the number of
    distinct labels [B]."""
    flat = labels.flatten(1).long()
    kept = torch.ones_like(flat, dtype=torch.bool)
    for value in ignore:
        kept &= flat != value
    # sort by label, the ignored ones last
    by_value = flat.argsort(dim=1, stable=True)
    order = by_value.gather(
        1, kept.gather(1, by_value).byte().argsort(dim=1, descending=True, stable=True)
    )
    ordered, ordered_kept = flat.gather(1, order), kept.gather(1, order)
    starts_rank = ordered_kept.clone()
    starts_rank[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    rank = torch.where(ordered_kept, starts_rank.cumsum(1) - 1, -1)
    return torch.empty_like(flat).scatter(1, order, rank).view(labels.shape), starts_rank.sum(1)


def _pixels(
    features: Tensor, labels: Tensor, num_regions: int, normalize: bool = False
) -> tuple[Tensor, Tensor]:
    """Features [B, C, N], 0 at ignored pixels, and labels [B, N], R at ignored pixels."""
    index = labels.flatten(1).long()
    valid = (index >= 0) & (index < num_regions)
    x = torch.where(valid[:, None], wide(features).flatten(2), 0)
    if normalize:
        norm = vector_norm(x, dim=1, keepdim=True)
        x = x / torch.where(norm == 0, 1, norm)
    return x, torch.where(valid, index, num_regions)


def _region_sum(values: Tensor, index: Tensor, num_regions: int) -> Tensor:
    """[B, K, N] -> [B, K, R]: the sum over the pixels of each region."""
    sums = values.new_zeros(*values.shape[:2], num_regions + 1)
    return sums.scatter_add(2, index[:, None].expand_as(values), values)[..., :num_regions]


def _at(table: Tensor, index: Tensor) -> Tensor:
    """[B, K, R] -> [B, K, N]: the column of each pixel's region, 0 at ignored pixels."""
    padded = torch.nn.functional.pad(table, (0, 1))
    return padded.gather(2, index[:, None].expand(-1, table.shape[1], -1))


def _pairs(present: Tensor, values: Tensor) -> Tensor:
    """[B, R, R] -> [B]: the sum over ordered pairs of distinct present regions."""
    distinct = ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    return torch.where(present[:, :, None] & present[:, None] & distinct, values, 0).sum((1, 2))
