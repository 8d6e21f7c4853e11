"""Matching inside a window around every pixel, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# of queries; measured on a window of 25
ROWS, COLUMNS = 8, 16


class Tile(NamedTuple):
    """A tile of queries and the keys that any of them may see, each (rows, columns)."""

    queries: tuple[slice, slice]
    keys: tuple[slice, slice]
    offsets: tuple[Tensor, Tensor]  # [queries, keys], without sign, of rows and of columns

    def query(self, x: Tensor) -> Tensor:
        """The tile's part of [..., H, W], as [..., queries]."""
        return x[..., self.queries[0], self.queries[1]].flatten(-2)

    def key(self, x: Tensor) -> Tensor:
        """The keys' part of [..., H, W], as [..., keys]."""
        return x[..., self.keys[0], self.keys[1]].flatten(-2)

    def within(self, radius: int, step: int = 1) -> Tensor:
        """[queries, keys]: at most radius rows and columns away, by multiples of step."""
        rows, columns = ((x <= radius) & (x % step == 0) for x in self.offsets)
        return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


def tiles(height: int, width: int, radius: int, device: torch.device) -> Iterator[Tile]:
    """All pixels, in tiles whose keys are at most radius rows and columns away."""
    for top in range(0, height, ROWS):
        rows, far_rows, row_offsets = _side(top, ROWS, height, radius, device)
        for left in range(0, width, COLUMNS):
            columns, far_columns, column_offsets = _side(left, COLUMNS, width, radius, device)
            yield Tile((rows, columns), (far_rows, far_columns), (row_offsets, column_offsets))


def _side(
    first: int, step: int, size: int, radius: int, device: torch.device
) -> tuple[slice, slice, Tensor]:
    """Along one axis: the queries, the keys, and how far apart they are."""
    own = slice(first, min(first + step, size))
    far = slice(max(first - radius, 0), min(own.stop + radius, size))
    mine, theirs = (torch.arange(x.start, x.stop, device=device) for x in (own, far))
    return own, far, (mine[:, None] - theirs).abs()
