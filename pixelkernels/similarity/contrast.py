"""Supervised contrast of labelled pixel embeddings: InfoNCE over all pairs with a bank.

Notation: N anchors a_i, M bank entries b_j, s_ij = <a_i, b_j> / temperature; P_i the positives of
anchor i, the bank entries with its label, but itself. The denominator of a positive j is
e^{s_ij} + Z_i, with Z_i the sum of e^{s_ik} over the negatives ("negatives"), or it is the sum Z_i
over all entries but the anchor itself ("all"). So the loss of a pair is f(log Z_i - s_ij) with
f = softplus or the identity, and its derivatives are -f' in s_ij and f' e^{s_ik} / Z_i in s_ik.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose, requested
from .._core.distributed import gathered, total
from .._core.modules import OptionsModule
from .._core.numerics import wide
from .._core.operators import Kernel, to_kernel_dtype
from . import ops, reference

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Denominator = Literal["negatives", "all"]
Reduction = Literal["mean", "sum", "none"]
# The passes over the bank take it in parts, at most so many, whose partial sums of gradients have
# at most so many numbers.
MOST_PARTS = 32
PARTIAL_NUMBERS = 2**23
# so few pairs take eager less time than sorting the labels
FEW_PAIRS = 2**13


def pixel_contrast_loss(
    anchors: Tensor,
    anchor_labels: Tensor,
    bank: Tensor | None = None,
    bank_labels: Tensor | None = None,
    *,
    temperature: float = 0.1,
    base_temperature: float | None = None,
    denominator: Denominator = "negatives",
    ignore_index: int = -1,
    reduction: Reduction = "mean",
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """Supervised InfoNCE between anchors and a bank of labelled embeddings.

    With s_ij = <a_i, b_j> / temperature, P_i the bank entries with the label of anchor i, but for
    the anchor itself, and Z_i the sum of e^{s_ik} over the entries of other labels:
    loss_i = (temperature / base_temperature) mean_{j in P_i} -log(e^{s_ij} / (e^{s_ij} + Z_i)).
    With denominator "all" it is -log(e^{s_ij} / Z_i), and Z_i is the sum over all entries but the
    anchor itself. Equivalent eager code, without a bank:

        s = anchors @ anchors.T / temperature
        same = labels[:, None] == labels
        others = s.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
        pairs = torch.nn.functional.softplus(others - s)
        loss = pairs[same & ~torch.eye(len(s), dtype=torch.bool)].mean()

    which is the mean over the pairs; this function takes the mean over the positives of each
    anchor, then over the anchors.

    Args:
        anchors: [N, D]. They are not normalised here; the papers' have unit length.
        anchor_labels: [N], integer or bool, any values.
        bank: [M, D] in the dtype of the anchors; None: the anchors are the bank, and an anchor is
            not compared with itself.
        bank_labels: [M]; given with the bank.
        temperature: > 0.
        base_temperature: > 0; None: the temperature, so that their quotient is 1.
        denominator: "negatives", each positive with all negatives, or "all".
        ignore_index: anchors and entries with this label are left out; their gradient is 0, even
            if they are NaN.
        reduction: "mean" over the anchors with a positive, "sum", or "none".
        group: the bank is that of all ranks of this process group, with equal M (and equal N
            without a bank), in the order of the ranks. With "mean" and "sum" all ranks get the loss
            over the anchors of all ranks. The gradient is that of the sum of the ranks' losses.

    Returns: a scalar, or [N] for "none", in float32 (float64 for float64). The loss of an anchor
    without a positive is 0, and so is that of one without a negative if these are the denominator.
    Differentiable in the anchors and the bank.

    The N x M similarities are not stored. The forward visits each pair once, and each positive
    twice, also for the gradient in the anchors; the gradient in the bank visits all pairs again.
    Memory: 32 MiB of partial sums or those of one copy of the anchors, and a few copies of the
    anchors. On a CPU, `backend=None` is eager for at most 2^13 pairs.
    Source: Wang et al., Exploring cross-image pixel contrast for semantic segmentation, eq. 3 and
    the released code ("negatives"); Khosla et al., Supervised contrastive learning, eq. 2 ("all").

    Example:

        >>> anchors = torch.nn.functional.normalize(torch.randn(100, 64), dim=1).requires_grad_()
        >>> pk.pixel_contrast_loss(anchors, torch.randint(5, (100,))).backward()
    """
    check_rows("anchors", anchors)
    check.labels("anchor_labels", anchor_labels, "anchors", anchors)
    if (bank is None) != (bank_labels is None):
        raise ValueError("bank_labels: expected bank and bank_labels, or neither")
    if bank is not None:
        check_rows("bank", bank)
        anchors, bank = check.same_kind("bank", bank, "anchors", anchors)
        if bank.shape[1] != anchors.shape[1]:
            raise ValueError(
                f"bank: expected shape [M, {anchors.shape[1]}] as anchors, got {list(bank.shape)}"
            )
        check.labels("bank_labels", bank_labels, "bank", bank)
    temperature, base, ignore_index = _check_options(
        temperature, base_temperature, denominator, ignore_index, reduction, group
    )
    diagonal = None
    if bank is None or bank_labels is None:
        bank, bank_labels, diagonal = anchors, anchor_labels, 0
        if group is not None:
            diagonal = group.rank() * anchors.shape[0]
    if group is not None:
        bank = gathered(bank, 0, group)
        bank_labels = gathered(to_kernel_dtype(bank_labels), 0, group)
    losses, positives = contrast_losses(
        anchors, anchor_labels, bank, bank_labels, temperature, denominator, ignore_index, diagonal,
        backend,
    )  # fmt: skip
    losses = losses * (temperature / base)
    if reduction == "none":
        return losses
    ranks = None if group is None else group.group_name
    loss = total(losses.sum(), ranks)
    if reduction == "mean":
        loss = loss / total((positives > 0).sum(), ranks).clamp(min=1)
    return loss


def check_rows(name: str, value: Any) -> None:
    if check.floating(name, value).dim() != 2:
        raise ValueError(f"{name}: expected shape [N, D], got {list(value.shape)}")


def _check_options(
    temperature: Any,
    base_temperature: Any,
    denominator: Any,
    ignore_index: Any,
    reduction: Any,
    group: Any,
) -> tuple[float, float, int]:
    """`temperature`, `base_temperature` and `ignore_index`."""
    check.option("denominator", denominator, get_args(Denominator))
    check.option("reduction", reduction, get_args(Reduction))
    check.group(group)
    temperature = check.positive("temperature", temperature)
    base = temperature
    if base_temperature is not None:
        base = check.positive("base_temperature", base_temperature)
    return temperature, base, check.label("ignore_index", ignore_index)


class PixelContrastLoss(OptionsModule):
    """`pixel_contrast_loss` as a module: `loss(anchors, anchor_labels, bank, bank_labels)`.

    Args:
        temperature, base_temperature, denominator, ignore_index, reduction, group, backend: as in
            `pixel_contrast_loss`.

    Example:

        >>> loss = pk.PixelContrastLoss(temperature=0.1, denominator="all")
        >>> anchors = torch.nn.functional.normalize(torch.randn(100, 64), dim=1).requires_grad_()
        >>> loss(anchors, torch.randint(5, (100,))).backward()
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        base_temperature: float | None = None,
        denominator: Denominator = "negatives",
        ignore_index: int = -1,
        reduction: Reduction = "mean",
        group: ProcessGroup | None = None,
        backend: str | None = None,
    ) -> None:
        _check_options(temperature, base_temperature, denominator, ignore_index, reduction, group)
        super().__init__(
            temperature=temperature,
            base_temperature=base_temperature,
            denominator=denominator,
            ignore_index=ignore_index,
            reduction=reduction,
            group=group,
            backend=backend,
        )

    def forward(
        self,
        anchors: Tensor,
        anchor_labels: Tensor,
        bank: Tensor | None = None,
        bank_labels: Tensor | None = None,
    ) -> Tensor:
        return pixel_contrast_loss(anchors, anchor_labels, bank, bank_labels, **self.options)

    if TYPE_CHECKING:

        def __call__(
            self,
            anchors: Tensor,
            anchor_labels: Tensor,
            bank: Tensor | None = None,
            bank_labels: Tensor | None = None,
        ) -> Tensor: ...


def contrast_losses(
    anchors: Tensor,
    anchor_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    temperature: float,
    denominator: Denominator,
    ignore_index: int,
    diagonal: int | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """The loss of each anchor, 0 if it has no positive, and its number of positives, [N] each.

    With a `diagonal`, bank entry i + diagonal is no positive of anchor i, nor in the denominator
    "all".
    """
    if requested(backend) is None and _few_pairs(anchors, bank):
        backend = "eager"
    chosen = choose("pixel_contrast_loss", (anchors, bank, anchor_labels, bank_labels), backend)
    negatives = denominator == "negatives"
    if chosen == "eager":
        return reference.contrast(
            anchors, anchor_labels, bank, bank_labels, 1 / temperature, negatives, ignore_index,
            diagonal,
        )  # fmt: skip
    anchor_order, bank_order, ranges, valid = _sorted(
        anchor_labels.long(), bank_labels.long(), ignore_index, diagonal
    )
    learned = torch.is_grad_enabled() and anchors.requires_grad
    losses, *_ = contrast(
        chosen, anchors, bank, anchor_order, bank_order, ranges, valid, 1 / temperature, negatives,
        learned,
    )  # fmt: skip
    counts = _positives(ranges)
    return losses, torch.zeros_like(counts).scatter(0, anchor_order, counts)


def _few_pairs(anchors: Tensor, bank: Tensor) -> bool:
    """Never in a traced program, whose sizes may vary."""
    if torch.compiler.is_compiling() or anchors.device.type != "cpu":
        return False
    return anchors.shape[0] * bank.shape[0] <= FEW_PAIRS


def _sorted(
    anchor_labels: Tensor, bank_labels: Tensor, ignore_index: int, diagonal: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments `anchor_order`, `bank_order`, `ranges` and `valid` of `contrast`."""
    anchor_order, labels, _, _, anchors = _by_label(anchor_labels, ignore_index)
    bank_order, _, in_order, (first, past), entries = _by_label(bank_labels, ignore_index)
    # the entries that are left out lie between others of `in_order`, but come last in bank_order
    start, end = (
        bound - torch.where(bound >= past, past - first, 0)
        for bound in (torch.searchsorted(in_order, labels, right=side) for side in (False, True))
    )
    end = torch.where(labels == ignore_index, start, end)
    own = torch.full_like(start, -1)
    if diagonal is not None and bank_order.shape[0]:
        rank = torch.empty_like(bank_order)
        rank[bank_order] = torch.arange(bank_order.shape[0], device=bank_order.device)
        at = anchor_order + diagonal
        own = torch.where(at < rank.shape[0], rank[at.clamp(max=rank.shape[0] - 1)], -1)
        own = torch.where((own >= start) & (own < end), own, -1)
    return anchor_order, bank_order, torch.stack((start, end, own)), torch.stack((anchors, entries))


def _by_label(
    labels: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """The positions [N] in the order of their labels, those with ignore_index last, and their
    labels; all labels in order; where ignore_index starts and ends in these; how many others."""
    in_order, order = labels.sort(stable=True)
    ignored = torch.full((), ignore_index, dtype=labels.dtype, device=labels.device)
    first, past = (torch.searchsorted(in_order, ignored, right=side) for side in (False, True))
    place = torch.arange(labels.shape[0], device=labels.device)
    used = labels.shape[0] - (past - first)
    source = torch.where(place < first, place, place + past - first)
    source = torch.where(place < used, source, place - used + first)
    order = order[source]
    return order, labels[order], in_order, (first, past), used


def _positives(ranges: Tensor) -> Tensor:
    """The number of positives of each anchor, from the ranges of `contrast`."""
    start, end, itself = ranges
    return end - start - (itself >= 0).long()


# ---- the operator ----


def _contrast(
    backend: str,
    anchors: Tensor,
    bank: Tensor,
    anchor_order: Tensor,
    bank_order: Tensor,
    ranges: Tensor,
    valid: Tensor,
    scale: float,
    negatives: bool,
    gradient: bool,
) -> tuple[Tensor, ...]:
    """The operator `contrast`. Only `contrast_pass` visits the pairs."""
    number, channels = anchors.shape
    own = anchors.index_select(0, anchor_order)
    most = min(max(PARTIAL_NUMBERS // max(own.numel(), 1), 1), MOST_PARTS)
    step = ops.contrast_step(bank.shape[0], most)

    def visit(log_sum: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return ops.contrast_pass(
            backend, own, bank, bank_order, ranges, valid, log_sum, scale, negatives, gradient, step
        )

    counts = torch.arange(number, device=own.device) < valid[0]
    largest, sums, towards = visit(None)
    top = largest.amax(0)
    fade = torch.where(largest == -torch.inf, 0, (largest - top).exp())
    sums = (sums * fade).sum(0)
    log_sum = torch.where(counts, top + sums.log(), 0)
    towards = towards.mul_(fade[:, None]).sum(0) if gradient else towards
    loss, slope, away = (part.sum(0) for part in visit(log_sum))
    positives = _positives(ranges)
    # sums of anchors that do not count have no meaning
    some, share = positives > 0, 1 / positives.clamp(min=1).to(loss.dtype)
    losses = torch.zeros_like(loss).scatter(0, anchor_order, torch.where(some, share * loss, 0))
    slope = torch.where(some, share * slope, 0)
    if not gradient:
        return losses, log_sum, slope, loss.new_empty(0)
    towards = torch.where(sums > 0, slope / sums, 0) * towards
    rows = torch.where(some, scale * (towards - share * away), 0)
    unsorted = rows.new_empty((number, channels)).index_copy_(0, anchor_order, rows.mT)
    return losses, log_sum, slope, unsorted


# anchors, bank, bank_order, ranges, valid, scale and negatives as in `contrast_pass`, the anchors
# and ranges in `anchor_order` [N] -> losses [N], the mean over the positives; log_sum [N], and the
# mean of f' over the positives, both in anchor_order; the gradient of each loss in its anchor
# [N, D], empty without `gradient`. Losses and gradients are those of the anchors as given, and 0
# without positives.
contrast = Kernel(
    "similarity",
    "contrast(Tensor anchors, Tensor bank, Tensor anchor_order, Tensor bank_order, Tensor ranges,"
    " Tensor valid, float scale, bool negatives, bool gradient) -> (Tensor losses, Tensor log_sum,"
    " Tensor slope, Tensor rows)",
    lambda anchors, bank, anchor_order, bank_order, ranges, valid, scale, negatives, gradient: (
        *(wide(anchors[:0]).new_empty(anchors.shape[0]) for _ in range(3)),
        wide(anchors[:0]).new_empty(anchors.shape if gradient else 0),
    ),
    made_of=_contrast,
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scale, ctx.negatives, _ = inputs
    _, *others = output
    ctx.save_for_backward(*tensors, *others)
    ctx.mark_non_differentiable(*others)


def _gradient(backend: str, ctx: Any, grad: Tensor, *_: None) -> Any:
    anchors, bank, anchor_order, bank_order, ranges, valid, log_sum, slope, rows = ctx.saved_tensors
    by_anchors = by_bank = None
    if ctx.needs_input_grad[0]:
        by_anchors = (grad[:, None] * rows).to(anchors.dtype)
    if ctx.needs_input_grad[1]:
        own = ctx.scale * grad[anchor_order]
        weights = torch.stack((own * slope, own / _positives(ranges).clamp(min=1)))
        by_bank = ops.contrast_bank_gradient(
            backend, anchors.index_select(0, anchor_order), bank, bank_order, ranges, valid,
            log_sum, weights, ctx.scale, ctx.negatives,
        )  # fmt: skip
    return by_anchors, by_bank, *(None,) * 7


contrast.differentiable(_save, _gradient)
