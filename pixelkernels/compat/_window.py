"""Squared distances to the pixels of a window, one row of the window at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def window_rows(
    query: Tensor, previous: Tensor, radius: int, step: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """For each row offset dy in [-radius, radius] that is a multiple of step: dy + radius, and
    |query(y, x) - previous(y + dy, x + dx)|^2 for dx from -radius to radius, [2 * radius + 1, H,
    W]; inf outside the image.

    Args:
        query, previous: [D, H, W].
        radius: of the window, in pixels.
        step: >= 1.
    """
    _, height, width = query.shape
    square = query.square().sum(0)[:, :, None]
    sides = (radius,) * 4
    far = F.pad(previous.square().sum(0), sides, value=torch.inf)[:, None]
    rows = F.pad(previous, sides)
    for first in range(radius % step, 2 * radius + 1, step):
        near = slice(first, first + height)
        products = torch.einsum("dyx,dyz->yxz", query, rows[:, near])
        distances = square + far[near] - 2 * products
        # pixel x sees columns x to x + 2 radius of the padded row: a view, no copy
        row, column, padded = distances.stride()
        shape, strides = (2 * radius + 1, height, width), (padded, row, column + padded)
        yield first, distances.as_strided(shape, strides)
