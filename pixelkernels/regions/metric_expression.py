"""MEnet's metric expression loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import mean_over_images
from .._core.operators import to_object_labels
from . import ops, reference

Form = Literal["means", "pairwise"]
Grad = Literal["exact", "released"]


def metric_expression_loss(
    features: Tensor,
    mask: Tensor,
    *,
    form: Form = "means",
    normalize: bool = False,
    mining: Literal["hard"] | None = None,
    grad: Grad = "exact",
    ignore_index: int = -1,
    backend: str | None = None,
) -> Tensor:
    """MEnet's metric loss: pixels near the mean of their own class, far from the other's.

    form="means", eq. 3: per image mean_i(|f_i - own mean|^2 - |f_i - other mean|^2), which equals
    -|mean_1 - mean_0|^2. form="pairwise", eq. 2: each squared distance to a mean is replaced by the
    mean squared distance to the pixels of that class (its own includes i itself), which adds
    (n_1 - n_0) (variance_1 - variance_0) / (n_1 + n_0). The mean over the images with both classes.

    Args:
        features: [B, C, H, W].
        mask: [B, H, W], bool or integer mask of the salient object.
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
        ignore_index: where `mask` has this value, the pixel is in neither class.

    Returns: a scalar.
    Memory: as for `region_stats`; with mining also a few values per pixel.
    Source: MEnet eqs. 2-3.

    Example:

        >>> features, mask = torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32) < 0.3
        >>> pk.metric_expression_loss(features.requires_grad_(), mask, mining="hard").backward()
    """
    check.features("features", features)
    check.labels("mask", mask, "features", features)
    normalize, ignore_index = _check_metric_expression(form, normalize, mining, grad, ignore_index)
    released = grad == "released"
    mask = to_object_labels("mask", mask, ignore_index)
    chosen = choose("metric_expression_loss", (features, mask), backend)
    if chosen == "eager" and released:
        return reference.metric_expression_loss_released(features, mask, normalize)
    if chosen == "eager":
        return reference.metric_expression_loss(features, mask, form, normalize, mining == "hard")
    labels = mask.contiguous()
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


def _check_metric_expression(
    form: Any, normalize: Any, mining: Any, grad: Any, ignore_index: Any
) -> tuple[bool, int]:
    check.option("form", form, ("means", "pairwise"))
    check.option("mining", mining, (None, "hard"))
    check.option("grad", grad, ("exact", "released"))
    if form == "pairwise" and (mining is not None or grad == "released"):
        raise ValueError("form: mining and grad='released' are defined for 'means', got 'pairwise'")
    return check.flag("normalize", normalize), check.label("ignore_index", ignore_index)


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
    """`metric_expression_loss` as a module: `loss(features, mask)`.

    Args:
        form, normalize, mining, grad, ignore_index, backend: as in `metric_expression_loss`.

    Example:

        >>> loss = pk.MetricExpressionLoss(normalize=True)
        >>> loss(torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32) < 0.3).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        form: Form = "means",
        normalize: bool = False,
        mining: Literal["hard"] | None = None,
        grad: Grad = "exact",
        ignore_index: int = -1,
        backend: str | None = None,
    ) -> None:
        _check_metric_expression(form, normalize, mining, grad, ignore_index)
        super().__init__(
            form=form,
            normalize=normalize,
            mining=mining,
            grad=grad,
            ignore_index=ignore_index,
            backend=backend,
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return metric_expression_loss(features, mask, **self.options)

    if TYPE_CHECKING:

        def __call__(self, features: Tensor, mask: Tensor) -> Tensor: ...
