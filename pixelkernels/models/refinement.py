"""Feature back-propagating refinement (f-BRS, Sofiiuk et al.), which fits the prediction to the
clicks, and the loop of clicks and predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.distance import next_click

from .interactive import Clicks, FewShotInteractiveNet, Support
from .layers import check_like, size_of

PLACES = ("before", "after")
# weights of the objective and stopping thresholds of the released code
REGULARISER, BIAS_REGULARISER, HISTORY = 1e-3, 1e-2, 20
SATISFIED_POSITIVE, SATISFIED_NEGATIVE = 0.49, 0.49


def refined_logits(
    network: FewShotInteractiveNet,
    images: Tensor,
    clicks: Clicks,
    support: Support,
    *,
    place: str = "after",
    evaluations: int = 20,
) -> Tensor:
    """The network's logits [B, H, W] after L-BFGS has fitted a scale s and a bias b per channel of
    its features f to the clicks.

    The objective for the features (1 + s) f + b is the mean of (1 - p)^2 in the 3x3 squares around
    positive clicks, plus the mean of p^2 in those around negative ones, plus 1e-3 |s|^2 +
    1e-2 |b|^2. Fitting stops when p > 0.49 in all positive squares and p < 0.49 in all negative
    ones; the best s and b are used. Only the logits in the squares are resized, so an evaluation
    costs the layers after the features at their own resolution. Unlike the released code, squares
    at the border are clipped, not dropped, and a mask that hardly changes does not stop the
    fitting, because that would need the whole mask.

    Args:
        network: in evaluation mode.
        images, clicks, support: as for its forward.
        place: "after" fits the junction's output (f-BRS-AJ), "before" its input (f-BRS-BJ).
        evaluations: the largest number of evaluations.
    """
    if place not in PLACES:
        raise ValueError(f"place: expected {' or '.join(PLACES)}, got {place!r}")
    size = size_of(images)
    with torch.no_grad():
        base = network.join(images, clicks, support)
        if place == "after":
            base = network.junction(base)
    squares = _Squares(clicks, size)
    # s and b
    fitted = torch.zeros(2, *base.shape[:2], 1, 1, dtype=base.dtype, device=base.device)
    fitted.requires_grad_()
    best = fitted.detach().clone()
    least = torch.full((), torch.inf, device=base.device)
    optimizer = torch.optim.LBFGS(
        [fitted], max_iter=evaluations, max_eval=evaluations, history_size=HISTORY,
        tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def features(values: Tensor) -> Tensor:
        x = (1 + values[0]) * base + values[1]
        return network.junction(x) if place == "before" else x

    def evaluate() -> Tensor:
        with torch.enable_grad():
            misfit, satisfied = squares.misfit(network.head(features(fitted)))
            size_of_change = fitted.square().sum((1, 2, 3, 4))
            loss = misfit + REGULARISER * size_of_change[0] + BIAS_REGULARISER * size_of_change[1]
            (gradient,) = torch.autograd.grad(loss, fitted)
        loss = loss.detach()
        best.copy_(torch.where(loss < least, fitted.detach(), best))
        torch.minimum(least, loss, out=least)
        fitted.grad = torch.where(satisfied, 0, gradient)  # a zero gradient stops L-BFGS
        return loss

    optimizer.step(evaluate)
    with torch.no_grad():
        return network.classify(features(best), size)


class _Squares:
    """The pixels in the 3x3 squares around clicks, each counted once per label."""

    def __init__(self, clicks: Clicks, size: tuple[int, int]) -> None:
        points = (
            clicks.points.round().long() if clicks.points.is_floating_point() else clicks.points
        )
        device = points.device
        near = torch.tensor([-1, 0, 1], device=device)
        around = torch.stack(torch.meshgrid(near, near, indexing="ij"), -1).flatten(0, 1)
        pixels = (points[:, :, None] + around).flatten(1, 2)
        labels = clicks.labels.repeat_interleave(len(around), dim=1)
        limits = torch.tensor(size, device=device)
        inside = ((pixels >= 0) & (pixels < limits)).all(-1)
        # pixels that several squares share are counted once
        same = (pixels[:, :, None] == pixels[:, None]).all(-1)
        same &= (labels[:, :, None] == labels[:, None]) & inside[:, None]
        share = inside / same.sum(-1).clamp(min=1)
        self._weights = [share * (labels == label) for label in (0, 1)]
        # coordinates of grid_sample, in [-1, 1]
        self._grid = ((2 * pixels + 1) / limits - 1).flip(-1)[:, None]

    def misfit(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The objective's data terms for logits [B, 1, h, w], and whether fitting should stop."""
        sampled = F.grid_sample(
            logits, self._grid.to(logits), padding_mode="border", align_corners=False
        )
        p = sampled[:, 0, 0].sigmoid()
        negative, positive = (w.to(p) for w in self._weights)
        misfit = _mean(positive, (1 - p).square()) + _mean(negative, p.square())
        wrong = (positive > 0) & (p <= SATISFIED_POSITIVE)
        wrong |= (negative > 0) & (p >= SATISFIED_NEGATIVE)
        return misfit, ~wrong.any()


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    return (weights * values).sum() / (weights.sum() + 1e-5)


class Step(NamedTuple):
    """All clicks so far, the logits [B, H, W], and each image's IoU with the target [B]."""

    clicks: Clicks
    logits: Tensor
    iou: Tensor


def click_loop(
    network: FewShotInteractiveNet,
    images: Tensor,
    support: Support,
    target: Tensor,
    *,
    num_clicks: int = 10,
    refinement: str | None = None,
) -> Iterator[Step]:
    """Simulates a user who repeatedly clicks on the largest error (`next_click`).

    Args:
        network: in evaluation mode.
        images: [B, 3, H, W].
        support: annotated images of the class.
        target: [B, H, W], the mask that the user wants; nonzero is the object.
        num_clicks: clicks per image.
        refinement: None, or the `place` of `refined_logits`.

    Yields: a Step per click. The click of an image without an error is padding.
    """
    check_like("target", target, images)
    target = target != 0
    prediction = torch.zeros_like(target, dtype=torch.bool)
    not_clicked = torch.ones_like(prediction)
    points, labels = [], []
    for _ in range(num_clicks):
        click = next_click(prediction, target, not_clicked=not_clicked)
        points.append(torch.where(click.valid[:, None], click.points, -1))
        labels.append(torch.where(click.valid, click.labels, -1))
        rows, columns = click.points.unbind(-1)
        not_clicked[torch.arange(len(rows)), rows, columns] = False
        clicks = Clicks(torch.stack(points, 1), torch.stack(labels, 1))
        if refinement is None:
            with torch.no_grad():
                logits = network(images, clicks, support)
        else:
            logits = refined_logits(network, images, clicks, support, place=refinement)
        prediction = logits > 0
        overlap = (prediction & target).sum((1, 2))
        union = (prediction | target).sum((1, 2))
        yield Step(clicks, logits, overlap / union.clamp(min=1))
