"""The workloads of mutual matches and of their training loss, and their peers."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

import pixelkernels as pk
from benchmarks.inputs import Inputs
from benchmarks.workload import BOTH, FORWARD, Floor, Workload, as_tuple, with_compiled

CHANNELS = 256
TEMPERATURE, THRESHOLD = 0.1, 0.2
ALPHA, GAMMA = 0.25, 2.0
LEAST = 1e-6  # LoFTR's, for the confidence


def _views(
    generator: torch.Generator, shrink: int, side: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse features of two views, divided by the root of their number as LoFTR does: the pixels
    of the first in another order and noisier, but for the last tenth; and that order."""
    pixels = side[0] // shrink * (side[1] // shrink)
    # confidences of matches of a half and more, whatever the number of pixels
    size = (0.13 * math.log(pixels)) ** 0.5
    a, other = size * torch.randn(2, 1, CHANNELS, pixels, generator=generator)
    order = torch.randperm(pixels, generator=generator)
    b = a[:, :, order] + size / 3 * torch.randn(a.shape, generator=generator)
    kept = pixels - pixels // 10
    b[:, :, kept:] = other[:, :, kept:]
    return a / CHANNELS**0.5, b / CHANNELS**0.5, order[:kept]


def _draw_images(
    variant: str, generator: torch.Generator, shrink: int, *, side: tuple[int, int]
) -> Inputs:
    return Inputs(_views(generator, shrink, side)[:2], differentiable=())


def _draw_pairs(
    variant: str, generator: torch.Generator, shrink: int, *, side: tuple[int, int]
) -> Inputs:
    a, b, order = _views(generator, shrink, side)
    j = torch.arange(len(order))
    matches = torch.stack((torch.zeros_like(j), order, j), 1)
    return Inputs((a, b, matches), differentiable=(0, 1))


def _floor(inputs: Inputs, mode: str) -> Floor:
    """Reads the features and computes the products of all pairs; the gradients take two more such
    products and are written."""
    a, b, *_ = inputs.tensors
    read, operations = a.nbytes + b.nbytes, 2 * a.shape[0] * a.shape[2] * b[0].numel()
    return Floor(read, operations) if mode == FORWARD else Floor(2 * read, 3 * operations)


def _confidence(a: Tensor, b: Tensor) -> Tensor:
    s = a.mT @ b / TEMPERATURE
    return s.softmax(1) * s.softmax(2)


def as_loftr(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """LoFTR's coarse matching in evaluation."""
    confidence = _confidence(a, b)
    best = confidence > THRESHOLD
    best &= confidence == confidence.amax(2, keepdim=True)
    best &= confidence == confidence.amax(1, keepdim=True)
    batch, i, j = best.nonzero(as_tuple=True)
    return batch, i, j, confidence[batch, i, j]


def by_logsumexp(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """The same from the logarithm of the confidence, whose maxima are as good."""
    s = a.mT @ b / TEMPERATURE
    rows, columns = s.logsumexp(2, keepdim=True), s.logsumexp(1, keepdim=True)
    best, j = (2 * s - columns).max(2)
    own = (2 * s - rows).argmax(1).gather(1, j)
    confidence = (best - rows[..., 0]).exp()
    found = (own == torch.arange(a.shape[2], device=a.device)) & (confidence > THRESHOLD)
    batch, i = found.nonzero(as_tuple=True)
    return batch, i, j[batch, i], confidence[batch, i]


def _matched(outputs: tuple[Tensor, ...], _: object, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """By pixel: its match, or -1, and the confidence."""
    batch, i, j, confidence = outputs
    partner = torch.full((a.shape[0], a.shape[2]), -1, device=a.device).index_put((batch, i), j)
    return partner, confidence.new_zeros(partner.shape).index_put((batch, i), confidence)


def loss_as_loftr(a: Tensor, b: Tensor, matches: Tensor) -> tuple[Tensor]:
    """LoFTR's focal loss on the matches."""
    p = _confidence(a, b).clamp(LEAST, 1 - LEAST)[matches.unbind(1)]
    return ((-ALPHA * (1 - p) ** GAMMA * p.log()).mean(),)


def loss_by_logsumexp(a: Tensor, b: Tensor, matches: Tensor) -> tuple[Tensor]:
    """From the products of the matches, as the library, and the logsumexp of rows and columns."""
    s, (batch, i, j) = a.mT @ b / TEMPERATURE, matches.unbind(1)
    pair = (a.mT[batch, i] * b.mT[batch, j]).sum(1) / TEMPERATURE
    p = (2 * pair - s.logsumexp(2)[batch, i] - s.logsumexp(1)[batch, j]).exp()
    p = p.clamp(LEAST, 1 - LEAST)
    return ((-ALPHA * (1 - p) ** GAMMA * p.log()).mean(),)


def _matches() -> Workload:
    side = (105, 105)
    return Workload(
        name="mutual-matches",
        title=f"mutual matches of two images of 840x840, {CHANNELS}x{side[0] * side[1]} each",
        family="similarity",
        op="mutual_matches",
        source="LoFTR, coarse matching",
        draw=partial(_draw_images, side=side),
        library=partial(pk.mutual_matches, temperature=TEMPERATURE, threshold=THRESHOLD),
        peers=with_compiled(as_LoFTR=as_loftr, by_logsumexp=by_logsumexp),
        floor=_floor,
        variants=("coherent",),
        modes=(FORWARD,),
        # as the library, it subtracts sums that are larger than their difference
        oracle=by_logsumexp,
        compared=_matched,
        slow=("eager",),
    )


def _loss() -> Workload:
    side = (60, 80)
    return Workload(
        name="dual-softmax-loss",
        title=f"dual softmax loss of two images of 640x480, {CHANNELS}x{side[0] * side[1]} each",
        family="similarity",
        op="dual_softmax_loss",
        source="LoFTR, training",
        draw=partial(_draw_pairs, side=side),
        library=as_tuple(pk.dual_softmax_loss),
        peers=with_compiled(as_LoFTR=loss_as_loftr, by_logsumexp=loss_by_logsumexp),
        floor=_floor,
        variants=("coherent",),
        modes=(BOTH,),
        oracle=loss_by_logsumexp,
        slow=("eager",),
    )


WORKLOADS: tuple[Workload, ...] = (_matches(), _loss())
