"""Simulated user clicks: on the largest error, or at random on and around an object."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Generator, Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.named_tuples import serializable
from .._core.operators import random_integers, to_mask, to_object_labels
from . import ops, reference
from .reference import NOWHERE

Strategy = Literal["background", "objects", "boundary", "mixed"]
# numbers of the strategies; "mixed" is one of the first three
STRATEGIES = get_args(Strategy)


@serializable
class NextClick(NamedTuple):
    """`points` [B, 2], or [B, 3] of volumes, int64, `labels` [B] int64 and `valid` [B] bool."""

    points: Tensor
    labels: Tensor
    valid: Tensor


@check.renamed(ignore_label="ignore_index")
def next_click(
    prediction: Tensor,
    target: Tensor,
    *,
    spatial_dims: int = 2,
    not_clicked: Tensor | None = None,
    ignore_index: int = -1,
    random: bool = False,
    generator: Generator | None = None,
    backend: str | None = None,
) -> NextClick:
    """Where a user would click next: the centre of the largest error of a prediction.

    Errors are false negatives (object, not predicted) and false positives (predicted, not object).
    The depth of an error pixel is its distance to the nearest pixel without an error of its kind;
    there are none outside the image. The click is the deepest pixel, the first one in row-major
    order. It is positive if the false negatives are strictly deeper. With `random`, it is drawn
    uniformly from the pixels of that kind whose depth is more than half of the maximum.

    Args:
        prediction: [B, H, W], or [B, D, H, W] with spatial_dims=3; bool or integer mask.
        target: bool or integer mask of the object, of the same shape.
        spatial_dims: 2 or 3.
        not_clicked: bool or integer mask of the same shape; no click where it is False.
        ignore_index: where `target` has this value, there is no error whatever the prediction.
        random: draw the click. In training, one prediction should not always get the same click.
        generator: on the device of `target`; the same state gives the same clicks.

    Returns: NextClick(points [B, 2] int64, labels [B] int64 1 or 0, valid [B] bool); points are
    (row, column), or (depth, row, column) [B, 3] in volumes. Without errors, the label is 0, the
    point (0, 0) and valid False.
    Memory: of images on cpu 3 MiB, or 3 bytes per pixel of one image if that is more, and 2 bytes
    per pixel of an integer mask; of volumes on cpu 14 bytes per voxel; elsewhere about 30 bytes per
    pixel. Depths are compared as exact squared integers, so sides are at most 32767, of volumes
    26755.
    Source: the evaluation protocol of f-BRS, RITM and SAM 2; `random` is the training of RITM and
    of SAM-Med3D.

    Example:

        >>> target = torch.zeros(1, 9, 9, dtype=torch.bool)
        >>> target[:, 2:7, 3:8] = True
        >>> pk.next_click(torch.zeros_like(target), target).points
        tensor([[4, 5]])
    """
    ignore_index = check_arguments(prediction, target, spatial_dims, not_clicked, ignore_index)
    check.flag("random", random)
    check.generator(generator, target)
    chosen = choose("next_click", (prediction, target), backend)
    prediction = to_mask("prediction", prediction).contiguous()
    target = to_object_labels("target", target, ignore_index).contiguous()
    allowed = None if not_clicked is None else to_mask("not_clicked", not_clicked).contiguous()
    draws = None
    if random:
        draws = random_integers(2**62, target.shape[:1], torch.int64, target.device, generator)
    find = ops.deepest_errors if chosen == "cpu" and spatial_dims == 2 else _deepest_errors
    depth, index = find(chosen, prediction, target, allowed, draws)
    positive = depth[:, 0] > depth[:, 1]
    valid = depth.amax(1) > 0
    flat = torch.where(positive, index[:, 0], index[:, 1])
    points = reference.coordinates(flat, target.shape[1:])
    return NextClick(torch.where(valid[:, None], points, 0), positive.long(), valid)


def check_arguments(
    prediction: Any, target: Any, spatial_dims: Any, not_clicked: Any, ignore_index: Any
) -> int:
    """`ignore_index`, as an int."""
    check.mask("prediction", prediction, spatial_dims)
    check.short_sides("prediction", prediction, spatial_dims)
    check.mask_like("target", target, "prediction", prediction)
    if not_clicked is not None:
        check.mask_like("not_clicked", not_clicked, "prediction", prediction)
    return check.label("ignore_index", ignore_index)


def _deepest_errors(
    backend: str,
    prediction: Tensor,
    target: Tensor,
    allowed: Tensor | None,
    draws: Tensor | None,
) -> tuple[Tensor, Tensor]:
    is_object = target > 0
    # where there is no false negative, and where there is no false positive
    right = torch.stack([~is_object | prediction, ~prediction | is_object], 1)
    if target.dtype != torch.bool:
        right |= (target < 0)[:, None]
    depth = _squared_distance(backend, right.flatten(0, 1), border=True).view(right.shape)
    if allowed is not None:
        depth = torch.where(allowed[:, None], depth, 0)
    depth = depth.flatten(2)
    if depth.shape[2] == 0:
        depth = depth.new_zeros(*depth.shape[:2], 1)
    deepest, index = depth.max(2)  # the first of equal values
    if draws is not None:
        deeper = torch.where((deepest[:, 0] > deepest[:, 1])[:, None], depth[:, 0], depth[:, 1])
        candidates = (deeper > deepest.amax(1)[:, None] // 4).cumsum(1)
        nth = draws % candidates[:, -1].clamp(min=1)
        # the first pixel with so many candidates up to it
        index = (candidates > nth[:, None]).byte().argmax(1)[:, None].expand_as(deepest)
    return deepest, index


def simulate_clicks(
    target: Tensor,
    num_positive: int,
    num_negative: int,
    *,
    spatial_dims: int = 2,
    others: Tensor | None = None,
    strategy: Strategy = "mixed",
    margin: float = 5,
    spacing: float = 10,
    band: float = 40,
    generator: Generator | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Random clicks as a user would place them on and around an object, for training.

    Positive clicks are drawn in turn, uniformly from the pixels of the target at least `margin`
    from its edge and `spacing` from the previous ones. Negative clicks are at least `margin` from
    the target and `spacing` from each other. Their strategies:

        background  uniform among the pixels within `band` of the target
        objects     uniform among the pixels of `others`; background if there are none
        boundary    the first as for background, each further one at the pixel within `band` that is
                    farthest from the previous ones, so that they surround the target

    Args:
        target: [B, H, W], or [B, D, H, W] with spatial_dims=3; bool or integer mask.
        num_positive, num_negative: clicks per image, P and N.
        spatial_dims: 2 or 3.
        others: bool or integer mask of other objects, for "objects" and "mixed", of the same shape.
        strategy: one of the three, or "mixed": one of them at random for each image.
        margin, spacing, band: in pixels, >= 0. The border of the image is no edge.
        generator: on the device of `target`; the same state gives the same clicks.

    Returns: (points [B, P + N, 2], of volumes [B, P + N, 3], labels [B, P + N]), int64, positive
    clicks first. If no pixel is left, the rest is padding: points of -1 with label -1. An empty
    target has no positive clicks, and the whole image for negative ones.
    Memory: about 40 bytes per pixel.
    Source: Xu et al., Deep interactive object selection, section 3.2.

    Example:

        >>> target = torch.zeros(1, 64, 64, dtype=torch.bool)
        >>> target[:, 16:48, 16:48] = True
        >>> points, labels = pk.simulate_clicks(target, 2, 3)
        >>> points.shape, labels.tolist()
        (torch.Size([1, 5, 2]), [[1, 1, 0, 0, 0]])
    """
    check.short_sides("target", check.mask("target", target, spatial_dims), spatial_dims)
    if others is not None:
        check.mask_like("others", others, "target", target)
    num_positive = check.count("num_positive", num_positive, minimum=0)
    num_negative = check.count("num_negative", num_negative, minimum=0)
    check.option("strategy", strategy, STRATEGIES)
    given = {"margin": margin, "spacing": spacing, "band": band}
    margin, spacing, band = (check.number(name, x, minimum=0) for name, x in given.items())
    check.generator(generator, target)
    chosen = choose("simulate_clicks", (target,), backend)
    target, device = to_mask("target", target), target.device
    # draw the same numbers whatever the arguments: `strategy` does not change the positive clicks
    seeds = random_integers(2**62, (2, target.shape[0]), torch.int64, device, generator)
    strategies = random_integers(
        len(STRATEGIES) - 1, target.shape[:1], torch.int64, device, generator
    )
    if strategy != "mixed":
        strategies = torch.full_like(strategies, STRATEGIES.index(strategy))

    nearest = _square(margin)
    inside = target & (_squared_distance(chosen, ~target) >= nearest)
    from_target = _squared_distance(chosen, target)
    outside = ~target & (from_target >= nearest)
    empty = _per_image(~target.flatten(1).any(1), target)
    in_band = outside & ((from_target <= int(min(band**2, NOWHERE - 1))) | empty)
    others_outside = (
        torch.zeros_like(target) if others is None else outside & to_mask("others", others)
    )
    on_objects = (strategies == STRATEGIES.index("objects")) & others_outside.flatten(1).any(1)
    allowed = torch.where(_per_image(on_objects, target), others_outside, in_band)

    farthest = strategies == STRATEGIES.index("boundary")
    never = torch.zeros_like(farthest)
    gap = max(_square(spacing), 1)
    positive = ops.pick_pixels(chosen, inside.contiguous(), seeds[0], never, num_positive, gap)
    negative = ops.pick_pixels(chosen, allowed.contiguous(), seeds[1], farthest, num_negative, gap)
    points = torch.cat([positive, negative], 1)
    labels = torch.zeros_like(points[..., 0])
    labels[:, :num_positive] = 1
    return points, torch.where(points[..., 0] < 0, -1, labels)


def _squared_distance(backend: str, mask: Tensor, border: bool = False) -> Tensor:
    return ops.distance_transform(backend, mask.contiguous(), True, 1.0, 1.0, 1.0, border)


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _square(distance: float) -> int:
    """The smallest squared distance between pixels that is at least `distance` squared."""
    return min(math.ceil(min(distance, NOWHERE) ** 2), NOWHERE)
