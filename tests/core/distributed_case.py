"""What each of two processes does for test_distributed.py: calls with its part of the input.

    python -m tests.core.distributed_case RANK FOLDER

writes FOLDER/RANK.pt, what was `Found` in every case on every backend.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import distributed, nn

import pixelkernels as pk
from pixelkernels import testing

RANKS = 2
BACKENDS = ("eager", "cpu")
REGIONS, CLASSES = 6, 4
REDUCES = ("sum", "mean", "max", "min", "topk", "softmax")
# the rows, points or images of the first rank; the second one has the others
FIRST_ROWS, FIRST_IMAGES = 5, 1


class Found(NamedTuple):
    """`results` are of the whole, the same on all ranks; the gradients are those of the sum of the
    ranks' losses: in the own part of the input, and in the own copy of what all ranks have."""

    results: list
    own: list
    shared: list


def part(tensors, dim, cut, rank):
    """The rank's part of each tensor; None stands for one process that has all."""
    if rank is None:
        return list(tensors)
    return [t.narrow(dim, *((0, cut), (cut, t.shape[dim] - cut))[rank]) for t in tensors]


def compiled(call):
    return torch.compile(call, fullgraph=True, backend="aot_eager")


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def region_inputs(dtype=torch.float32):
    """Regions that only one rank has, that neither has, and pixels far from 0."""
    features = testing.features(2, 5, 12, 9, seed=3).to(dtype) + 10
    labels = testing.random_labels(2, 12, 9, low=-1, high=REGIONS - 1, seed=4)
    labels[:, :FIRST_ROWS][labels[:, :FIRST_ROWS] == 1] = 0
    labels[:, FIRST_ROWS:][labels[:, FIRST_ROWS:] == 2] = 3
    return features, labels


def region_stats(backend, rank, group, cut=FIRST_ROWS, dtype=torch.float32, call=pk.region_stats):
    features, labels = region_inputs(dtype)
    (features,) = leaves(*part([features], 2, cut, rank))
    (labels,) = part([labels], 1, cut, rank)
    count, mean, variance = call(features, labels, REGIONS, group=group, backend=backend)
    weights = torch.linspace(-1, 2, mean.numel(), dtype=mean.dtype).view(mean.shape)
    loss = (weights * mean).sum() + (variance * variance).sum()
    return Found([count, mean, variance], torch.autograd.grad(loss, [features]), [])


def one_rank_without_pixels(backend, rank, group):
    return region_stats(backend, rank, group, cut=0)


def in_float64(backend, rank, group):
    return region_stats(backend, rank, group, dtype=torch.float64)


def label_transfer(backend, rank, group, reduce="mean", call=pk.label_transfer):
    """The reference of each image in two equal parts; both ranks have the same query."""
    query, reference = testing.features(2, 7, 5, 6, seed=5), testing.features(2, 7, 20, 1, seed=6)
    labels = testing.random_labels(2, 20, 1, low=-1, high=CLASSES - 1, seed=7)
    reference, labels = reference.flatten(2), labels.flatten(1)
    query, reference = leaves(query, *part([reference], 2, 10, rank))
    (labels,) = part([labels], 1, 10, rank)
    options = {"metric": "cosine", "reduce": reduce, "k": 3 if reduce == "topk" else None}
    best, scores = call(query, reference, labels, CLASSES, **options, group=group, backend=backend)
    loss = torch.where(scores.isfinite(), scores, 0).square().sum()
    own, shared = torch.autograd.grad(loss, [reference, query])
    return Found([best, scores], [own], [shared])


def pair_inputs():
    x, y = testing.features(3, 6, 5, 7, seed=8), testing.features(3, 6, 4, 6, seed=9)
    x_labels = testing.random_labels(3, 5, 7, low=-1, high=2, seed=10)
    y_labels = testing.random_labels(3, 4, 6, low=-1, high=2, seed=11)
    return x, y, x_labels, y_labels


def pair_loss(backend, rank, group, training=True, call=pk.pair_similarity_loss):
    x, y, *labels = part(pair_inputs(), 0, FIRST_IMAGES, rank)
    x, y, weight, bias = leaves(x, y, torch.tensor(1.3), torch.tensor(-0.4))
    mean, var = torch.tensor([0.2]), torch.tensor([1.7])
    loss = call(
        *(x, y, *labels),
        **{"weight": weight, "bias": bias, "running_mean": mean, "running_var": var},
        **{"training": training, "group": group, "backend": backend},
    )
    *own, by_weight, by_bias = torch.autograd.grad(loss, [x, y, weight, bias])
    return Found([loss.detach(), mean, var], own, [by_weight, by_bias])


def pair_loss_in_evaluation(backend, rank, group):
    return pair_loss(backend, rank, group, training=False)


def contrast(backend, rank, group, with_bank=True, call=pk.pixel_contrast_loss):
    anchors, bank = testing.features(14, 6, seed=12), testing.features(22, 6, seed=13)
    labels, bank_labels = (
        testing.random_labels(n, low=-1, high=3, seed=seed) for n, seed in ((14, 14), (22, 15))
    )
    anchors, labels = part([anchors, labels], 0, 7, rank)
    given = part([bank, bank_labels], 0, 11, rank) if with_bank else ()
    (anchors, *bank) = leaves(anchors, *given[:1])
    options = {"group": group, "backend": backend}
    loss = call(anchors, labels, *bank, *given[1:], **options)
    return Found([loss.detach()], torch.autograd.grad(loss, [anchors, *bank]), [])


def training_step(backend, rank, group):
    """A network and the loss's own parameters after one step: with DistributedDataParallel."""
    torch.manual_seed(0)
    network, loss = nn.Conv2d(6, 8, 3, padding=1), pk.SiameseSimilarityLoss(group=group)
    if group is not None:
        network, loss = (nn.parallel.DistributedDataParallel(m) for m in (network, loss))
    parameters = [*network.parameters(), *loss.parameters()]
    x, y, x_labels, y_labels = part(pair_inputs(), 0, FIRST_IMAGES, rank)
    with pk.use_backend(backend):
        value = loss(network(x), network(y), x_labels, y_labels)
        value.backward()
    torch.optim.SGD(parameters, lr=0.5).step()
    return Found([value.detach(), *(p.detach() for p in parameters)], [], [])


CASES = {
    "region_stats": region_stats,
    "one_rank_without_pixels": one_rank_without_pixels,
    "in_float64": in_float64,
    **{f"label_transfer_{reduce}": partial(label_transfer, reduce=reduce) for reduce in REDUCES},
    "pair_loss": pair_loss,
    "pair_loss_in_evaluation": pair_loss_in_evaluation,
    "contrast": contrast,
    "contrast_without_a_bank": partial(contrast, with_bank=False),
    "training_step": training_step,
    "region_stats_compiled": partial(region_stats, call=compiled(pk.region_stats)),
    "label_transfer_compiled": partial(label_transfer, call=compiled(pk.label_transfer)),
    "pair_loss_compiled": partial(pair_loss, call=compiled(pk.pair_similarity_loss)),
    "contrast_compiled": partial(contrast, call=compiled(pk.pixel_contrast_loss)),
}


def main(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    group = distributed.group.WORLD
    found = {
        f"{name} {backend}": tuple(case(backend, rank, group))
        for name, case in CASES.items()
        for backend in BACKENDS
    }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
