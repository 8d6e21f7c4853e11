"""The workloads of the regions family."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk
from benchmarks.inputs import Inputs, embeddings, label_map
from benchmarks.ops import regions_peers as peers
from benchmarks.ops.regions_peers import by_one_hot, by_scatter
from benchmarks.workload import BOTH, FORWARD, Floor, Peer, Workload, size, with_compiled

# With more regions a loop over labels takes seconds and tells nothing new.
LONGEST_LOOP = 20


def _draw_labelled(
    variant: str,
    generator: torch.Generator,
    shrink: int,
    *,
    shape: tuple[int, int, int, int],
    regions: int,
    softmax: bool = False,
) -> Inputs:
    batch, channels, height, width = shape
    labels = label_map(variant, generator, batch, height // shrink, width // shrink, regions)
    features = embeddings(generator, labels, regions, channels)
    return Inputs((features.softmax(1) if softmax else features, labels))


def _draw_probabilities(
    variant: str, generator: torch.Generator, shrink: int, *, shape: tuple[int, int, int, int]
) -> Inputs:
    """Features, and a probability of background that is sure inside the regions of a label map."""
    features, labels = _draw_labelled(variant, generator, shrink, shape=shape, regions=2).tensors
    noise = torch.rand(labels.shape, generator=generator)
    return Inputs((features, 0.8 * (labels == 0) + 0.2 * noise), differentiable=(0, 1))


def _draw_support(
    variant: str,
    generator: torch.Generator,
    shrink: int,
    *,
    shape: tuple[int, int, int, int],
    mask: int,
) -> Inputs:
    """Features, and a binary mask at the size of the image."""
    batch, channels, height, width = shape
    features = torch.randn(batch, channels, height // shrink, width // shrink, generator=generator)
    sides = mask // shrink, mask // shrink
    return Inputs((features, label_map(variant, generator, batch, *sides, 2).float()))


def _floor(
    inputs: Inputs,
    mode: str,
    *,
    operations: tuple[int, int],
    rereads: bool = True,
    output_map: bool = False,
) -> Floor:
    """Forward reads every input once and writes an output map, where there is one.

    Backward reads the labels or weights (and the gradient of an output map), the features where
    the gradient depends on them (`rereads`), and writes the gradients. `operations` are per feature
    value, forward and backward.
    """
    features, guide = inputs.tensors
    sizes = [tensor.nbytes for tensor in inputs.tensors]
    map_bytes = guide.nbytes if output_map else 0
    forward = sum(sizes) + map_bytes
    if mode == FORWARD:
        return Floor(forward, operations[0] * features.numel())
    gradients = sum(sizes[position] for position in inputs.differentiable)
    backward = sizes[1] + map_bytes + gradients + (sizes[0] if rereads else 0)
    return Floor(forward + backward, sum(operations) * features.numel())


def _region_stats(
    name: str, shape: tuple[int, int, int, int], regions: int, **more: Any
) -> Workload:
    def loss_terms(statistics: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(statistics[1:])

    def one_hot(features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return loss_terms(peers.region_stats(features, labels, regions, by_one_hot))

    def scatter_add(features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return loss_terms(peers.region_stats(features, labels, regions, by_scatter))

    def index_add(features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return loss_terms(peers.region_stats_index_add(features, labels, regions))

    def torch_scatter(features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return loss_terms(peers.region_stats_torch_scatter(features, labels, regions))

    def loop(features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return loss_terms(peers.region_stats_loop(features, labels, regions))

    def library(features: Tensor, labels: Tensor, backend: str | None) -> tuple[Tensor, ...]:
        return loss_terms(pk.region_stats(features, labels, regions, backend=backend))

    alternatives = with_compiled(one_hot_matmul=one_hot, scatter_add=scatter_add)
    alternatives["eager index_add (NHWC)"] = Peer(index_add)
    alternatives["torch_scatter"] = Peer(torch_scatter, package="torch_scatter")
    if regions <= LONGEST_LOOP:
        alternatives["eager loop over labels"] = Peer(loop, synchronizes=True)
    return Workload(
        name=name,
        title=f"region mean and variance, {size(shape)}, {regions} regions",
        family="regions",
        op="region_stats",
        draw=partial(_draw_labelled, shape=shape, regions=regions),
        library=library,
        peers=alternatives,
        floor=partial(_floor, operations=(4, 2)),
        **more,
    )


def _cas(regions: int, **more: Any) -> Workload:
    shape = (8, 21, 256, 256)

    def one_hot(features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (peers.cas_loss(*peers.region_stats(features, labels, regions, by_one_hot)),)

    def scatter_add(features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (peers.cas_loss(*peers.region_stats(features, labels, regions, by_scatter)),)

    def loop(features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (peers.cas_loss(*peers.region_stats_loop(features, labels, regions)),)

    def library(features: Tensor, labels: Tensor, backend: str | None) -> tuple[Tensor]:
        return (pk.cas_loss(features, labels, regions, backend=backend),)

    alternatives = with_compiled(one_hot_matmul=one_hot, scatter_add=scatter_add)
    if regions <= LONGEST_LOOP:
        alternatives["eager loop over labels"] = Peer(loop, synchronizes=True)
    return Workload(
        name=f"cas-r{regions}",
        title=f"CAS loss, {size(shape)}, {regions} regions",
        family="regions",
        op="cas_loss",
        source="CAS eq. 1",
        draw=partial(_draw_labelled, shape=shape, regions=regions, softmax=True),
        library=library,
        peers=alternatives,
        floor=partial(_floor, operations=(4, 2)),
        **more,
    )


def _metric_expression(name: str, mining: str | None, alternatives: dict[str, Peer]) -> Workload:
    shape = (5, 16, 224, 224)

    def library(features: Tensor, mask: Tensor, backend: str | None) -> tuple[Tensor]:
        return (pk.metric_expression_loss(features, mask, mining=mining, backend=backend),)

    return Workload(
        name=name,
        title=f"MEnet metric loss{', hard mining' if mining else ''}, {size(shape)}",
        family="regions",
        op="metric_expression_loss",
        source="MEnet eq. 3",
        draw=partial(_draw_labelled, shape=shape, regions=2),
        library=library,
        peers=alternatives,
        # the gradient is a constant vector per class, so the features are not needed again
        floor=partial(_floor, operations=(6 if mining else 1, 1), rereads=False),
        quick=mining is None,
        ranks=mining is not None,
    )


def _discriminative(regions: int) -> Workload:
    shape = (8, 16, 256, 256)

    def one_hot(features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return peers.discriminative(features, labels, regions, by_one_hot)

    def scatter_add(features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return peers.discriminative(features, labels, regions, by_scatter)

    def loop(features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return peers.discriminative_loop(features, labels, regions)

    def library(features: Tensor, labels: Tensor, backend: str | None) -> tuple[Tensor]:
        return (pk.discriminative_loss(features, labels, regions, backend=backend),)

    return Workload(
        name=f"discriminative-r{regions}",
        title=f"discriminative loss, {size(shape)}, {regions} regions",
        family="regions",
        op="discriminative_loss",
        source="De Brabandere et al. eqs. 1-4, compared with in CAS",
        draw=partial(_draw_labelled, shape=shape, regions=regions),
        library=library,
        peers=with_compiled(one_hot_matmul=one_hot, scatter_add=scatter_add)
        | {"eager loop over labels": Peer(loop, synchronizes=True)},
        floor=partial(_floor, operations=(4, 3)),
    )


def _background_distance() -> Workload:
    shape = (5, 16, 224, 224)

    def library(features: Tensor, weights: Tensor, backend: str | None) -> tuple[Tensor]:
        return (pk.background_distance(features, weights, backend=backend),)

    return Workload(
        name="background-distance",
        title=f"distance from the background, {size(shape)}",
        family="regions",
        op="background_distance",
        source="MEnet eq. 5",
        draw=partial(_draw_probabilities, shape=shape),
        library=library,
        peers=with_compiled(
            as_written=peers.background_distance, matmul=peers.background_distance_matmul
        ),
        floor=partial(_floor, operations=(5, 5), output_map=True),
        variants=("coherent",),
        modes=(FORWARD, BOTH),
        quick=True,
    )


def _masked_average_pool() -> Workload:
    shape, mask = (4, 512, 53, 53), 417

    def library(features: Tensor, weights: Tensor, backend: str | None) -> tuple[Tensor]:
        pooled = pk.masked_average_pool(features, weights, upsample="bilinear", backend=backend)
        return (pooled,)

    return Workload(
        name="masked-average-pool",
        title=f"masked average pooling, {size(shape)}, mask {mask}x{mask}",
        family="regions",
        op="masked_average_pool",
        source="PANet",
        draw=partial(_draw_support, shape=shape, mask=mask),
        library=library,
        peers=with_compiled(
            features_upsampled=peers.pool_upsampled, weights_resized=peers.pool_adjoint
        ),
        floor=partial(_floor, operations=(2, 1), rereads=False),
        variants=("coherent",),
        modes=(FORWARD, BOTH),
    )


_HARD = with_compiled(sort=peers.metric_expression_hard)
_HARD["eager topk per image"] = Peer(peers.metric_expression_hard_loop, synchronizes=True)

WORKLOADS: tuple[Workload, ...] = (
    _region_stats(
        "region-stats-menet",
        (5, 16, 224, 224),
        2,
        source="MEnet eqs. 2-3",
        modes=(FORWARD, BOTH),
        quick=True,
    ),
    *(
        _region_stats(
            f"region-stats-c{channels}-r{regions}",
            (8, channels, 256, 256),
            regions,
            source="CAS eq. 1",
            modes=(FORWARD, BOTH) if (channels, regions) == (16, 20) else (BOTH,),
            quick=regions == 20,  # the targets: 2, 16 and 64 channels
        )
        for channels in (2, 16, 64)
        for regions in (20, 100)
    ),
    *(_cas(regions) for regions in (2, 20, 100)),
    _metric_expression(
        "menet-means",
        None,
        with_compiled(
            as_written=peers.metric_expression, closed_form=peers.metric_expression_closed
        ),
    ),
    _metric_expression("menet-hard", "hard", _HARD),
    _discriminative(20),
    _background_distance(),
    _masked_average_pool(),
)
