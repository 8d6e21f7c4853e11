"""The boundary loss, and what it shares with the Hausdorff loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.operators import to_kernel_dtype, to_mask
from .signed import to_boundary

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def boundary_loss(
    probabilities: Tensor,
    target: Tensor,
    *,
    classes: Sequence[int] | None = None,
    sampling: Sequence[float] | None = None,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> Tensor:
    """The boundary loss: probabilities times the signed distance to the target's boundary.

    With phi = `signed_distance` of the target's mask of a class, "edges", per image and class

        loss = 1/n sum_p phi(p) probability(p)

    over the n pixels p of the image. It is negative where the prediction lies inside of the target.

    Args:
        probabilities: [B, C, H, W] or [B, C, D, H, W]; softmax outputs in the paper.
        target: class labels [B, H, W] or [B, D, H, W], integer; a pixel of another label than 0 to
            C - 1 belongs to no class. Or masks of the shape of `probabilities`, bool or integer. A
            single channel needs a mask.
        classes: the channels that enter, `idc` in the original; None: all, the background too.
        sampling: the spacing of the pixels along each axis, as in `distance_transform`.
        reduction: of the losses per image and chosen class: "mean", "sum" or "none".

    Returns: a scalar; for "none" [B, number of classes]. A class that is absent from an image, or
    everywhere in it, has a loss of 0 there. Differentiable in probabilities.
    Memory: 9 bytes per pixel and chosen class, of which 4 last until the backward, and that of
    `signed_distance`; backward, the gradient.
    Source: Kervadec et al. (2019), Boundary loss for highly unbalanced segmentation, eq. 6.

    Example:

        >>> logits = torch.randn(2, 3, 32, 32, requires_grad=True)
        >>> labels = torch.randint(3, (2, 32, 32))
        >>> pk.boundary_loss(logits.softmax(1), labels, classes=[1, 2]).backward()
    """
    check.channel_images("probabilities", probabilities)
    check.class_target(target, "probabilities", probabilities)
    if target.dim() == probabilities.dim():
        check.integers("target", target)
    check.option("reduction", reduction, REDUCTIONS)
    channels = _check_classes(classes, probabilities)
    spacing = check.spacing(sampling, probabilities.dim() - 2)
    chosen = choose("boundary_loss", (probabilities, target), backend)
    if target.dim() < probabilities.dim():
        labels = to_kernel_dtype(target)
        masks = _joined([masks_of(labels, one) for one in channels])
    else:
        masks = to_mask("target", _joined([target[:, one] for one in channels]))
    phi = to_boundary(chosen, masks.flatten(0, 1).contiguous(), *spacing, False).view(masks.shape)
    # mixed dtypes multiply in the wider one
    products = _joined([probabilities[:, one] for one in channels]) * phi
    losses = mean_of_pixels(products)
    return reduced(losses, reduction, losses.numel())


class BoundaryLoss(OptionsModule):
    """`boundary_loss` as a module: `loss(probabilities, target)`.

    Args:
        classes, sampling, reduction, backend: as in `boundary_loss`.

    Example:

        >>> loss = pk.BoundaryLoss(classes=[1])
        >>> loss(torch.rand(2, 2, 32, 32), torch.randint(2, (2, 32, 32))).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        classes: Sequence[int] | None = None,
        sampling: Sequence[float] | None = None,
        reduction: Reduction = "mean",
        backend: str | None = None,
    ) -> None:
        if classes is not None:
            _class_numbers(classes)
        check.option("reduction", reduction, REDUCTIONS)
        super().__init__(classes=classes, sampling=sampling, reduction=reduction, backend=backend)

    def forward(self, probabilities: Tensor, target: Tensor) -> Tensor:
        return boundary_loss(probabilities, target, **self.options)

    if TYPE_CHECKING:

        def __call__(self, probabilities: Tensor, target: Tensor) -> Tensor: ...


# ---- what the losses share ----


def mean_of_pixels(x: Tensor) -> Tensor:
    """[B, C]: the mean over the axes of the space."""
    pixels = 1
    for size in x.shape[2:]:
        pixels = pixels * size
        # a sum to one number is split among threads, these are not
        x = x.sum(2)
    return x / max(pixels, 1)


def reduced(losses: Tensor, reduction: Reduction, count: int) -> Tensor:
    """`count` is the number of losses, without those that do not enter and are 0."""
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / max(count, 1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def masks_of(labels: Tensor, classes: slice) -> Tensor:
    """The masks [B, classes, *space] of class labels [B, *space]."""
    numbers = torch.arange(classes.start, classes.stop, device=labels.device)
    return labels[:, None] == numbers.view(-1, *[1] * (labels.dim() - 1))


def _check_classes(classes: Any, like: Tensor) -> list[slice]:
    """The channels as slices, which need neither an index on the device nor, alone, a copy."""
    count = like.shape[1]
    if classes is None:
        return [slice(0, count)]
    found: list[slice] = []
    for number in _class_numbers(classes):
        if number >= count:
            raise ValueError(f"classes: expected numbers below C = {count}, got {number}")
        first = found.pop().start if found and found[-1].stop == number else number
        found.append(slice(first, number + 1))
    return found


def _class_numbers(classes: Any) -> list[int]:
    if isinstance(classes, (str, Tensor)) or not isinstance(classes, (tuple, list, Sequence)):
        raise TypeError(f"classes: expected a list of ints, got {type(classes).__name__}")
    if not classes:
        raise ValueError("classes: expected at least one class, got none")
    return [check.integer("classes", one, minimum=0) for one in classes]
