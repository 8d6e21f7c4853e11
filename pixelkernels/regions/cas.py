"""The class-agnostic segmentation (CAS) loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import mean_over_images
from .._core.operators import to_kernel_dtype
from . import ops, reference

Variant = Literal["paper", "released"]


def cas_loss(
    descriptors: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    alpha: float = 0.5,
    variant: Variant = "paper",
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
    check.labels("labels", labels, "descriptors", descriptors)
    num_regions, alpha, divisor = _check_cas(num_regions, alpha, variant, divisor)
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


def _check_cas(
    num_regions: Any, alpha: Any, variant: Any, divisor: Any
) -> tuple[Any, float, float | None]:
    num_regions = check.regions("num_regions", num_regions)
    alpha = check.number("alpha", alpha)
    if check.option("variant", variant, ("paper", "released")) == "paper":
        if divisor is not None:
            raise ValueError(f"divisor: expected None with variant='paper', got {divisor!r}")
        return num_regions, alpha, None
    if num_regions != 2:
        raise ValueError(f"num_regions: expected 2 with variant='released', got {num_regions}")
    return num_regions, alpha, None if divisor is None else check.positive("divisor", divisor)


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
    """`cas_loss` as a module: `loss(descriptors, labels)`, or `loss(descriptors, labels, R)`.

    Args:
        num_regions: R of every call; None: each call gives its own.
        alpha, variant, divisor, backend: as in `cas_loss`.

    Example:

        >>> loss = pk.CASLoss(5, alpha=0.3)
        >>> loss(torch.rand(2, 21, 32, 32), torch.randint(5, (2, 32, 32))).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_regions: int | None = None,
        *,
        alpha: float = 0.5,
        variant: Variant = "paper",
        divisor: float | None = None,
        backend: str | None = None,
    ) -> None:
        _check_cas(2 if num_regions is None else num_regions, alpha, variant, divisor)
        super().__init__(
            num_regions=num_regions, alpha=alpha, variant=variant, divisor=divisor, backend=backend
        )

    def forward(
        self, descriptors: Tensor, labels: Tensor, num_regions: int | None = None
    ) -> Tensor:
        return cas_loss(descriptors, labels, **self.with_count("num_regions", num_regions))

    if TYPE_CHECKING:

        def __call__(
            self, descriptors: Tensor, labels: Tensor, num_regions: int | None = None
        ) -> Tensor: ...
