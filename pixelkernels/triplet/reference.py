"""Triplets in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: S sets of K pixels per image, each row of a set a pixel. The sets (A, P, N) have the hinge
[d(A, P) - d(A, N) + margin]_+, the sets (F1, F2, B1, B2) those of (F1, F2, B1) and (B1, B2, F2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import pad

from .._core.numerics import wide

# number of sets -> (anchor, positive, negative) of each hinge
HINGES = {3: ((0, 1, 2),), 4: ((0, 1, 2), (2, 3, 1))}


def sample_pixels(mask: Tensor, num_samples: int, keys: Tensor) -> Tensor:
    """The `num_samples` True pixels of mask [B, H*W] with the smallest `keys`, then -1; [B, n]."""
    inside = pad(mask, (0, num_samples))
    order = torch.where(inside, pad(keys, (0, num_samples)), torch.inf).argsort(1)[:, :num_samples]
    return torch.where(inside.gather(1, order), order, -1)


def stack_sets(*sets: Tensor | None) -> Tensor:
    """[B, S, K] of S sets [B, K]; the fourth may be None."""
    return torch.stack([one for one in sets if one is not None], 1)


def hinges(features: Tensor, sets: Tensor, margin: float, squared: bool, eps: float) -> Tensor:
    """The hinges [B, S - 2, K] of sets [B, S, K]; 0 in a row with a negative index."""
    valid = (sets >= 0).all(1, keepdim=True)
    # absent rows read a padding pixel before the first
    pixels = pad(wide(features).flatten(2), (1, 0))
    index = torch.where(valid, sets + 1, 0).flatten(1)
    index = index[:, None].expand(-1, features.shape[1], -1)
    vectors = pixels.gather(2, index).unflatten(2, sets.shape[1:]).unbind(2)
    rows = []
    for anchor, positive, negative in HINGES[sets.shape[1]]:
        own = distance(vectors[anchor], vectors[positive], squared, eps)
        other = distance(vectors[anchor], vectors[negative], squared, eps)
        rows.append((own - other + margin).clamp(min=0))
    return torch.where(valid, torch.stack(rows, 1), 0)


def weights(features: Tensor, sets: Tensor) -> Tensor:
    """[B], in the dtype of the hinges: the factors in a mean over the rows of an image, then over
    the images with a row.
    """
    rows = (sets >= 0).all(1).sum(1)
    count = (rows * (rows > 0).sum()).to(wide(features[:0]).dtype)
    return torch.where(rows > 0, 1 / count, 0)


def distance(u: Tensor, v: Tensor, squared: bool, eps: float) -> Tensor:
    """[B, C, K] -> [B, K]: |u - v|^2, or |u - v + eps| as torch's pairwise_distance."""
    if squared:
        return (u - v).square().sum(1)
    return vector_norm(u - v + eps, dim=1)
