"""The discriminative loss of De Brabandere et al."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import mean_over_images
from .._core.operators import to_kernel_dtype
from . import ops, reference

PixelWeighting = Literal["cluster", "pixel"]


@check.renamed(reduction="pixel_weighting", background="ignore_index")
def discriminative_loss(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    delta_var: float = 0.5,
    delta_dist: float = 1.5,
    weights: Sequence[float] = (1.0, 1.0, 1e-3),
    norm: Literal[1, 2] = 2,
    pixel_weighting: PixelWeighting = "cluster",
    ignore_index: int | None = None,
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
        pixel_weighting: in the pull term: "cluster" as above, where every region weighs the same,
            or "pixel", where every labelled pixel of the image does.
        ignore_index: a label that enters no term.

    Returns: a scalar.
    Memory: block partials of at most a quarter of the float32 features; no [B, R, R] is stored.
    Source: De Brabandere et al. (2017), eqs. 1-4.

    Example:

        >>> features = torch.randn(2, 16, 32, 32, requires_grad=True)
        >>> pk.discriminative_loss(features, torch.randint(5, (2, 32, 32)), 5).backward()
    """
    check.features("features", features)
    check.labels("labels", labels, "features", features)
    num_regions = check.regions("num_regions", num_regions)
    delta_var, delta_dist, factors, ignore_index = _check_discriminative(
        delta_var, delta_dist, weights, norm, pixel_weighting, ignore_index
    )
    chosen = choose("discriminative_loss", (features, labels), backend)
    if chosen == "eager":
        return reference.discriminative_loss(
            *(features, labels, num_regions, delta_var, delta_dist),
            *(factors, norm, pixel_weighting, ignore_index),
        )
    count, mean, pulls, _ = ops.region_pull(
        chosen, features, to_kernel_dtype(labels), num_regions, delta_var, norm
    )
    if ignore_index is not None:
        region = torch.arange(num_regions, device=count.device)
        count = torch.where(region == ignore_index, 0, count)
    present = count > 0
    clusters = present.sum(1)
    pulls = torch.where(present, pulls, 0)
    if pixel_weighting == "cluster":
        pull = (pulls / count.clamp(min=1)).sum(1) / clusters.clamp(min=1)
    else:
        pull = pulls.sum(1) / count.sum(1).clamp(min=1)
    pushes, _ = ops.region_push(chosen, mean, present, delta_dist, norm)
    push = pushes / (clusters * (clusters - 1)).clamp(min=1)
    lengths = torch.linalg.vector_norm(torch.where(present[..., None], mean, 0), norm, 2)
    regulariser = lengths.sum(1) / clusters.clamp(min=1)
    loss = factors[0] * pull + factors[1] * push + factors[2] * regulariser
    return mean_over_images(loss, clusters > 0)


def _check_discriminative(
    delta_var: Any, delta_dist: Any, weights: Any, norm: Any, pixel_weighting: Any, ignored: Any
) -> tuple[float, float, tuple[float, float, float], int | None]:
    if not isinstance(weights, (tuple, list, Sequence)) or len(weights) != 3:
        raise ValueError(
            f"weights: expected three numbers (pull, push, regulariser), got {weights!r}"
        )
    pull, push, regulariser = (check.number("weights", one) for one in weights)
    check.option("norm", norm, (1, 2))
    check.option("pixel_weighting", pixel_weighting, ("cluster", "pixel"))
    return (
        check.number("delta_var", delta_var, minimum=0),
        check.number("delta_dist", delta_dist, minimum=0),
        (pull, push, regulariser),
        None if ignored is None else check.label("ignore_index", ignored),
    )


class DiscriminativeLoss(OptionsModule):
    """`discriminative_loss` as a module: `loss(features, labels)`, or `loss(features, labels, R)`.

    Args:
        num_regions: R of every call; None: each call gives its own.
        delta_var, delta_dist, weights, norm, pixel_weighting, ignore_index, backend: as in
            `discriminative_loss`.

    Example:

        >>> loss = pk.DiscriminativeLoss(5, norm=1)
        >>> loss(torch.randn(2, 16, 32, 32), torch.randint(5, (2, 32, 32))).shape
        torch.Size([])
    """

    @check.renamed(reduction="pixel_weighting", background="ignore_index")
    def __init__(
        self,
        num_regions: int | None = None,
        *,
        delta_var: float = 0.5,
        delta_dist: float = 1.5,
        weights: Sequence[float] = (1.0, 1.0, 1e-3),
        norm: Literal[1, 2] = 2,
        pixel_weighting: PixelWeighting = "cluster",
        ignore_index: int | None = None,
        backend: str | None = None,
    ) -> None:
        if num_regions is not None:
            check.regions("num_regions", num_regions)
        _check_discriminative(delta_var, delta_dist, weights, norm, pixel_weighting, ignore_index)
        super().__init__(
            num_regions=num_regions,
            delta_var=delta_var,
            delta_dist=delta_dist,
            weights=weights,
            norm=norm,
            pixel_weighting=pixel_weighting,
            ignore_index=ignore_index,
            backend=backend,
        )

    def forward(self, features: Tensor, labels: Tensor, num_regions: int | None = None) -> Tensor:
        options = self.with_count("num_regions", num_regions)
        return discriminative_loss(features, labels, **options)

    if TYPE_CHECKING:

        def __call__(
            self, features: Tensor, labels: Tensor, num_regions: int | None = None
        ) -> Tensor: ...
