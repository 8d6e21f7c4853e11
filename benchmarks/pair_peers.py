"""What users write today for the binary cross entropy over all pairs of pixels of two images.

x and y are [1, D, N] and [1, D, M], the labels [1, N] and [1, M], all valid. What takes x in chunks
has the statistics of the batch norm in closed form, as the library does: finding them chunk by
chunk would take as long again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import batch_norm
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK = 512  # pixels of x
EPS = 1e-5


def all_pairs(x: Tensor, y: Tensor, x_labels: Tensor, y_labels: Tensor) -> tuple[Tensor]:
    """The whole matrix."""
    s = x[0].mT @ y[0]
    z = batch_norm(s[None, None], None, None, training=True, eps=EPS)[0, 0]
    return (cross_entropy(z, (x_labels[0, :, None] == y_labels[0]).to(z.dtype)),)


def _statistics(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of <x_i, y_j> over all pairs."""
    x, y = x.double(), y.double()
    mean = (x.mean(1) * y.mean(1)).sum()
    square = ((x @ x.mT) * (y @ y.mT)).sum() / (x.shape[1] * y.shape[1])
    return mean, square - mean.square()


def _losses(x: Tensor, y: Tensor, own: Tensor, other: Tensor, a: Tensor, c: Tensor) -> Tensor:
    z = a * (x.mT @ y) + c
    return cross_entropy(z, (own[:, None] == other).to(z.dtype), reduction="sum")


def in_chunks(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    losses: Callable[..., Tensor] = _losses,
) -> tuple[Tensor]:
    """A stripe of the matrix at a time, computed again in the backward."""
    mean, var = _statistics(x[0], y[0])
    a = (var + EPS).rsqrt().to(x.dtype)
    c = (-mean).to(x.dtype) * a
    total = x.new_zeros((), dtype=torch.float64)
    for chunk, own in zip(x[0].split(CHUNK, 1), x_labels[0].split(CHUNK), strict=True):
        part = checkpoint(losses, chunk, y[0], own, y_labels[0], a, c, use_reentrant=False)
        total = total + part.double()
    return ((total / (x.shape[2] * y.shape[2])).to(x.dtype),)


def compiled_chunks() -> Callable[..., tuple[Tensor]]:
    losses = torch.compile(_losses, dynamic=False)
    return lambda *tensors: in_chunks(*tensors, losses=losses)
