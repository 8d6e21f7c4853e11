"""The Hausdorff loss by distance transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import wide
from .._core.operators import Kernel, to_kernel_dtype, to_mask
from . import ops
from .losses import (
    REDUCTIONS,
    Reduction,
    masks_of,
    mean_of_pixels,
    reduced,
)
from .reference import NOWHERE
from .signed import chunks


def hausdorff_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.0,
    include_background: bool = False,
    batch: bool = False,
    reduction: Reduction = "mean",
    sampling: Sequence[float] | None = None,
    backend: str | None = None,
) -> Tensor:
    """The Hausdorff loss by distance transforms: squared errors, weighted by distances.

    Per image and channel, with D_q(p) the distance of pixel p to the boundary of prediction > 0.5:
    to the nearest pixel on the other side of it, and D_t the same of target > 0.5,

        loss = 1/n sum_p (prediction(p) - target(p))^2 (D_q(p)^alpha + D_t(p)^alpha)

    Args:
        prediction: [B, C, H, W] or [B, C, D, H, W], probabilities.
        target: class labels [B, H, W] or [B, D, H, W], integer; a pixel of another label than 0 to
            C - 1 belongs to no class. Or masks of the shape of `prediction`: bool, integer, or
            floating point for soft ones. A single channel needs a mask.
        alpha: >= 0.
        include_background: whether channel 0 enters. A single channel always does.
        batch: average over the images before `reduction`, too.
        reduction: of the losses per image and channel, or per channel: "mean", "sum" or "none".
        sampling: the spacing of the pixels along each axis, as in `distance_transform`.

    Returns: a scalar; for "none" [B, channels], or [channels] with `batch`. Distances of an image
    that is empty or full are 0, as it has no boundary. Differentiable in prediction; the distances
    are constants.
    Memory: 4 bytes per pixel and channel that enters, which last until the backward, and 32 bytes
    per pixel of one image's channel, or of several with 2^20 pixels together (2^24 on a GPU, all on
    eager); backward, the gradient.
    Source: Karimi and Salcudean (2019), Reducing the Hausdorff distance in medical image
    segmentation with convolutional neural networks, Loss_DT.

    Example:

        >>> logits = torch.randn(2, 3, 32, 32, requires_grad=True)
        >>> labels = torch.randint(3, (2, 32, 32))
        >>> pk.hausdorff_loss(logits.softmax(1), labels).backward()
    """
    check.channel_images("prediction", prediction)
    check.class_target(target, "prediction", prediction)
    alpha = _check_hausdorff(alpha, include_background, batch, reduction)
    spacing = check.spacing(sampling, prediction.dim() - 2)
    chosen = choose("hausdorff_loss", (prediction, target), backend)
    images, channels = prediction.shape[:2]
    first = 1 if channels > 1 and not include_background else 0
    if target.dim() < prediction.dim():
        target = to_kernel_dtype(target)
    elif not target.is_floating_point():
        target = to_mask("target", target)
    losses = _hausdorff_errors(
        chosen,
        prediction,
        target.detach(),
        first,
        alpha,
        *spacing,
        sampling is None,
        torch.is_grad_enabled() and prediction.requires_grad,
    )[0]
    count = channels - first
    if batch:
        losses = losses.sum(0) / max(images, 1)
    else:
        count = images * count
    return losses[..., first:] if reduction == "none" else reduced(losses, reduction, count)


def _check_hausdorff(alpha: Any, include_background: Any, batch: Any, reduction: Any) -> float:
    check.flag("include_background", include_background)
    check.flag("batch", batch)
    check.option("reduction", reduction, REDUCTIONS)
    found = check.number("alpha", alpha, minimum=0)
    if found == math.inf:
        raise ValueError(f"alpha: expected a finite number, got {alpha}")
    return found


class HausdorffLoss(OptionsModule):
    """`hausdorff_loss` as a module: `loss(prediction, target)`.

    Args:
        alpha, include_background, batch, reduction, sampling, backend: as in `hausdorff_loss`.

    Example:

        >>> loss = pk.HausdorffLoss(include_background=True)
        >>> loss(torch.rand(2, 2, 32, 32), torch.randint(2, (2, 32, 32))).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        include_background: bool = False,
        batch: bool = False,
        reduction: Reduction = "mean",
        sampling: Sequence[float] | None = None,
        backend: str | None = None,
    ) -> None:
        _check_hausdorff(alpha, include_background, batch, reduction)
        super().__init__(
            alpha=alpha,
            include_background=include_background,
            batch=batch,
            reduction=reduction,
            sampling=sampling,
            backend=backend,
        )

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return hausdorff_loss(prediction, target, **self.options)

    if TYPE_CHECKING:

        def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...


# ---- the operator ----


def _hausdorff_plain(
    prediction: Tensor, target: Tensor, first: int, alpha: float, *options: Any
) -> tuple[Tensor]:
    """The operator on eager, by torch's own operations, which have a gradient."""
    q, t = _pair(prediction, target, slice(None), slice(first, prediction.shape[1]))
    weights = _weights("eager", q, t, alpha, *options[:4], may_read=False)
    error = functional.mse_loss(wide(q), t.to(weights.dtype), reduction="none")
    # the first channels have a place in the result, too
    return (functional.pad(mean_of_pixels(error * weights), (first, 0)),)


def _hausdorff_in_chunks(
    backend: str, prediction: Tensor, target: Tensor, first: int, alpha: float, *options: Any
) -> tuple[Tensor, Tensor]:
    *transform, gradient = options
    losses, slope = _hausdorff_fake(prediction, target, first, gradient)
    kept, dtype = prediction[:, first:], losses.dtype
    slope = slope.view(kept.shape if gradient else 0)
    for images, channels in chunks(kept, *kept.shape[:2]):
        shifted = slice(channels.start + first, channels.stop + first)
        q, t = _pair(prediction, target, images, shifted)
        weights = _weights(backend, q, t, alpha, *transform, may_read=kept.is_cpu)
        error = q - t.to(dtype)
        out = slope[images, channels] if gradient else weights
        losses[images, shifted] = mean_of_pixels(error.mul_(torch.mul(weights, error, out=out)))
    return losses, slope.flatten()


def _pair(
    prediction: Tensor, target: Tensor, images: slice, channels: slice
) -> tuple[Tensor, Tensor]:
    """Prediction and target of some images and channels."""
    q = prediction[images, channels]
    if target.dim() == prediction.dim():
        return q, target[images, channels]
    return q, masks_of(target[images], channels)


def _weights(
    backend: str,
    q: Tensor,
    t: Tensor,
    alpha: float,
    depth_spacing: float,
    row_spacing: float,
    column_spacing: float,
    unit: bool,
    *,
    may_read: bool,
) -> Tensor:
    """D_q^alpha + D_t^alpha, contiguous, of the shape of `q`.

    `may_read`: whether the call may depend on values.
    """
    spacing = (depth_spacing, row_spacing, column_spacing)
    _, _, *space = q.shape
    # squares as integers
    squared = unit and all(side <= check.LONGEST_SIDES[len(space)] for side in space)
    sides = torch.stack([q > 0.5, t > 0.5 if t.is_floating_point() else t])
    # from True to False pixels, and from False to True ones
    fields = ops.label_distance(backend, sides.flatten(0, 2), squared, *spacing, False, True)
    fields = fields.view(sides.shape).flatten(3)
    nowhere = fields[..., :1] == (NOWHERE if squared else math.inf)
    if not may_read or bool(nowhere.any()):
        fields.masked_fill_(nowhere, 0)
    powers = fields.to(wide(q[:0]).dtype)
    if (power := alpha / 2 if squared else alpha) != 1:
        powers.pow_(power)
    return powers[0].add_(powers[1]).view(q.shape)


def _hausdorff_fake(
    prediction: Tensor, target: Tensor, first: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    batch, channels, *space = prediction.shape
    kept = batch * (channels - first) * math.prod(space) if rest[-1] else 0
    losses = prediction.new_zeros((batch, channels), dtype=wide(prediction[:0]).dtype)
    return losses, losses.new_empty(kept)


# prediction [B, C, *space]; target of the same shape, bool or floating point, or class labels
# [B, *space]; channels from `first` on enter -> losses [B, C], 0 in the others, and for the
# gradient, if it is asked for, prediction - target times the weights: [B, C - first, *space], flat,
# since a size C - first that may be 1 has no strides for torch.export
_hausdorff_errors = Kernel(
    "distance",
    "hausdorff_errors(Tensor prediction, Tensor target, SymInt first, float alpha,"
    " float depth_spacing, float row_spacing, float column_spacing, bool unit, bool gradient)"
    " -> (Tensor losses, Tensor slope)",
    _hausdorff_fake,
    eager=_hausdorff_plain,
    made_of=_hausdorff_in_chunks,
)


def _save_slope(ctx: Any, inputs: Any, output: Any) -> None:
    prediction, _, ctx.first, *_ = inputs
    _, slope = output
    ctx.shape, ctx.dtype = prediction.shape, prediction.dtype
    ctx.save_for_backward(slope)
    ctx.mark_non_differentiable(slope)


def _hausdorff_gradient(backend: str, ctx: Any, grad_losses: Tensor, *_: None) -> Any:
    (slope,) = ctx.saved_tensors
    space = ctx.shape[2:]
    scale = grad_losses[:, ctx.first :] * (2 / max(math.prod(space), 1))
    gradient = slope.new_empty(ctx.shape, dtype=ctx.dtype)
    gradient[:, : ctx.first] = 0
    kept = gradient[:, ctx.first :]
    torch.mul(slope.view(kept.shape), scale.view(*scale.shape, *[1] * len(space)), out=kept)
    return gradient, *[None] * 8


_hausdorff_errors.differentiable(_save_slope, _hausdorff_gradient)
