"""Distance: which backend serves, and the clicks that are chosen by distances."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Generator, Tensor

from .._core import random as _random
from .._core.dispatch import choose
from .._core.operators import to_kernel_dtype
from . import ops, reference

NOWHERE = 2**31 - 1
# the longest side for which every squared distance is an int32
LONGEST_SIDE = 32767
# of simulate_clicks: the first three by number, or one of them at random for each image
STRATEGIES = ("background", "objects", "boundary", "mixed")


def click_maps(
    points: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    encoding: str,
    radius: float,
    truncate: float,
    backend: str | None,
) -> Tensor:
    points, labels = points.detach().float(), labels.long()
    labels = ops.click_labels(labels)
    # what stands in a padding slot is nobody's coordinate
    points = ops.click_points(torch.where(labels[..., None] < 0, 0, points))
    chosen = choose("click_maps", (points, labels), backend)
    if chosen == "eager":
        return reference.click_maps(points, labels, *size, encoding, radius, truncate)
    code = ops.ENCODINGS.index(encoding)
    return ops.click_maps(chosen, points, labels, *size, code, radius, truncate)


def distance_transform(
    mask: Tensor, squared: bool, spacing: tuple[float, float], backend: str | None
) -> Tensor:
    chosen = choose("distance_transform", (mask,), backend)
    images = mask.flatten(end_dim=-3) if mask.dim() > 2 else mask[None]
    return _transform(chosen, images, squared, spacing, False).view(mask.shape)


def _mask(values: Tensor) -> Tensor:
    # comparing bool with a number goes through int64
    return values if values.dtype == torch.bool else values != 0


def _transform(
    backend: str, mask: Tensor, squared: bool, spacing: tuple[float, float], border: bool
) -> Tensor:
    mask = _mask(mask)
    if backend != "eager":
        return ops.distance_transform(backend, mask.contiguous(), squared, *spacing, border)
    d2 = reference.squared_distance(mask, spacing, border)
    return d2.clamp(max=NOWHERE).int() if squared else d2.sqrt().float()


def _squared(backend: str, mask: Tensor, border: bool = False) -> Tensor:
    return _transform(backend, mask, True, (1.0, 1.0), border)


def next_click(
    prediction: Tensor,
    target: Tensor,
    not_clicked: Tensor | None,
    ignore_label: int,
    random: bool,
    generator: Generator | None,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = choose("next_click", (prediction, target), backend)
    target = target.view(torch.uint8) if target.dtype == torch.bool else target
    prediction, target = _mask(prediction).contiguous(), to_kernel_dtype(target)
    allowed = None if not_clicked is None else _mask(not_clicked).contiguous()
    deepest = partial(ops.deepest_errors, "cpu") if chosen == "cpu" else partial(_deepest, chosen)
    draws = None
    if random:
        draws = _random.integers(2**62, target.shape[:1], torch.int64, target.device, generator)
    depth, place = deepest(prediction, target, allowed, ignore_label, draws)
    positive = depth[:, 0] > depth[:, 1]
    valid = depth.amax(1) > 0
    flat = torch.where(positive, place[:, 0], place[:, 1])
    width = max(target.shape[2], 1)
    points = torch.stack([flat // width, flat % width], 1)
    return torch.where(valid[:, None], points, 0), positive.long(), valid


def _deepest(
    backend: str,
    prediction: Tensor,
    target: Tensor,
    allowed: Tensor | None,
    ignore_label: int,
    draws: Tensor | None,
) -> tuple[Tensor, Tensor]:
    is_object = target == 1
    missed, wrong = is_object & ~prediction, ~is_object & prediction
    info = torch.iinfo(target.dtype)
    if info.min <= ignore_label <= info.max:  # a number outside would be wrapped into it
        counts = target != ignore_label
        missed, wrong = missed & counts, wrong & counts
    errors = torch.stack([missed, wrong], 1)
    depth = _squared(backend, ~errors.flatten(0, 1), border=True).view(errors.shape)
    if allowed is not None:
        depth = torch.where(allowed[:, None], depth, 0)
    depth = depth.flatten(2)
    if depth.shape[2] == 0:
        depth = depth.new_zeros(*depth.shape[:2], 1)
    deepest, place = depth.amax(2), depth.argmax(2)  # the first of equal ones
    if draws is not None:
        own = torch.where((deepest[:, 0] > deepest[:, 1])[:, None], depth[:, 0], depth[:, 1])
        seen = (own > deepest.amax(1)[:, None] // 4).cumsum(1)
        nth = draws % seen[:, -1].clamp(min=1)
        # the first pixel with so many up to it
        place = (seen > nth[:, None]).byte().argmax(1)[:, None].expand_as(deepest)
    return deepest, place


def simulate_clicks(
    target: Tensor,
    num_positive: int,
    num_negative: int,
    others: Tensor | None,
    strategy: str,
    margin: float,
    spacing: float,
    band: float,
    generator: Generator | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    chosen = choose("simulate_clicks", (target,), backend)
    target = _mask(target)
    batch = target.shape[0]
    # always the same draws, so that one argument does not change what another one gets
    order = _random.integers(NOWHERE, (2, *target.shape), torch.int32, target.device, generator)
    strategies = _random.integers(3, (batch,), torch.int64, target.device, generator)
    if strategy != "mixed":
        strategies = torch.full_like(strategies, STRATEGIES.index(strategy))

    nearest = _square(margin)
    inside = target & (_squared(chosen, ~target) >= nearest)
    away = _squared(chosen, target)
    outside = ~target & (away >= nearest)
    empty = ~target.flatten(1).any(1)[:, None, None]
    in_band = outside & ((away <= int(min(band, LONGEST_SIDE) ** 2)) | empty)
    on_others = outside & _mask(others) if others is not None else torch.zeros_like(target)
    takes_others = (strategies == 1) & on_others.flatten(1).any(1)
    allowed = torch.where(takes_others[:, None, None], on_others, in_band)

    never = torch.zeros_like(strategies, dtype=torch.bool)
    apart = max(_square(spacing), 1)
    pick = partial(ops.pick_pixels, "cpu") if chosen == "cpu" else _pick_pixels
    positive = pick(inside.contiguous(), order[0], never, num_positive, apart)
    negative = pick(allowed.contiguous(), order[1], strategies == 2, num_negative, apart)
    points = torch.cat([positive, negative], 1)
    labels = torch.zeros_like(points[..., 0])
    labels[:, :num_positive] = 1
    return points, torch.where(points[..., 0] < 0, -1, labels)


def _square(distance: float) -> int:
    """The least squared distance between pixels that is at least `distance` squared."""
    return min(math.ceil(min(distance, NOWHERE) ** 2), NOWHERE)


def _pick_pixels(
    allowed: Tensor, order: Tensor, farthest: Tensor, count: int, apart: int
) -> Tensor:
    """`count` allowed pixels, squared distances at least `apart`; (-1, -1) where none is left.

    Each pick is the allowed pixel with the largest `order`, which makes it uniform; where
    `farthest` [B], each after the first is the one farthest from those before.
    """
    batch, height, width = allowed.shape
    points = allowed.new_full((batch, count, 2), -1, dtype=torch.int64)
    if allowed.numel() == 0:
        return points
    rows = torch.arange(height, dtype=torch.int32, device=allowed.device)[:, None]
    columns = torch.arange(width, dtype=torch.int32, device=allowed.device)
    gap = torch.full_like(order, NOWHERE)
    for i in range(count):
        rank = torch.where(farthest[:, None, None], gap, order) if i else order
        place = torch.where(allowed, rank, -1).flatten(1).argmax(1)
        point = torch.stack([place // width, place % width], 1)
        found = allowed.flatten(1).gather(1, place[:, None])
        points[:, i] = torch.where(found, point, -1)
        row, column = point.int()[:, :, None, None].unbind(1)
        d2 = (rows - row).square() + (columns - column).square()
        gap = torch.minimum(gap, d2)
        allowed = allowed & (d2 >= apart)
    return points
