"""Literal statements of the distance family in NumPy, and masks that are hard on transforms."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

NOWHERE = 2**31 - 1
ENCODINGS = {"euclidean": None, "disk": 6.5, "tanh": 20.0, "gaussian": 9.0}


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
        "sparse": torch.rand(height, width, generator=generator) < 0.01,
        "dense": torch.rand(height, width, generator=generator) < 0.7,
    }


def squared_distances(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """By trying every pair of pixels of one image."""
    pixels, sites = np.argwhere(np.ones_like(mask)), np.argwhere(mask)
    if len(sites) == 0:
        return np.full(mask.shape, NOWHERE)
    rows, columns = (np.subtract.outer(pixels[:, i], sites[:, i]) for i in (0, 1))
    return (rows * rows + columns * columns).min(1).reshape(mask.shape)


def next_click(
    prediction: NDArray[np.bool_],
    target: NDArray[np.int64],
    not_clicked: NDArray[np.bool_],
    ignore_label: int,
) -> tuple[tuple[int, int], int, bool]:
    """The evaluation protocol's own steps, on one image."""
    depths = error_depths(prediction, target, not_clicked, ignore_label)
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
    ignore_label: int,
) -> list[NDArray[np.int64]]:
    """Of the missed and of the wrong pixels of one image, squared; 0 where none may be clicked."""
    counts = target != ignore_label
    depths = []
    for error in ((target == 1) & ~prediction & counts, (target != 1) & prediction & counts):
        d2 = squared_distances(~np.pad(error, 1))[1:-1, 1:-1]
        depths.append(d2 * not_clicked)
    return depths


def clicks(batch=2, count=12, height=48, width=65, seed=0):
    """Some inside, some outside, at whole and at broken places, some padding."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([height, width])
    points = (1.4 * torch.rand(batch, count, 2, generator=generator) - 0.2) * size
    points[:, ::2] = points[:, ::2].round()
    return points, torch.randint(-1, 2, (batch, count), generator=generator)


@st.composite
def masks(draw: st.DrawFn, most: int = 40) -> NDArray[np.bool_]:
    height, width = (draw(st.integers(1, most)) for _ in range(2))
    density = draw(st.sampled_from((0, 0.005, 0.03, 0.2, 0.5, 0.9, 1)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # blocks of one value as well as single pixels
    side = draw(st.sampled_from((1, 1, 3, 9)))
    coarse = random.random((-(-height // side), -(-width // side))) < density
    return np.kron(coarse, np.ones((side, side), bool))[:height, :width].copy()
