"""The workloads of the regions family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk
from benchmarks.inputs import Inputs, embeddings, label_map
from benchmarks.ops import regions_peers as peers
from benchmarks.ops.regions_peers import by_one_hot, by_scatter
from benchmarks.workload import BOTH, FORWARD, Floor, Peer, Workload, as_tuple, size, with_compiled

# With more regions, a loop over labels takes seconds.
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
    """Features, and the probability of background: near 1 in region 0, near 0 elsewhere."""
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
    """Features, and a binary mask of the size of the image."""
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
    """The forward pass reads every input once and writes the output map, if there is one.

    The backward pass reads the labels or weights, the gradient of the output map, and the features
    if the gradient depends on them (`rereads`); it writes the gradients. `operations` per feature
    value: (forward, backward).
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
    def terms(statistics: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
        """Mean and variance, without the counts."""
        return lambda features, labels, **options: tuple(
            statistics(features, labels, regions, *arguments, **options)[1:]
        )

    alternatives = with_compiled(
        one_hot_matmul=terms(peers.region_stats, by_one_hot),
        scatter_add=terms(peers.region_stats, by_scatter),
    )
    alternatives["eager index_add (NHWC)"] = Peer(terms(peers.region_stats_index_add))
    alternatives["torch_scatter"] = Peer(
        terms(peers.region_stats_torch_scatter), package="torch_scatter"
    )
    if regions <= LONGEST_LOOP:
        alternatives["eager loop over labels"] = Peer(
            terms(peers.region_stats_loop), synchronizes=True
        )
    return Workload(
        name=name,
        title=f"region mean and variance, {size(shape)}, {regions} regions",
        family="regions",
        op="region_stats",
        draw=partial(_draw_labelled, shape=shape, regions=regions),
        library=terms(pk.region_stats),
        peers=alternatives,
        floor=partial(_floor, operations=(4, 2)),
        **more,
    )


def _cas(regions: int, **more: Any) -> Workload:
    shape = (8, 21, 256, 256)

    def loss(statistics: Callable[..., Any], *arguments: Any) -> Callable[..., tuple[Tensor]]:
        return lambda features, labels: (
            peers.cas_loss(*statistics(features, labels, regions, *arguments)),
        )

    alternatives = with_compiled(
        one_hot_matmul=loss(peers.region_stats, by_one_hot),
        scatter_add=loss(peers.region_stats, by_scatter),
    )
    if regions <= LONGEST_LOOP:
        alternatives["eager loop over labels"] = Peer(
            loss(peers.region_stats_loop), synchronizes=True
        )
    return Workload(
        name=f"cas-r{regions}",
        title=f"CAS loss, {size(shape)}, {regions} regions",
        family="regions",
        op="cas_loss",
        source="CAS eq. 1",
        draw=partial(_draw_labelled, shape=shape, regions=regions, softmax=True),
        library=as_tuple(pk.cas_loss, num_regions=regions),
        peers=alternatives,
        floor=partial(_floor, operations=(4, 2)),
        **more,
    )


def _metric_expression(name: str, mining: str | None, alternatives: dict[str, Peer]) -> Workload:
    shape = (5, 16, 224, 224)

    return Workload(
        name=name,
        title=f"MEnet metric loss{', hard mining' if mining else ''}, {size(shape)}",
        family="regions",
        op="metric_expression_loss",
        source="MEnet eq. 3",
        draw=partial(_draw_labelled, shape=shape, regions=2),
        library=as_tuple(pk.metric_expression_loss, mining=mining),
        peers=alternatives,
        # the gradient is a constant vector per class and does not depend on the features
        floor=partial(_floor, operations=(6 if mining else 1, 1), rereads=False),
        quick=mining is None,
        ranks=mining is not None,
    )


def _discriminative(regions: int) -> Workload:
    shape = (8, 16, 256, 256)

    loss = partial(peers.discriminative, num_regions=regions)
    loop = partial(peers.discriminative_loop, num_regions=regions)
    return Workload(
        name=f"discriminative-r{regions}",
        title=f"discriminative loss, {size(shape)}, {regions} regions",
        family="regions",
        op="discriminative_loss",
        source="De Brabandere et al. eqs. 1-4, compared with in CAS",
        draw=partial(_draw_labelled, shape=shape, regions=regions),
        library=as_tuple(pk.discriminative_loss, num_regions=regions),
        peers=with_compiled(
            one_hot_matmul=partial(loss, reductions=by_one_hot),
            scatter_add=partial(loss, reductions=by_scatter),
        )
        | {"eager loop over labels": Peer(loop, synchronizes=True)},
        floor=partial(_floor, operations=(4, 3)),
    )


def _background_distance() -> Workload:
    shape = (5, 16, 224, 224)

    return Workload(
        name="background-distance",
        title=f"distance from the background, {size(shape)}",
        family="regions",
        op="background_distance",
        source="MEnet eq. 5",
        draw=partial(_draw_probabilities, shape=shape),
        library=as_tuple(pk.background_distance),
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

    return Workload(
        name="masked-average-pool",
        title=f"masked average pooling, {size(shape)}, mask {mask}x{mask}",
        family="regions",
        op="masked_average_pool",
        source="PANet",
        draw=partial(_draw_support, shape=shape, mask=mask),
        library=as_tuple(pk.masked_average_pool, upsample="bilinear"),
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
            quick=regions == 20,
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
