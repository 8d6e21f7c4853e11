"""The Siamese loss over all pairs of pixels of two images.

Notation: P pairs of a valid pixel of x and one of y of the same image, s = <x_i, y_j>, z = a s + c
with a = weight / sqrt(var + eps) and c = bias - a mean, t = 1 where both have the same label. The
loss is the mean of softplus(z) - t z, whose derivative is g = sigmoid(z) - t.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._core import validation as check
from .._core.dispatch import choose, requested
from .._core.distributed import total
from .._core.numerics import wide
from .._core.operators import Kernel, to_image, to_kernel_dtype, to_scalar
from . import ops, reference

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# pixels of an image in the least-squares fit
SUBSET = 64
# Torch converts or copies a chunk of pixels at a time, which fits the caches of a CPU. On a GPU,
# where each costs launches, it is larger, up to 16 MiB of features in float64.
CHUNK_PIXELS = 2048
CHUNK_NUMBERS = 2**21
# eager's passes over all pairs, in multiplications for each
PASSES = 85


def pair_similarity_loss(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """The Siamese loss over all pairs of pixels of two images: do the two share a label?

    The mean, over all valid pairs of the batch, of the binary cross entropy between the batch norm
    of s_ij = <x_i, y_j> and the target [l_i = l_j]. With mu and var the mean and variance of s:
    z_ij = weight (s_ij - mu) / sqrt(var + eps) + bias and
    loss = mean(softplus(z_ij) - [l_i = l_j] z_ij).
    Equivalent eager code, for one image whose pixels are all valid:

        s = x[0].flatten(1).T @ y[0].flatten(1)
        z = torch.nn.functional.batch_norm(s[None, None], None, None, weight, bias, True)[0, 0]
        same = x_labels[0].flatten()[:, None] == y_labels[0].flatten()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, same.float())

    Args:
        x: [B, D, H, W] or [B, D, N].
        y: [B, D, H', W'] or [B, D, M].
        x_labels, y_labels: of the spatial shape of x and y, integer or bool, any number of classes.
            A pixel with a negative label is in no pair and has gradient 0.
        weight, bias: scale and shift, of one element; None stands for 1 and 0.
        running_mean, running_var: of one element, both or neither; updated in place in training, as
            batch norm does (with the unbiased variance).
        training: normalise with the statistics of this batch, or else with the running ones.
        momentum: weight of this batch in the running statistics.
        eps: >= 0.
        group: statistics and loss over the batch of all ranks of this process group; each rank
            holds some of its images, and all get the same loss. The gradient is that of the sum of
            the ranks' losses.

    Returns: a scalar; 0 without valid pairs. Differentiable in x, y, weight and bias, also through
    the statistics of the batch.

    The matrix of pairs is not stored. Its statistics follow from the first and second moments of x
    and y, in float64. The forward visits each pair once, for the loss and the gradients.
    Memory: the gradients, twice in the backward, and packed copies of the inputs: at most 4 times
    the float32 inputs, and 32 MiB. On a CPU, `backend=None` is eager where moments would take
    longer; it stores several matrices of the pairs, each no larger than x and y.
    Source: Najafi et al., similarity learning for dense label transfer: the training objective
    before its sampling, with the batch norm of the similarities.

    Example:

        >>> x, y = torch.randn(2, 1, 64, 16, 16).requires_grad_()
        >>> x_labels, y_labels = torch.randint(3, (2, 1, 16, 16))
        >>> pk.pair_similarity_loss(x, y, x_labels, y_labels).backward()
    """
    x, y = check.feature_pair("x", x, "y", y)
    check.labels("x_labels", x_labels, "x", x)
    check.labels("y_labels", y_labels, "y", y)
    training = check.flag("training", training)
    momentum, eps = _check_options(momentum, eps, group)
    for name, value in (
        ("weight", weight),
        ("bias", bias),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if value is None:
            continue
        if check.tensor(name, value).dtype not in check.FLOAT_DTYPES or value.numel() != 1:
            raise ValueError(
                f"{name}: expected one floating-point number, got {value.dtype}{list(value.shape)}"
            )
        check.on_device(name, value, "x", x)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_var: expected running_mean and running_var, or neither")
    if not training and running_mean is None:
        raise ValueError("running_mean: expected running statistics with training=False, got None")
    if requested(backend) is None and _stores_pairs(x, y):
        backend = "eager"
    chosen = choose("pair_similarity_loss", (x, y, x_labels, y_labels), backend)
    weight = to_scalar(1.0 if weight is None else weight.reshape(()), x)
    bias = to_scalar(0.0 if bias is None else bias.reshape(()), x)
    fixed = None if training else running_mean, None if training else running_var
    used = [None if value is None else to_scalar(value.reshape(()), x) for value in fixed]
    ranks = None if group is None else group.group_name
    if chosen == "eager":
        loss, mean, var, pairs = reference.pair_similarity_loss(
            x, y, x_labels, y_labels, weight, bias, used[0], used[1], eps, ranks
        )
    else:
        learned = any(tensor.requires_grad for tensor in (x, y, weight, bias))
        loss, mean, var, pairs, *_ = pair_loss(
            chosen,
            to_image(x),
            to_image(y),
            to_kernel_dtype(x_labels.flatten(1)),
            to_kernel_dtype(y_labels.flatten(1)),
            weight,
            bias,
            *used,
            eps,
            learned and torch.is_grad_enabled(),
            ranks,
        )
    if training and running_mean is not None and running_var is not None:
        # not under no_grad: torch.export cannot load a program with such a block that has no result
        unbiased = var * (pairs / (pairs - 1).clamp(min=1))
        for running, value in ((running_mean, mean), (running_var, unbiased)):
            moved = running.lerp(value.detach().to(running.dtype), momentum)
            running.copy_(torch.where(pairs > 0, moved, running))
    return loss


def _stores_pairs(x: Tensor, y: Tensor) -> bool:
    """Whether storing the pairs is faster than moments, in matrices no larger than the features;
    never in a traced program, whose sizes may vary."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    channels, n, m = x.shape[1], x.shape[2:].numel(), y.shape[2:].numel()
    return n * m <= min(channels, channels**2 // PASSES) * (n + m)


def _check_options(momentum: Any, eps: Any, group: Any) -> tuple[float, float]:
    check.group(group)
    return check.number("momentum", momentum, minimum=0), check.number("eps", eps, minimum=0)


class SiameseSimilarityLoss(nn.Module):
    """`pair_similarity_loss` with the state of its batch norm: `loss(x, y, x_labels, y_labels)`.

    Args:
        eps, momentum, group: as in `pair_similarity_loss`.
        affine: learn weight and bias.
        track_running_stats: keep running statistics and normalise with them in evaluation; without
            them, always with those of the batch.

    Its state_dict is compatible with that of `torch.nn.BatchNorm2d(1)`.

    Example:

        >>> loss = pk.SiameseSimilarityLoss()
        >>> features, labels = torch.randn(1, 64, 16, 16), torch.randint(3, (1, 16, 16))
        >>> loss(features, features, labels, labels).backward()
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        _check_options(momentum, eps, group)
        self.eps, self.momentum, self.group = eps, momentum, group
        self.weight = nn.Parameter(torch.ones(1)) if affine else None
        self.bias = nn.Parameter(torch.zeros(1)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", torch.zeros(1) if tracked else None)
        self.register_buffer("running_var", torch.ones(1) if tracked else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if tracked else None)

    def forward(self, x: Tensor, y: Tensor, x_labels: Tensor, y_labels: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return pair_similarity_loss(
            *(x, y, x_labels, y_labels),
            weight=self.weight,
            bias=self.bias,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training or self.running_mean is None,
            momentum=self.momentum,
            eps=self.eps,
            group=self.group,
        )

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, y: Tensor, x_labels: Tensor, y_labels: Tensor) -> Tensor: ...

    def extra_repr(self) -> str:
        return (
            f"eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}, "
            f"track_running_stats={self.running_mean is not None}"
        )


# ---- the operator ----


def _pair_loss(
    backend: str,
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
    group: str | None,
) -> tuple[Tensor, ...]:
    """The operator `pair_loss`. Only `pair_terms` visits the pairs."""
    n, sum_x, square_x = _moments(x, x_labels)
    m, sum_y, square_y = _moments(y, y_labels)
    # sum_ij <x_i, y_j>^2 = tr(sum_i x_i x_i^T sum_j y_j y_j^T)
    sums = torch.stack((n @ m, (sum_x * sum_y).sum(), (square_x * square_y).sum()))
    pairs, sum_of_s, square_of_s = total(sums, group)
    at_least_one = pairs.clamp(min=1)
    mean = sum_of_s / at_least_one
    var = (square_of_s / at_least_one - mean.square()).clamp(min=0)
    used_mean, used_var = mean, var
    if running_mean is not None and running_var is not None:
        used_mean, used_var = running_mean.double(), running_var.double()
    inverse = (used_var + eps).rsqrt()
    a = weight.double() * inverse
    c = bias.double() - a * used_mean
    dtype = wide(x[:0]).dtype
    alpha, beta = torch.zeros_like(a), torch.zeros_like(a)
    if gradient and running_mean is None:
        alpha, beta = _linear_part(x, y, x_labels, y_labels, a, c, dtype)
    affine = torch.stack((a, c, alpha, beta)).to(dtype)
    a, c, alpha, beta = affine.double()
    totals, grad_x, grad_y = ops.pair_terms(
        backend,
        # not bound to names: these copies must not outlive the operator
        *((wide(x), wide(y)) if backend == "cpu" else (x, y)),
        *(x_labels, y_labels, affine, gradient),
    )
    # sums of the loss, g and g s over the pairs
    loss, by_c, by_a = total(totals, group) / at_least_one
    _, own_by_c, own_by_a = totals / at_least_one
    result = (loss.to(dtype), mean.to(dtype), var.to(dtype), pairs)
    if not gradient:
        return *result, *(x.new_empty(0) for _ in range(4))
    by_inverse = by_a - used_mean * by_c
    by_var = -0.5 * a / (used_var + eps) * by_inverse
    by_mean = -a * by_c - 2 * used_mean * by_var
    if running_mean is not None:
        by_var, by_mean = torch.zeros_like(by_var), torch.zeros_like(by_mean)
    # pair_terms gives a sum_j (g_ij - alpha - beta s_ij) y_j. Add the linear part, and that of the
    # statistics, sum_j (by_mean + 2 by_var s_ij) y_j, from the moments of y.
    scale = 1 / at_least_one
    by_mean, by_square = by_mean + a * alpha, 2 * by_var + a * beta
    for gradient_of, own, labels, other_sum, other_square in (
        (grad_x, x, x_labels, sum_y, square_y),
        (grad_y, y, y_labels, sum_x, square_x),
    ):
        constant = (by_mean * scale * other_sum).to(dtype)[:, :, None]
        linear = (by_square * scale * other_square).to(dtype)
        for pixels, values, valid in _chunks(own, labels):
            part = gradient_of[..., pixels].mul_(scale.to(dtype))
            part.baddbmm_(linear, wide(values)).add_(constant * valid)
    return (
        *result,
        grad_x.to(x.dtype).view(x.shape),
        grad_y.to(y.dtype).view(y.shape),
        (inverse * (own_by_a - used_mean * own_by_c)).to(weight.dtype),
        own_by_c.to(bias.dtype),
    )


def _chunks(x: Tensor, labels: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A chunk of pixels at a time: their slice, features [B, D, n] (0 if invalid) and validity."""
    valid = (labels >= 0)[:, None]
    size = CHUNK_PIXELS
    if x.device.type != "cpu":
        size = max(size, CHUNK_NUMBERS // max(x.shape[0] * x.shape[1], 1))
    for first in range(0, labels.shape[1], size):
        pixels = slice(first, first + size)
        own = valid[..., pixels]
        yield pixels, torch.where(own, x.flatten(2)[..., pixels], 0), own


def _moments(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The number of valid pixels [B], their sum [B, D] and second moment [B, D, D], in float64: the
    variance is a difference of two large numbers."""
    batch, channels = x.shape[:2]
    first = x.new_zeros((batch, channels), dtype=torch.float64)
    second = x.new_zeros((batch, channels, channels), dtype=torch.float64)
    for _, values, _ in _chunks(x, labels):
        values = values.double()
        first += values.sum(2)
        second += values @ values.mT
    return (labels >= 0).sum(1).double(), first, second


def _linear_part(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    a: Tensor,
    c: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The least-squares fit g = alpha + beta s over a subset of the pairs, for s in `dtype`.

    The gradient through the statistics cancels the part of g that is linear in s, which is most of
    it unless the loss is near its minimum. Summing g - alpha - beta s avoids that cancellation.
    """
    own, other = (slice(None, None, t.shape[1] // SUBSET + 1) for t in (x_labels, y_labels))
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
    # of similarities that are equal but for rounding there is no slope
    rounding = 1000 * torch.finfo(dtype).eps
    sloped = square > rounding**2 * s.square().sum()
    beta = torch.where(sloped, (deviation * g).sum() / square, 0)
    return height - beta * mean, beta


# Images and labels as in `pair_terms`; weight, bias, mean and var 0-d, the last two in place of the
# statistics of the batch -> the loss, the mean and variance of the similarities, their number (0-d,
# float64), and the gradients of the loss, empty without `gradient`. With a group, all outputs are
# over the images of all ranks, except the gradients of weight and bias: those of the own images.
pair_loss = Kernel(
    "similarity",
    "pair_loss(Tensor x, Tensor y, Tensor x_labels, Tensor y_labels, Tensor weight, Tensor bias,"
    " Tensor? mean, Tensor? var, float eps, bool gradient, str? group) -> (Tensor loss,"
    " Tensor mean, Tensor var, Tensor pairs, Tensor grad_x, Tensor grad_y, Tensor grad_weight,"
    " Tensor grad_bias)",
    lambda x, y, x_labels, y_labels, weight, bias, mean, var, eps, gradient, group: (
        *(wide(x[:0]).new_empty(()) for _ in range(3)),
        x.new_empty((), dtype=torch.float64),
        *(value.new_empty(value.shape if gradient else 0) for value in (x, y, weight, bias)),
    ),
    made_of=_pair_loss,
)


def _save_pairs(ctx: Any, inputs: Any, output: Any) -> None:
    *_, ctx.group = inputs
    _, *others = output
    ctx.save_for_backward(*others[3:])
    ctx.mark_non_differentiable(*others)


def _pairs_gradient(backend: str, ctx: Any, grad_loss: Tensor, *_: None) -> Any:
    grad_loss = total(grad_loss, ctx.group)
    x, y, weight, bias = (grad_loss.to(saved.dtype) * saved for saved in ctx.saved_tensors)
    return x, y, None, None, weight, bias, None, None, None, None, None


pair_loss.differentiable(_save_pairs, _pairs_gradient)
