"""The workloads of the triplet family and their peers.

The peers rely on every image having enough foreground and background pixels to draw from.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import triplet_margin_loss

import pixelkernels as pk
from benchmarks.inputs import Inputs, embeddings, mask
from benchmarks.workload import BOTH, FORWARD, Floor, Peer, Workload, as_tuple, size, with_compiled

MARGIN = 3.0


def draw_by_permutation(mask: Tensor, num_samples: int) -> tuple[Tensor]:
    """Image by image."""
    drawn = []
    for image in mask.flatten(1):
        pixels = image.nonzero()[:, 0]
        drawn.append(pixels[torch.randperm(len(pixels), device=mask.device)[:num_samples]])
    return (torch.stack(drawn),)


def draw_by_keys(mask: Tensor, num_samples: int) -> tuple[Tensor]:
    """All images at once: the pixels with the largest random numbers."""
    keys = torch.rand(mask.flatten(1).shape, device=mask.device)
    keys = torch.where(mask.flatten(1), keys, -1.0)
    return (keys.topk(num_samples, dim=1).indices,)


def _vectors(features: Tensor, *sets: Tensor) -> tuple[Tensor, ...]:
    """The features of the pixels of each set, [B * K, C], with one gather."""
    index = torch.cat(sets, 1)
    index = index[:, None].expand(-1, features.shape[1], -1)
    vectors = features.flatten(2).gather(2, index).mT
    return tuple(part.flatten(0, 1) for part in vectors.split(sets[0].shape[1], 1))


def hinge(features: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor]:
    vectors = _vectors(features, anchor, positive, negative)
    return (triplet_margin_loss(*vectors, margin=MARGIN),)


def hinge_by_image(
    features: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor]:
    losses = [
        triplet_margin_loss(*(pixels[:, i].T for i in sets), margin=MARGIN)
        for pixels, *sets in zip(features.flatten(2), anchor, positive, negative, strict=True)
    ]
    return (torch.stack(losses).mean(),)


def hinge_metric_learning(
    features: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor]:
    """pytorch-metric-learning with given triplets: it computes all pairwise distances."""
    from pytorch_metric_learning import distances, losses, reducers

    loss: Any = losses.TripletMarginLoss(
        margin=MARGIN,
        distance=distances.LpDistance(normalize_embeddings=False),
        reducer=reducers.MeanReducer(),
    )
    total = []
    rows = torch.arange(anchor.shape[1], device=features.device)
    triplets = tuple(rows + i * len(rows) for i in range(3))
    kinds = torch.zeros(3 * len(rows), dtype=torch.int64, device=features.device)
    for pixels, *sets in zip(features.flatten(2), anchor, positive, negative, strict=True):
        total.append(loss(pixels[:, torch.cat(sets)].T, kinds, triplets))
    return (torch.stack(total).mean(),)


def loss_by_permutation(features: Tensor, mask: Tensor, num_samples: int) -> tuple[Tensor]:
    sets = [draw_by_permutation(m, num_samples)[0] for m in (mask, mask, ~mask, ~mask)]
    return _both_hinges(features, *sets)


def loss_by_keys(features: Tensor, mask: Tensor, num_samples: int) -> tuple[Tensor]:
    sets = [draw_by_keys(m, num_samples)[0] for m in (mask, mask, ~mask, ~mask)]
    return _both_hinges(features, *sets)


def _both_hinges(features: Tensor, *sets: Tensor) -> tuple[Tensor]:
    f1, f2, b1, b2 = _vectors(features, *sets)
    foreground = triplet_margin_loss(f1, f2, b1, margin=MARGIN)
    return (0.5 * (foreground + triplet_margin_loss(b1, b2, f2, margin=MARGIN)),)


# three pairs of images
SHAPE = (6, 64, 448, 448)
SAMPLES = 5000
# Scales the embeddings so that half of the hinges are active: with none, every gradient would be 0.
NEARNESS = 0.68


def _mask(variant: str, generator: torch.Generator, shrink: int) -> Tensor:
    """[B, H, W] bool, about a quarter True; no image is all True or all False."""
    batch, _, height, width = (*SHAPE[:2], *(side // shrink for side in SHAPE[2:]))
    kind = "random" if variant == "random" else "coherent"
    inside = mask(kind, generator, batch, height, width, 4)
    inside[:, :, : width // 8], inside[:, :, -width // 8 :] = False, True
    return inside


def _samples(shrink: int, count: int = SAMPLES) -> int:
    return count // shrink**2


def _draw_mask(variant: str, generator: torch.Generator, shrink: int) -> Inputs:
    return Inputs((_mask(variant, generator, shrink),), differentiable=())


def _draw_sets(variant: str, generator: torch.Generator, shrink: int, *, samples: int) -> Inputs:
    """Features, and the pixels of anchors, positives and negatives."""
    inside = _mask(variant, generator, shrink)
    features = NEARNESS * embeddings(generator, inside.long(), 2, SHAPE[1])
    if variant == "channels_last":
        features = features.contiguous(memory_format=torch.channels_last)
    keys = torch.rand(3, len(inside), inside[0].numel(), generator=generator)
    flat = inside.flatten(1)
    sets = (
        torch.where(kind, one, -1.0).topk(_samples(shrink, samples), dim=1).indices
        for kind, one in zip((flat, flat, ~flat), keys, strict=True)
    )
    return Inputs((features, *sets))


def _draw_halves(variant: str, generator: torch.Generator, shrink: int) -> Inputs:
    """Features that are constant in the foreground and in the background, so that the loss and the
    sums of the gradient do not depend on the drawn pixels.
    """
    inside = _mask(variant, generator, shrink)
    kinds = 0.1 * torch.randn(2, SHAPE[1], generator=generator)
    features = kinds[inside.long()].permute(0, 3, 1, 2)
    form = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    return Inputs((features.contiguous(memory_format=form), inside))


def _distinct(outputs: tuple[Tensor, ...], _: object, inside: Tensor) -> tuple[Tensor, ...]:
    """Whether all drawn pixels are inside, and the number of distinct ones."""
    (drawn,) = outputs
    used = torch.zeros_like(inside.flatten(1)).scatter_(1, drawn, True)
    return inside.flatten(1).gather(1, drawn).all(), used.sum(1)


def _sums(
    outputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...], _: Tensor, inside: Tensor
) -> tuple[Tensor, ...]:
    """The loss, and the sums of the gradient over the foreground and over the background."""
    sums = (
        torch.where(kind[:, None], gradient, 0).sum((0, 2, 3), dtype=torch.float64)
        for gradient in gradients
        for kind in (inside, ~inside)
    )
    return *outputs, *sums


def _floor_sampling(inputs: Inputs, mode: str, *, samples: int) -> Floor:
    (inside,) = inputs.tensors
    return Floor(inside.nbytes + 8 * samples * len(inside), inside.numel())


def _floor_hinge(inputs: Inputs, mode: str, *, rows: int, sets: int) -> Floor:
    """Both passes read the pixels of all sets; the backward pass writes the gradient."""
    features, *others = inputs.tensors
    values = len(features) * rows * sets * features.shape[1]
    read = values * features.element_size() + sum(t.nbytes for t in others)
    if mode == FORWARD:
        return Floor(read, 3 * values)
    return Floor(2 * read + features.nbytes, 9 * values)


def _sampling() -> Workload:
    def permuted(inside: Tensor) -> tuple[Tensor]:
        return draw_by_permutation(inside, _of(inside))

    alternatives = with_compiled(
        largest_of_random_keys=lambda inside: draw_by_keys(inside, _of(inside))
    )
    alternatives["eager nonzero and randperm"] = Peer(permuted, synchronizes=True)
    return Workload(
        name="sample-pixels",
        title=f"{SAMPLES} pixels of a mask, {SHAPE[0]}x{size(SHAPE[2:])}",
        family="triplet",
        op="sample_pixels",
        source="IS-Triplet",
        draw=_draw_mask,
        library=lambda inside, backend: (pk.sample_pixels(inside, _of(inside), backend=backend),),
        peers=alternatives,
        floor=partial(_floor_sampling, samples=SAMPLES),
        modes=(FORWARD,),
        quick=True,
        oracle=permuted,
        compared=_distinct,
    )


def _of(inside: Tensor) -> int:
    """SAMPLES, reduced in proportion if the masks are smaller than SHAPE."""
    return _samples(SHAPE[2] // inside.shape[1])


def _hinge(samples: int) -> Workload:
    alternatives = with_compiled(one_gather=hinge, image_by_image=hinge_by_image)
    if samples < SAMPLES:  # its memory grows with the square of the samples
        package = "pytorch_metric_learning"
        alternatives["pytorch-metric-learning"] = Peer(hinge_metric_learning, package=package)
    return Workload(
        name=f"triplet-hinge-k{samples}",
        title=f"triplet hinge of given pixels, {samples} rows, {size(SHAPE)}",
        family="triplet",
        op="triplet_hinge",
        source="IS-Triplet, eq. 4",
        draw=partial(_draw_sets, samples=samples),
        library=as_tuple(pk.triplet_hinge, margin=MARGIN),
        peers=alternatives,
        floor=partial(_floor_hinge, rows=samples, sets=3),
        variants=("coherent", "channels_last"),
        modes=(FORWARD, BOTH),
        oracle=hinge_by_image,
    )


def _loss() -> Workload:
    def library(features: Tensor, inside: Tensor, backend: str | None) -> tuple[Tensor]:
        return (
            pk.is_triplet_loss(
                features, inside, num_samples=_of(inside), margin=MARGIN, backend=backend
            ),
        )

    def permuted(features: Tensor, inside: Tensor) -> tuple[Tensor]:
        return loss_by_permutation(features, inside, _of(inside))

    alternatives = with_compiled(
        largest_of_random_keys_one_gather=lambda features, inside: loss_by_keys(
            features, inside, _of(inside)
        )
    )
    alternatives["eager nonzero and randperm, one gather"] = Peer(permuted, synchronizes=True)
    return Workload(
        name="is-triplet-loss",
        title=f"IS-Triplet loss with its sampling, {SAMPLES} rows, {size(SHAPE)}",
        family="triplet",
        op="is_triplet_loss",
        source="IS-Triplet, eq. 4",
        draw=_draw_halves,
        library=library,
        peers=alternatives,
        floor=partial(_floor_hinge, rows=SAMPLES, sets=4),
        variants=("coherent", "channels_last"),
        modes=(BOTH,),
        quick=True,
        oracle=permuted,
        compared=_sums,
    )


WORKLOADS: tuple[Workload, ...] = (_sampling(), _hinge(1000), _hinge(SAMPLES), _loss())
