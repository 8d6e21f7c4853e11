"""The workloads of the contrast of labelled embeddings, and their peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from torch.utils.checkpoint import checkpoint

import pixelkernels as pk
from benchmarks.inputs import Inputs
from benchmarks.workload import BOTH, FORWARD, Floor, Peer, Workload, as_tuple, with_compiled

TEMPERATURE, BASE_TEMPERATURE = 0.1, 0.07
ANCHORS_AT_ONCE = 64

Losses = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor]]


def _embeddings(generator: torch.Generator, labels: Tensor, classes: int, channels: int) -> Tensor:
    """Unit vectors, near a centre of their class."""
    centres = torch.randn(classes, channels, generator=generator)
    noise = torch.randn(len(labels), channels, generator=generator)
    return normalize(centres[labels] + 2 * noise, dim=1)


def _draw(
    variant: str,
    generator: torch.Generator,
    shrink: int,
    *,
    anchors: int,
    per_class: int,
    classes: int,
    channels: int,
) -> Inputs:
    """Anchors, and a bank as ContrastiveSeg's: as many entries of each class, class by class."""
    classes = max(classes // shrink, 2)
    # some of each class
    labels = torch.randperm(anchors // shrink, generator=generator) % classes
    own = _embeddings(generator, labels, classes, channels)
    if not per_class:
        return Inputs((own, labels))
    bank_labels = torch.arange(classes).repeat_interleave(per_class // shrink)
    bank = _embeddings(generator, bank_labels, classes, channels)
    return Inputs((own, labels, bank, bank_labels))


def _floor(inputs: Inputs, mode: str) -> Floor:
    """Reads the inputs and computes the products of all pairs. The gradient in the anchors takes
    one more such product and is written; without a bank, a pair and its mirror image share theirs.
    """
    anchors = inputs.tensors[0]
    bank = inputs.tensors[2] if len(inputs.tensors) > 2 else anchors
    read = sum(tensor.nbytes for tensor in inputs.tensors)
    operations = 2 * anchors.shape[0] * bank.numel()
    if mode == FORWARD:
        return Floor(read, operations)
    return Floor(read + anchors.nbytes, 2 * operations)


def _pairs(
    anchors: Tensor, labels: Tensor, bank: Tensor | None, bank_labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The similarities, whether the labels are equal, and whether the pair is a positive."""
    other = labels if bank_labels is None else bank_labels
    s = anchors @ (anchors if bank is None else bank).mT / TEMPERATURE
    same = labels[:, None] == other
    if bank is not None:
        return s, same, same
    return s, same, same & ~torch.eye(len(s), dtype=torch.bool, device=s.device)


def as_contrastiveseg(
    anchors: Tensor,
    labels: Tensor,
    bank: Tensor | None = None,
    bank_labels: Tensor | None = None,
) -> tuple[Tensor]:
    """The steps of ContrastiveSeg, with masks in float32, without its exclusion of entry i."""
    s, same, positive = (x.to(anchors.dtype) for x in _pairs(anchors, labels, bank, bank_labels))
    s = s - s.amax(1, keepdim=True).detach()
    others = (s.exp() * (1 - same)).sum(1, keepdim=True)
    log_probability = s - (s.exp() + others).log()
    mean = (positive * log_probability).sum(1) / positive.sum(1)
    return (-TEMPERATURE / BASE_TEMPERATURE * mean.mean(),)


def _rows(
    anchors: Tensor,
    labels: Tensor,
    bank: Tensor | None = None,
    bank_labels: Tensor | None = None,
) -> Tensor:
    s, same, positive = _pairs(anchors, labels, bank, bank_labels)
    others = s.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    losses = torch.where(positive, -logsigmoid(s - others), 0).sum(1) / positive.sum(1)
    return TEMPERATURE / BASE_TEMPERATURE * losses


def by_logsumexp(*tensors: Tensor) -> tuple[Tensor]:
    return (_rows(*tensors).mean(),)


def in_chunks(rows: Callable[..., Tensor] = _rows) -> Losses:
    """Some anchors at a time; their matrix is computed again for the gradient."""

    def call(anchors: Tensor, labels: Tensor, bank: Tensor, bank_labels: Tensor) -> tuple[Tensor]:
        losses = [
            checkpoint(rows, own, own_labels, bank, bank_labels, use_reentrant=False)
            for own, own_labels in zip(
                anchors.split(ANCHORS_AT_ONCE), labels.split(ANCHORS_AT_ONCE), strict=True
            )
        ]
        return (torch.cat(losses).mean(),)

    return call


def as_supcon(anchors: Tensor, labels: Tensor) -> tuple[Tensor]:
    """The steps of SupCon, as in pytorch-metric-learning, of unit vectors."""
    s, _, positive = _pairs(anchors, labels, None, None)
    itself = torch.eye(len(s), dtype=torch.bool, device=s.device)
    log_probability = s - s.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    mean = (positive * log_probability).sum(1) / positive.sum(1)
    return (-mean.mean(),)


def _with_bank() -> Workload:
    anchors, per_class, classes, channels = 1024, 10_000, 19, 256
    alternatives = with_compiled(as_ContrastiveSeg=as_contrastiveseg, by_logsumexp=by_logsumexp)
    alternatives["eager in chunks, checkpointed"] = Peer(in_chunks())
    alternatives["torch.compile(chunks), checkpointed"] = Peer(
        in_chunks(torch.compile(_rows, dynamic=False))
    )
    return Workload(
        name="pixel-contrast",
        title=f"pixel contrast, {anchors} anchors, {classes * per_class} entries, {channels} "
        "channels",
        family="similarity",
        op="pixel_contrast_loss",
        source="ContrastiveSeg, memory of Cityscapes",
        draw=partial(
            _draw, anchors=anchors, per_class=per_class, classes=classes, channels=channels
        ),
        library=as_tuple(pk.pixel_contrast_loss, base_temperature=BASE_TEMPERATURE),
        peers=alternatives,
        floor=_floor,
        variants=("coherent",),
        modes=(BOTH,),
        oracle=in_chunks(),
        slow=("eager",),
    )


def _supcon() -> Workload:
    anchors, classes, channels = 8192, 100, 128
    return Workload(
        name="supcon",
        title=f"supervised contrast, {anchors} embeddings, {classes} classes, {channels} channels",
        family="similarity",
        op="pixel_contrast_loss",
        source="Khosla et al.",
        draw=partial(_draw, anchors=anchors, per_class=0, classes=classes, channels=channels),
        library=as_tuple(pk.pixel_contrast_loss, denominator="all"),
        peers=with_compiled(as_pytorch_metric_learning=as_supcon),
        floor=_floor,
        variants=("coherent",),
        modes=(BOTH,),
        oracle=as_supcon,
        slow=("eager",),
    )


WORKLOADS: tuple[Workload, ...] = (_with_bank(), _supcon())
