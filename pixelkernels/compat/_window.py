"""Distances to every pixel of a window, a row of the window at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def window_rows(
    query: Tensor, previous: Tensor, radius: int, step: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """For every row offset dy from -radius to radius that is a multiple of step, dy + radius and
    |query(y, x) - previous(y + dy, x + dx)|^2 of all column offsets, [2 * radius + 1, H, W]; inf
    outside.

    Args:
        query, previous: [D, H, W].
        radius: of the window.
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
        # pixel x of a row looks at x to x + 2 radius of the padded one
        row, column, padded = distances.stride()
        shape, strides = (2 * radius + 1, height, width), (padded, row, column + padded)
        yield first, distances.as_strided(shape, strides)
