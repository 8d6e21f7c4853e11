"""The loss over all pairs, around the one part that has to visit them.

Notation: P pairs of a valid pixel of x and one of y of the same image, s = <x_i, y_j>, z = a s + c
with a = weight / sqrt(var + eps) and c = bias - a mean, t = 1 where both have the same label. The
loss is the mean of softplus(z) - t z, whose derivative is g = sigmoid(z) - t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .._core.numerics import wide

# Pixels of an image that the regression looks at.
FEW = 64
# Pixels that torch converts or copies at a time.
PIECE = 2048


def pieces(x: Tensor, labels: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some pixels at a time: which, the features [B, D, n], 0 where invalid, and what is valid."""
    valid = (labels >= 0)[:, None]
    for first in range(0, labels.shape[1], PIECE):
        some = slice(first, first + PIECE)
        yield some, torch.where(valid[..., some], x.flatten(2)[..., some], 0), valid[..., some]


def moments(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image the number of valid pixels [B], their sum [B, D] and second moment [B, D, D].

    In float64: the variance is a difference of two large numbers.
    """
    batch, channels = x.shape[:2]
    total = x.new_zeros((batch, channels), dtype=torch.float64)
    square = x.new_zeros((batch, channels, channels), dtype=torch.float64)
    for _, values, _ in pieces(x, labels):
        values = values.double()
        total += values.sum(2)
        square += values @ values.mT
    return (labels >= 0).sum(1).double(), total, square


def regression(
    x: Tensor, y: Tensor, x_labels: Tensor, y_labels: Tensor, a: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """g = alpha + beta s, by least squares over some pairs.

    The gradient through the statistics takes away from g what is linear in s, most of it for a loss
    that is not near its minimum. Sums of the rest are as exact as the result asks for.
    """
    own, other = (slice(None, None, t.shape[1] // FEW + 1) for t in (x_labels, y_labels))
    x, y = x.flatten(2)[..., own].double(), y.flatten(2)[..., other].double()
    x_labels, y_labels = x_labels[:, own], y_labels[:, other]
    valid = (x_labels >= 0)[:, :, None] & (y_labels >= 0)[:, None]
    s = torch.where(valid, x.mT @ y, 0)
    same = x_labels[:, :, None] == y_labels[:, None]
    g = torch.where(valid, torch.sigmoid(a * s + c) - same.double(), 0)
    pairs = valid.sum().clamp(min=1)
    mean, height = s.sum() / pairs, g.sum() / pairs
    deviation = torch.where(valid, s - mean, 0)
    square = deviation.square().sum()
    beta = torch.where(square > 0, (deviation * g).sum() / square, 0)
    return height - beta * mean, beta


def pair_loss(
    terms: Any,
    total: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    gradient: bool,
) -> tuple[Tensor, ...]:
    """loss, mean, var, pairs, and the gradients in x, y, weight and bias if they are wanted.

    `terms` streams over the pairs, `total` adds up over the ranks that share the batch; the
    gradients in weight and bias are those of the own pairs. Running statistics are used instead of
    those of the batch.
    """
    n, sum_x, square_x = moments(x, x_labels)
    m, sum_y, square_y = moments(y, y_labels)
    # sum_ij <x_i, y_j>^2 = tr(sum_i x_i x_i^T sum_j y_j y_j^T)
    sums = torch.stack((n @ m, (sum_x * sum_y).sum(), (square_x * square_y).sum()))
    pairs, sum_of_s, square_of_s = total(sums)
    at_least_one = pairs.clamp(min=1)
    mean = sum_of_s / at_least_one
    var = (square_of_s / at_least_one - mean.square()).clamp(min=0)
    used_mean, used_var = mean, var
    if running_mean is not None and running_var is not None:
        used_mean, used_var = running_mean.double(), running_var.double()
    inverse = (used_var + eps).rsqrt()
    a = weight.double() * inverse
    c = bias.double() - a * used_mean
    alpha, beta = torch.zeros_like(a), torch.zeros_like(a)
    if gradient and running_mean is None:
        alpha, beta = regression(x, y, x_labels, y_labels, a, c)
    dtype = wide(x[:0]).dtype
    affine = torch.stack((a, c, alpha, beta)).to(dtype)
    a, c, alpha, beta = affine.double()
    totals, grad_x, grad_y = terms(x, y, x_labels, y_labels, affine, gradient)
    # the totals of the loss, g and g s
    loss, by_c, by_a = total(totals) / at_least_one
    _, own_by_c, own_by_a = totals / at_least_one
    result = (loss.to(dtype), mean.to(dtype), var.to(dtype), pairs)
    if not gradient:
        return *result, *(x.new_empty(0) for _ in range(4))
    by_inverse = by_a - used_mean * by_c
    by_var = -0.5 * a / (used_var + eps) * by_inverse
    by_mean = -a * by_c - 2 * used_mean * by_var
    if running_mean is not None:
        by_var, by_mean = torch.zeros_like(by_var), torch.zeros_like(by_mean)
    # The terms give a sum_j (g_ij - alpha - beta s_ij) y_j. What they left out is put back, and the
    # statistics add sum_j (by_mean + 2 by_var s_ij) y_j.
    scale = 1 / at_least_one
    by_mean, by_square = by_mean + a * alpha, 2 * by_var + a * beta
    for result_of, own, labels, other_sum, other_square in (
        (grad_x, x, x_labels, sum_y, square_y),
        (grad_y, y, y_labels, sum_x, square_x),
    ):
        constant = (by_mean * scale * other_sum).to(dtype)[:, :, None]
        linear = (by_square * scale * other_square).to(dtype)
        for some, values, valid in pieces(own, labels):
            part = result_of[..., some].mul_(scale.to(dtype))
            part.baddbmm_(linear, wide(values)).add_(constant * valid)
    return (
        *result,
        grad_x.to(x.dtype).view(x.shape),
        grad_y.to(y.dtype).view(y.shape),
        (inverse * (own_by_a - used_mean * own_by_c)).to(weight.dtype),
        own_by_c.to(bias.dtype),
    )
