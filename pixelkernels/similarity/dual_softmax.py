"""The loss that trains the confidences of given matches.

Notation: N pixels a_i and M pixels b_j, s_ij = <a_i, b_j> / temperature; r_i and c_j the logsumexp
of row i and of column j of s. The dual softmax of a match is p = e^{2 s_ij - r_i - c_j}: only r and
c need all pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.numerics import wide
from .._core.operators import Kernel, flat_masks, masks_of, nonnegative
from . import ops, reference

Reduction = Literal["mean", "sum", "none"]
# LoFTR's: confidences are kept this far from 0 and 1
MARGIN = 1e-6


def dual_softmax_loss(
    a: Tensor,
    b: Tensor,
    matches: Tensor,
    *,
    temperature: float = 0.1,
    alpha: float = 0.25,
    gamma: float = 2.0,
    mask_a: Tensor | None = None,
    mask_b: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> Tensor:
    """The focal loss of the confidences of given matches: LoFTR's coarse loss.

    With p_k the dual softmax of match k, as in `mutual_matches`, clamped to [1e-6, 1 - 1e-6]:
    loss = mean_k -alpha (1 - p_k)^gamma log(p_k). Equivalent eager code, for one image:

        s = a.flatten(1).T @ b.flatten(1) / temperature
        p = (s.softmax(0) * s.softmax(1))[matches[:, 1], matches[:, 2]].clamp(1e-6, 1 - 1e-6)
        loss = (-alpha * (1 - p) ** gamma * p.log()).mean()

    Args:
        a: [B, D, H, W] or [B, D, N].
        b: [B, D, H', W'] or [B, D, M].
        matches: [K, 3], integer: image, flat pixel of a and flat pixel of b of each match. A match
            of a pixel that is masked or does not exist, as -1, is left out.
        temperature: > 0.
        alpha, gamma: >= 0. The cross entropy has alpha = 1, gamma = 0.
        mask_a, mask_b: of the spatial shape of a and b, bool or integer. A pixel where its mask is
            0 is in no pair, and has gradient 0 even if its features are NaN.
        weights: [K], bool or floating-point, not negative, multiply the losses. The mean is still
            that over all matches, as in LoFTR's code.
        reduction: "mean" over the matches, "sum", or "none".

    Returns: a scalar, 0 without matches, or [K] for "none", in float32 (float64 for float64).
    Differentiable in a, b and the weights.

    The N x M similarities are not stored: the forward visits each pair once, and so does the
    gradient. LoFTR's dense supervision, which has a loss for all other pairs as well, is not
    covered. Memory: packed copies of a and b, the features of the matches, and the gradients in
    float32.
    Source: LoFTR (Sun et al., section 3.5), the released code's sparse supervision with the coarse
    type "focal", and the positive pairs of its "cross_entropy".

    Example:

        >>> a, b = torch.randn(2, 1, 64, 20, 20).requires_grad_()
        >>> matches = torch.tensor([[0, 5, 7], [0, 6, 8]])
        >>> pk.dual_softmax_loss(a, b, matches, temperature=8.0).backward()
    """
    a, b = check.feature_pair("a", a, "b", b)
    temperature, alpha, gamma = _check_options(temperature, alpha, gamma, reduction)
    masks = masks_of(a, b, mask_a, mask_b)
    if check.integers("matches", matches).dim() != 2 or matches.shape[1] != 3:
        raise ValueError(f"matches: expected shape [K, 3], got {list(matches.shape)}")
    check.on_device("matches", matches, "a", a)
    if weights is not None:
        if check.bool_or_floating("weights", weights).shape != matches.shape[:1]:
            raise ValueError(
                f"weights: expected shape {list(matches.shape[:1])} as matches, got"
                f" {list(weights.shape)}"
            )
        check.on_device("weights", weights, "a", a)
        weights = nonnegative(weights.to(wide(a[:0]).dtype))
    tensors = (a, b, matches, *masks, weights)
    chosen = choose("dual_softmax_loss", tuple(x for x in tensors if x is not None), backend)
    a, b, scale = a.flatten(2), b.flatten(2), 1 / temperature
    masks = flat_masks(masks)
    at_a, at_b, kept = _pixels_of(matches.long(), a, b, *masks)
    if chosen == "eager":
        sums = reference.log_sums(a, b, *masks, scale)
        log_p = reference.log_dual_softmax(a, b, *sums, at_a, at_b, scale)
    else:
        sums = ops.log_sums(chosen, a, b, *masks, scale)
        log_p = log_dual_softmax(chosen, a, b, *sums, at_a, at_b, scale)
    p = log_p.exp().to(wide(a[:0]).dtype).clamp(MARGIN, 1 - MARGIN)
    losses = torch.where(kept, -alpha * (1 - p) ** gamma * p.log(), 0)
    if weights is not None:
        losses = losses * torch.where(kept, weights, 0)
    if reduction == "none":
        return losses
    loss = losses.sum()
    return loss if reduction == "sum" else loss / kept.sum().clamp(min=1)


def _check_options(
    temperature: Any, alpha: Any, gamma: Any, reduction: Any
) -> tuple[float, float, float]:
    """`temperature`, `alpha` and `gamma`."""
    check.option("reduction", reduction, get_args(Reduction))
    return (
        check.positive("temperature", temperature),
        check.number("alpha", alpha, minimum=0),
        check.number("gamma", gamma, minimum=0),
    )


def _pixels_of(
    matches: Tensor, a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of each match, counted over all images of a and of b, and whether it is kept.

    A match that is left out has the number past the last pixel.
    """
    batch, *places = matches.unbind(1)
    kept = (batch >= 0) & (batch < a.shape[0])
    found = []
    for x, mask, place in zip((a, b), (mask_a, mask_b), places, strict=True):
        images, _, pixels = x.shape
        kept = kept & (place >= 0) & (place < pixels)
        at = torch.where(kept, batch * pixels + place, images * pixels)
        if mask is not None:
            kept = pad(mask.flatten(), (0, 1))[at]
        found.append((at, images * pixels))
    at_a, at_b = (torch.where(kept, at, none) for at, none in found)
    return at_a, at_b, kept


class DualSoftmaxLoss(OptionsModule):
    """`dual_softmax_loss` as a module: `loss(a, b, matches)`.

    Args:
        temperature, alpha, gamma, reduction, backend: as in `dual_softmax_loss`. Each call has its
            own masks and weights: `loss(a, b, matches, mask_a, mask_b, weights)`.

    Example:

        >>> loss = pk.DualSoftmaxLoss(temperature=8.0)
        >>> a, b = torch.randn(2, 1, 64, 20, 20).requires_grad_()
        >>> loss(a, b, torch.tensor([[0, 5, 7], [0, 6, 8]])).backward()
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
        backend: str | None = None,
    ) -> None:
        _check_options(temperature, alpha, gamma, reduction)
        super().__init__(
            temperature=temperature, alpha=alpha, gamma=gamma, reduction=reduction, backend=backend
        )

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        matches: Tensor,
        mask_a: Tensor | None = None,
        mask_b: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        return dual_softmax_loss(
            a, b, matches, mask_a=mask_a, mask_b=mask_b, weights=weights, **self.options
        )

    if TYPE_CHECKING:

        def __call__(
            self,
            a: Tensor,
            b: Tensor,
            matches: Tensor,
            mask_a: Tensor | None = None,
            mask_b: Tensor | None = None,
            weights: Tensor | None = None,
        ) -> Tensor: ...


# ---- the operator ----

# a [B, D, N], b [B, D, M], rows [B, N] and columns [B, M] as from `log_sums`; at_a and at_b [K]
# int64, pixels counted over all images, or one past the last -> [K]: 2 scale <a_i, b_j> - rows_i -
# columns_j, in the dtype of the sums; 0 for pixels past the last
log_dual_softmax = Kernel(
    "similarity",
    "log_dual_softmax(Tensor a, Tensor b, Tensor rows, Tensor columns, Tensor at_a, Tensor at_b,"
    " float scale) -> Tensor",
    lambda a, b, rows, columns, at_a, *rest: rows.new_empty(at_a.shape),
    made_of=lambda backend, *args: reference.log_dual_softmax(*args),
)


def _log_dual_softmax_backward(
    backend: str, grad: Tensor, a: Tensor, b: Tensor, at_a: Tensor, at_b: Tensor, scale: float
) -> tuple[Tensor, ...]:
    grad, a, b = grad.detach(), a.detach(), b.detach()
    by_a, by_rows = _of_one_side(grad, a, at_a, b, at_b, scale)
    by_b, by_columns = _of_one_side(grad, b, at_b, a, at_a, scale)
    return by_a, by_b, by_rows, by_columns


def _of_one_side(
    grad: Tensor, x: Tensor, at: Tensor, other: Tensor, other_at: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The gradients in x and in the sums of its pixels.

    They sum over the matches of a pixel in the order of the matches, on every device.
    """
    images, channels, pixels = x.shape
    gradient, by_sums = torch.zeros_like(x), grad.new_zeros((images, pixels))
    if 0 in (len(grad), images, pixels, other.shape[2]):
        return gradient, by_sums
    in_order, order = at.sort(stable=True)
    starts = torch.searchsorted(in_order, torch.arange(images * pixels + 1, device=at.device))
    factors = grad[order]

    def per_pixel(rows: Tensor, source: Tensor) -> Tensor:
        # the last bag, of matches past the last pixel, is dropped
        weights = factors.to(rows.dtype)
        sums = embedding_bag(source, rows, starts, mode="sum", per_sample_weights=weights)
        return sums[:-1].unflatten(0, (images, pixels))

    by_sums -= per_pixel(grad.new_ones((1, 1)), torch.zeros_like(order))[..., 0]
    if channels:
        rows = wide(other.mT.flatten(0, 1))
        source = other_at[order].clamp(max=len(rows) - 1)
        gradient.copy_(2 * scale * per_pixel(rows, source).mT)
    return gradient, by_sums


# -> the gradients in a, b, rows and columns
log_dual_softmax_backward = Kernel(
    "similarity",
    "log_dual_softmax_backward(Tensor grad, Tensor a, Tensor b, Tensor at_a, Tensor at_b,"
    " float scale) -> (Tensor a, Tensor b, Tensor rows, Tensor columns)",
    lambda grad, a, b, *rest: (
        *(torch.empty_like(x) for x in (a, b)),
        *(grad.new_empty((x.shape[0], x.shape[2])) for x in (a, b)),
    ),
    made_of=_log_dual_softmax_backward,
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    a, b, _, _, at_a, at_b, ctx.scale = inputs
    ctx.save_for_backward(a, b, at_a, at_b)


def _gradient(backend: str, ctx: Any, grad: Tensor) -> Any:
    found = log_dual_softmax_backward(backend, grad.contiguous(), *ctx.saved_tensors, ctx.scale)
    return *found, None, None, None


log_dual_softmax.differentiable(_save, _gradient)
