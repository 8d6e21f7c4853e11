"""Losses on region statistics: CAS, MEnet's metric expression loss, the discriminative loss.

Operators reduce the features to [B, R, C]; the rest is arithmetic on those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import mean_over_images
from .._core.operators import to_kernel_dtype
from . import ops, reference


def cas_loss(
    descriptors: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    alpha: float = 0.5,
    variant: str = "paper",
    divisor: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """The class-agnostic segmentation loss: compact regions, far from each other.

    Per image alpha sum_r variance_r - (1 - alpha) sum_{i != j} |mean_i - mean_j|^2 over the present
    regions and their ordered pairs (each pair twice); the mean over the images with a region.

    Args:
        descriptors: [B, C, H, W]; softmax outputs in the paper.
        labels: [B, H, W], integer or bool; any number of regions per image.
        num_regions: R >= 1.
        alpha: weight of the variance ("uniformer") term; that of the distance ("discriminator")
            term is 1 - alpha.
        variant: "paper", or "released" for the loss of the released two-region code, with labels 0
            and 1 (num_regions 2). There every pixel enters both regions, with weights
            label + 3e-5 and 1 - label + 3e-5; only region 1 has a variance, with squared weights;
            the pair counts once; every image counts.
        divisor: for "released", the divisor of the sum over images; None: B. The released code has
            a constant 40.

    Returns: a scalar.
    Memory: as for `region_stats`.
    Source: CAS eq. 1.

    Example:

        >>> logits = torch.randn(2, 21, 32, 32, requires_grad=True)
        >>> labels = torch.randint(5, (2, 32, 32))
        >>> pk.cas_loss(logits.softmax(1), labels, 5).backward()
    """
    check.features("descriptors", descriptors)
    check.labels("labels", labels, descriptors)
    check.count("num_regions", num_regions)
    check.number("alpha", alpha)
    if check.option("variant", variant, ("paper", "released")) == "paper":
        if divisor is not None:
            raise ValueError(f"divisor: expected None with variant='paper', got {divisor!r}")
    elif num_regions != 2:
        raise ValueError(f"num_regions: expected 2 with variant='released', got {num_regions}")
    elif divisor is not None and check.number("divisor", divisor, minimum=0) == 0:
        raise ValueError("divisor: expected a positive number, got 0")
    chosen = choose("cas_loss", (descriptors, labels), backend)
    if chosen == "eager" and variant == "paper":
        return reference.cas_loss(descriptors, labels, num_regions, alpha)
    if chosen == "eager":
        return reference.cas_loss_released(descriptors, labels, alpha, divisor)
    count, mean, variance = ops.region_stats(
        chosen, descriptors, to_kernel_dtype(labels), num_regions, False
    )
    if variant == "paper":
        return _cas_loss(count, mean, variance, alpha)
    return _cas_loss_released(count, mean, variance, alpha, divisor)


def _cas_loss(count: Tensor, mean: Tensor, variance: Tensor, alpha: float) -> Tensor:
    present = count > 0
    regions = present.sum(1)
    # sum_{i != j} |mu_i - mu_j|^2 = 2 P sum_i |mu_i - centre|^2 over the P present regions
    centre = mean.sum(1, keepdim=True) / regions.clamp(min=1)[:, None, None]
    spread = torch.where(present[..., None], mean - centre, 0).square().sum((1, 2))
    loss = alpha * variance.sum(1) - (1 - alpha) * 2 * spread * regions
    return mean_over_images(loss, regions > 0)


def _cas_loss_released(
    count: Tensor, mean: Tensor, variance: Tensor, alpha: float, divisor: float | None
) -> Tensor:
    count = count.to(mean.dtype)
    eps = reference.RELEASED_CAS_EPS
    # a region's own pixels have weight 1 + eps, those of the other region eps
    weight = count + eps * count.sum(1, keepdim=True)
    total = (count[..., None] * mean).sum(1, keepdim=True)
    blended = (count[..., None] * mean + eps * total) / weight.clamp(min=eps)[..., None]
    moment = count * (variance + (mean - blended[:, 1:]).square().sum(2))
    uniformer = (eps * eps * moment[:, 0] + (1 + eps) ** 2 * moment[:, 1]) / (
        weight[:, 1].clamp(min=eps) + eps
    )
    discriminator = (blended[:, 1] - blended[:, 0]).square().sum(1)
    loss = alpha * uniformer - (1 - alpha) * discriminator
    return loss.sum() / (max(loss.shape[0], 1) if divisor is None else divisor)


class CASLoss(OptionsModule):
    """`cas_loss` as a module: `CASLoss(**options)(descriptors, labels, num_regions)`.

    Example:

        >>> loss = pk.CASLoss(alpha=0.3)
        >>> loss(torch.rand(2, 21, 32, 32), torch.randint(5, (2, 32, 32)), 5).shape
        torch.Size([])
    """

    def forward(self, descriptors: Tensor, labels: Tensor, num_regions: int) -> Tensor:
        return cas_loss(descriptors, labels, num_regions, **self.options)


def metric_expression_loss(
    features: Tensor,
    mask: Tensor,
    *,
    form: str = "means",
    normalize: bool = False,
    mining: str | None = None,
    grad: str = "exact",
    backend: str | None = None,
) -> Tensor:
    """MEnet's metric loss: pixels near the mean of their own class, far from the other's.

    form="means", eq. 3: per image mean_i(|f_i - own mean|^2 - |f_i - other mean|^2), which equals
    -|mean_1 - mean_0|^2. form="pairwise", eq. 2: each squared distance to a mean is replaced by the
    mean squared distance to the pixels of that class (its own includes i itself), which adds
    (n_1 - n_0) (variance_1 - variance_0) / (n_1 + n_0). The mean over the images with both classes.

    Args:
        features: [B, C, H, W].
        mask: [B, H, W], bool or integer: 1 salient, 0 background, other values in neither class.
        normalize: divide the features of each pixel by their Euclidean norm first, as the released
            code does; a zero vector stays.
        mining: None, or "hard" (form "means" only): the mean over the mined pixels, which are the
            whole smaller class and as many pixels of the larger class, those with the largest
            terms. Ties take the larger flat index, a term of exactly 0 ranks as -100, and between
            classes of equal size the background counts as the larger one. The gradient goes through
            the class means, not through the choice of pixels.
        grad: "exact", or "released": the released layer, which always mines. Its value is
            4 - |mean_1 - mean_0|^2 over all pixels; every image counts, and an empty class has mean
            0. Its hand-written gradient is (other mean - own mean) / (C H W) at mined pixels and 0
            elsewhere: without the factor 2, the division by B, and the parts through the means and
            the normalisation.

    Returns: a scalar.
    Memory: as for `region_stats`; with mining also a few values per pixel.
    Source: MEnet eqs. 2-3.

    Example:

        >>> features, mask = torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32) < 0.3
        >>> pk.metric_expression_loss(features.requires_grad_(), mask, mining="hard").backward()
    """
    check.features("features", features)
    check.labels("mask", mask, features)
    check.option("form", form, ("means", "pairwise"))
    check.option("mining", mining, (None, "hard"))
    check.option("grad", grad, ("exact", "released"))
    if form == "pairwise" and (mining is not None or grad == "released"):
        raise ValueError("form: mining and grad='released' are defined for 'means', got 'pairwise'")
    check.flag("normalize", normalize)
    normalize, released = bool(normalize), grad == "released"
    chosen = choose("metric_expression_loss", (features, mask), backend)
    if chosen == "eager" and released:
        return reference.metric_expression_loss_released(features, mask, normalize)
    if chosen == "eager":
        return reference.metric_expression_loss(features, mask, form, normalize, mining == "hard")
    labels = to_kernel_dtype(mask)
    if released:
        return _metric_expression_released(chosen, features, labels, normalize)
    if mining == "hard":
        return _metric_expression_mined(chosen, features, labels, normalize)
    count, mean, variance = ops.region_stats(chosen, features, labels, 2, normalize)
    loss = -_gap(mean).square().sum(1)
    if form == "pairwise":
        balance = (count[:, 1] - count[:, 0]).to(loss.dtype) / count.sum(1).clamp(min=1)
        loss = loss + balance * (variance[:, 1] - variance[:, 0])
    return mean_over_images(loss, (count > 0).all(1))


def _metric_expression_mined(
    backend: str, features: Tensor, labels: Tensor, normalize: bool
) -> Tensor:
    """The mean of |f_i - own mean|^2 - |f_i - other mean|^2 over the mined pixels is -(gap of mined
    means) . (gap of class means)."""
    with torch.no_grad():
        _, mean, _ = ops.region_stats(backend, features, labels, 2, normalize)
        mined = _mine(backend, features, labels, mean, normalize)
    # regions: background, mined background, foreground, mined foreground
    count, mean, _ = ops.region_stats(backend, features, mined, 4, normalize)
    by_class, totals = (
        count.unflatten(1, (2, 2)),
        (count[..., None] * mean).unflatten(1, (2, 2)).sum(2),
    )
    class_mean = totals / by_class.sum(2).clamp(min=1)[..., None]
    loss = -(_gap(mean[:, 1::2]) * _gap(class_mean)).sum(1)
    return mean_over_images(loss, (by_class.sum(2) > 0).all(1))


def _metric_expression_released(
    backend: str, features: Tensor, labels: Tensor, normalize: bool
) -> Tensor:
    with torch.no_grad():
        count, mean, _ = ops.region_stats(backend, features, labels, 2, normalize)
        gap = _gap(mean)
        value = mean_over_images(
            4 - gap.square().sum(1), torch.ones_like(count[:, 0], dtype=torch.bool)
        )
        mined = _mine(backend, features, labels, mean, normalize)
    # the released gradient is one constant vector per class, which the sums of mined pixels carry
    count, mean, _ = ops.region_stats(backend, features, mined, 4, False)
    sums = count[..., None] * mean
    surrogate = ((sums[:, 1] - sums[:, 3]) * gap).sum() / max(features[0:1].numel(), 1)
    return value + surrogate - surrogate.detach()


def _mine(backend: str, features: Tensor, labels: Tensor, mean: Tensor, normalize: bool) -> Tensor:
    scores = ops.region_contrast(backend, features.detach(), labels, mean, normalize).flatten(1)
    return ops.hard_pixels(backend, scores, labels.flatten(1)).view(labels.shape)


def _gap(mean: Tensor) -> Tensor:
    return mean[:, 1] - mean[:, 0]


class MetricExpressionLoss(OptionsModule):
    """`metric_expression_loss` as a module: `MetricExpressionLoss(**options)(features, mask)`.

    Example:

        >>> loss = pk.MetricExpressionLoss(normalize=True)
        >>> loss(torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32) < 0.3).shape
        torch.Size([])
    """

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return metric_expression_loss(features, mask, **self.options)


def discriminative_loss(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    delta_var: float = 0.5,
    delta_dist: float = 1.5,
    weights: tuple[float, float, float] = (1.0, 1.0, 1e-3),
    norm: int = 2,
    reduction: str = "cluster",
    background: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """The discriminative loss of De Brabandere et al. on integer labels.

    Per image with C present regions:

        pull = 1/C sum_c 1/n_c sum_{i in c} [|mean_c - f_i| - delta_var]_+^2
        push = 1/(C (C - 1)) sum_{a != b} [2 delta_dist - |mean_a - mean_b|]_+^2, 0 if C = 1
        regulariser = 1/C sum_c |mean_c|

    The loss is weights . (pull, push, regulariser), averaged over the images with a region.

    Args:
        features: [B, C, H, W].
        labels: [B, H, W], integer or bool.
        num_regions: R >= 1; images need not contain all of them.
        delta_var, delta_dist: >= 0.
        weights: of pull, push and regulariser.
        norm: 1 or 2, in all three terms.
        reduction: of the pull term: "cluster" as above, or "pixel", the mean over all labelled
            pixels of the image.
        background: a label that enters no term.

    Returns: a scalar.
    Memory: block partials of at most a quarter of the float32 features; no [B, R, R] is stored.
    Source: De Brabandere et al. (2017), eqs. 1-4.

    Example:

        >>> features = torch.randn(2, 16, 32, 32, requires_grad=True)
        >>> pk.discriminative_loss(features, torch.randint(5, (2, 32, 32)), 5).backward()
    """
    check.features("features", features)
    check.labels("labels", labels, features)
    check.count("num_regions", num_regions)
    check.number("delta_var", delta_var, minimum=0)
    check.number("delta_dist", delta_dist, minimum=0)
    if not isinstance(weights, (tuple, list)) or len(weights) != 3:
        raise ValueError(
            f"weights: expected three numbers (pull, push, regulariser), got {weights!r}"
        )
    pull_weight, push_weight, mean_weight = (check.number("weights", one) for one in weights)
    check.option("norm", norm, (1, 2))
    check.option("reduction", reduction, ("cluster", "pixel"))
    if background is not None:
        check.integer("background", background, minimum=-(2**63))
    chosen = choose("discriminative_loss", (features, labels), backend)
    if chosen == "eager":
        return reference.discriminative_loss(
            *(features, labels, num_regions, delta_var, delta_dist),
            *((pull_weight, push_weight, mean_weight), norm, reduction, background),
        )
    count, mean, pulls, _ = ops.region_pull(
        chosen, features, to_kernel_dtype(labels), num_regions, float(delta_var), norm
    )
    if background is not None:
        region = torch.arange(num_regions, device=count.device)
        count = torch.where(region == background, 0, count)
    present = count > 0
    clusters = present.sum(1)
    pulls = torch.where(present, pulls, 0)
    if reduction == "cluster":
        pull = (pulls / count.clamp(min=1)).sum(1) / clusters.clamp(min=1)
    else:
        pull = pulls.sum(1) / count.sum(1).clamp(min=1)
    pushes, _ = ops.region_push(chosen, mean, present, float(delta_dist), norm)
    push = pushes / (clusters * (clusters - 1)).clamp(min=1)
    lengths = torch.linalg.vector_norm(torch.where(present[..., None], mean, 0), norm, 2)
    regulariser = lengths.sum(1) / clusters.clamp(min=1)
    loss = pull_weight * pull + push_weight * push + mean_weight * regulariser
    return mean_over_images(loss, clusters > 0)


class DiscriminativeLoss(OptionsModule):
    """`discriminative_loss` as a module: `DiscriminativeLoss(**options)(features, labels, R)`.

    Example:

        >>> loss = pk.DiscriminativeLoss(norm=1)
        >>> loss(torch.randn(2, 16, 32, 32), torch.randint(5, (2, 32, 32)), 5).shape
        torch.Size([])
    """

    def forward(self, features: Tensor, labels: Tensor, num_regions: int) -> Tensor:
        return discriminative_loss(features, labels, num_regions, **self.options)
