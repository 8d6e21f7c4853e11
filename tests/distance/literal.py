"""The definitions of the distance family, pixel by pixel in NumPy, and masks to try them on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

NOWHERE = 2**31 - 1


def hard_masks(height: int, width: int) -> dict[str, Tensor]:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    generator = torch.Generator().manual_seed(0)
    single = torch.zeros(height, width, dtype=torch.bool)
    single[height // 3, width // 4] = True
    return {
        "empty": torch.zeros(height, width, dtype=torch.bool),
        "full": torch.ones(height, width, dtype=torch.bool),
        "single": single,
        "diagonal": rows == columns,
        "antidiagonal": rows + columns == width - 1,
        "checkerboard": (rows + columns) % 2 == 0,
        "last column": (columns == width - 1).expand(height, width).clone(),
        "one corner": (rows + columns) == 0,
        "other corner": (rows + columns) == height + width - 2,
        "sparse": torch.rand(height, width, generator=generator) < 0.01,
        "dense": torch.rand(height, width, generator=generator) < 0.7,
    }


def hard_volumes(depth: int, height: int, width: int) -> dict[str, Tensor]:
    """Slices of hard masks, and what lies across slices."""
    planes = hard_masks(height, width)
    generator = torch.Generator().manual_seed(1)
    volumes = {
        name: torch.rand(depth, height, width, generator=generator) < density
        for name, density in (("empty", 0), ("sparse", 0.003), ("half", 0.5), ("full", 1))
    }
    for name in ("single", "diagonal", "checkerboard", "last column", "other corner"):
        for where in (0, depth - 1):
            volume = torch.zeros(depth, height, width, dtype=torch.bool)
            volume[where] = planes[name]
            volumes[f"{name} {where}"] = volume
    volumes["slices"] = (torch.arange(depth) % 3 == 1)[:, None, None].expand(-1, height, width)
    return {name: volume.clone() for name, volume in volumes.items()}


def squared_distances(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of one image or volume, by comparing all pairs of pixels."""
    pixels, sites = np.argwhere(np.ones_like(mask)), np.argwhere(mask)
    if len(sites) == 0:
        return np.full(mask.shape, NOWHERE)
    offsets = (np.subtract.outer(pixels[:, i], sites[:, i]) for i in range(mask.ndim))
    return sum(x * x for x in offsets).min(1).reshape(mask.shape)


def nearest_true(mask: NDArray[np.bool_], sampling: tuple[float, ...]) -> NDArray[np.int64]:
    """The coordinates of the nearest True pixel, [axes, *space], by comparing all pairs.

    Among equal distances, the first in the order of columns, then rows, then depths.
    """
    pixels, sites = np.argwhere(np.ones_like(mask)), np.argwhere(mask)
    if len(sites) == 0:
        return np.full((mask.ndim, *mask.shape), -1)
    sites = sites[np.lexsort(sites.T)]
    squares = 0.0
    for axis, step in enumerate(sampling):
        squares = squares + (step * np.subtract.outer(pixels[:, axis], sites[:, axis])) ** 2.0
    return sites[squares.argmin(1)].T.reshape(mask.ndim, *mask.shape)


def next_click(
    prediction: NDArray[np.bool_],
    target: NDArray[np.int64],
    not_clicked: NDArray[np.bool_],
    ignore_index: int,
) -> tuple[tuple[int, int], int, bool]:
    """The steps of the evaluation protocol on one image."""
    depths = error_depths(prediction, target, not_clicked, ignore_index)
    deepest = [depth.max() if depth.size else 0 for depth in depths]
    if max(deepest) == 0:
        return (0, 0), 0, False
    positive = deepest[0] > deepest[1]
    depth = depths[0 if positive else 1]
    row, column = np.argwhere(depth == depth.max())[0]  # argwhere is in row-major order
    return (int(row), int(column)), int(positive), True


def error_depths(
    prediction: NDArray[np.bool_],
    target: NDArray[np.int64],
    not_clicked: NDArray[np.bool_],
    ignore_index: int,
) -> list[NDArray[np.int64]]:
    """The squared depths of missed and of wrong pixels; 0 where no click is allowed."""
    counts = target != ignore_index
    depths = []
    for error in ((target != 0) & ~prediction & counts, (target == 0) & prediction & counts):
        d2 = squared_distances(~np.pad(error, 1))[1:-1, 1:-1]
        depths.append(d2 * not_clicked)
    return depths


@st.composite
def masks(draw: st.DrawFn, most: int = 40) -> NDArray[np.bool_]:
    height, width = (draw(st.integers(1, most)) for _ in range(2))
    density = draw(st.sampled_from((0, 0.005, 0.03, 0.2, 0.5, 0.9, 1)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # blocks of one value as well as single pixels
    side = draw(st.sampled_from((1, 1, 3, 9)))
    coarse = random.random((-(-height // side), -(-width // side))) < density
    return np.kron(coarse, np.ones((side, side), bool))[:height, :width].copy()
