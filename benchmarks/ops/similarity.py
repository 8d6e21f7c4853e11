"""The workloads of the similarity family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk
from benchmarks.inputs import Inputs, embeddings, label_map
from benchmarks.ops import similarity_peers as peers
from benchmarks.ops.similarity_peers import Score, in_chunks
from benchmarks.workload import BOTH, FORWARD, Floor, Peer, Workload, as_tuple, size, with_compiled

CHANNELS = 128
FRAME = (240, 427)
# With more points, the eager backend takes seconds and KeOps minutes.
FEW_POINTS = 200


def _draw_points(
    variant: str, generator: torch.Generator, shrink: int, *, points: int, classes: int, train: bool
) -> Inputs:
    """A frame, and points of a similar frame: the same number of each class, sorted by class."""
    height, width = (side // shrink for side in FRAME)
    frame = label_map(variant, generator, 1, height, width, classes)
    labels = torch.arange(classes).repeat_interleave(points // classes)[None]
    together = torch.cat((frame.flatten(1), labels), 1)[:, None]
    drawn = embeddings(generator, together, classes, CHANNELS).flatten(2)
    query, reference = drawn.split((height * width, points), 2)
    tensors = query.unflatten(2, (height, width)).contiguous(), reference.contiguous(), labels
    return Inputs(tensors, differentiable=(0, 1) if train else ())


def _draw_support(
    variant: str, generator: torch.Generator, shrink: int, *, shape: tuple[int, int, int, int]
) -> Inputs:
    """Query, support and mask: all of the support ("full"), or the half around a random pixel.

    The features follow a ReLU, as in the last stage of a network.
    """
    batch, channels, height, width = (*shape[:2], *(side // shrink for side in shape[2:]))
    query, support = (
        embeddings(
            generator, label_map("coherent", generator, batch, height, width, 2), 2, channels
        ).relu()
        for _ in range(2)
    )
    weights = torch.ones(batch, height, width)
    if variant != "full":
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        row, column = torch.rand(2, batch, 1, 1, generator=generator)
        distance = (rows - row * height).square() + (columns - column * width).square()
        far = distance.flatten(1).argsort(1)[:, height * width // 2 :]
        weights.flatten(1).scatter_(1, far, 0)
    return Inputs((query, support, weights), differentiable=())


def _draw_frames(
    variant: str,
    generator: torch.Generator,
    shrink: int,
    *,
    shape: tuple[int, int, int, int],
    classes: int,
) -> Inputs:
    """Features, whose first channel is the index of the pixel, and labels."""
    batch, channels, height, width = (*shape[:2], *(side // shrink for side in shape[2:]))
    labels = label_map(variant, generator, batch, height, width, classes)
    features = embeddings(generator, labels, classes, channels)
    features[:, 0] = torch.arange(height * width).view(height, width)
    return Inputs((features, labels), differentiable=())


def _floor_matching(inputs: Inputs, mode: str, *, rows: int, classes: int, labelled: bool) -> Floor:
    """The forward pass reads the inputs and writes the scores and, if `labelled`, the labels; the
    backward pass reads the inputs and the gradient of the scores and writes two gradients.

    Each query is multiplied with `rows` vectors: all points, or one sum per class. The gradients
    take two more such products.
    """
    query, reference, _ = inputs.tensors
    pixels = query.shape[0] * query.shape[2:].numel()
    read = sum(tensor.nbytes for tensor in inputs.tensors)
    scores = classes * pixels * query.element_size()
    operations = 2 * query.shape[1] * rows * pixels
    if mode == FORWARD:
        return Floor(read + scores + (8 * pixels if labelled else 0), operations)
    return Floor(2 * (read + scores) + query.nbytes + reference.nbytes, 3 * operations)


def _floor_prior(inputs: Inputs, mode: str) -> Floor:
    """Reads the query, the mask and the support pixels of nonzero weight; writes the prior."""
    query, support, weights = inputs.tensors
    kept = (weights != 0).flatten(1).sum(1)
    channels, pixels = query.shape[1], query.shape[2:].numel()
    pairs = int(kept.sum()) * pixels
    read = query.nbytes + weights.nbytes + int(kept.sum()) * channels * support.element_size()
    return Floor(read + len(query) * pixels * query.element_size(), 2 * channels * pairs)


def _floor_sample(inputs: Inputs, mode: str, *, drawn: int) -> Floor:
    """Reads the labels once; reads and writes the drawn points; writes their labels."""
    features, labels = inputs.tensors
    points = len(features) * drawn
    values = points * features.shape[1] * features.element_size()
    return Floor(labels.nbytes + 2 * values + 8 * points, labels.numel())


def _call(score: Score, classes: int, labelled: bool) -> Callable[..., tuple[Tensor, ...]]:
    def call(query: Tensor, reference: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        scores = score(query.flatten(2), reference, labels, classes)
        scores = scores.unflatten(2, query.shape[2:])
        return (scores.argmax(1), scores) if labelled else (scores,)

    return call


def _matching(
    name: str,
    what: str,
    points: int,
    classes: int,
    score: Score,
    options: dict[str, Any],
    *,
    op: str = "matching_scores",
    mode: str = FORWARD,
    eager: dict[str, Score] | None = None,
    compiled: dict[str, Score] | None = None,
    faiss: Score | None = None,
    keops: Score | None = None,
    collapses: bool = False,
    **more: Any,
) -> Workload:
    """`score` is a peer, with the whole matrix and in chunks. `eager` and `compiled` are further
    peers, eager only or also under torch.compile. `collapses`: one sum per class replaces its
    points.
    """
    labelled = op == "label_transfer"
    as_call = partial(_call, classes=classes, labelled=labelled)
    chunked = partial(in_chunks, score=score)

    if labelled:
        library = partial(pk.label_transfer, num_classes=classes, **options)
    else:
        library = as_tuple(pk.matching_scores, num_classes=classes, **options)
    both = {"all_scores": score} | (compiled or {})
    alone = {"in chunks": chunked} | (eager or {})
    if mode == FORWARD:
        both["in_chunks"] = alone.pop("in chunks")
    alternatives = with_compiled(**{label: as_call(peer) for label, peer in both.items()})
    for label, peer in alone.items():
        alternatives[f"eager {label}"] = Peer(as_call(peer))
    if faiss:
        alternatives["FAISS"] = Peer(as_call(faiss), devices=("cpu",), package="faiss")
    if keops:
        alternatives["KeOps"] = Peer(as_call(keops), package="pykeops")
    return Workload(
        name=name,
        title=f"{what}, {points} points in {classes} classes, {CHANNELS}x{size(FRAME)}",
        family="similarity",
        op=op,
        draw=partial(_draw_points, points=points, classes=classes, train=mode == BOTH),
        library=library,
        peers=alternatives,
        floor=partial(
            _floor_matching,
            rows=classes if collapses else points,
            classes=classes,
            labelled=labelled,
        ),
        variants=("coherent",),
        modes=(mode,),
        oracle=as_call(chunked),
        slow=("eager",) if points > FEW_POINTS else (),
        **more,
    )


def _sigmoid_mean(points: int, classes: int, train: bool) -> Workload:
    """Dense label transfer as in the released code; with `train`, the scores and their gradient."""
    return _matching(
        f"{'matching-scores' if train else 'label-transfer'}-k{points}",
        f"{'matching scores' if train else 'label transfer'}, mean of sigmoids",
        points,
        classes,
        peers.sigmoid_mean,
        {
            "transform": "sigmoid",
            "scale": peers.SCALE,
            "shift": peers.SHIFT,
            "reduce": "mean",
        },
        op="matching_scores" if train else "label_transfer",
        mode=BOTH if train else FORWARD,
        eager={
            "in place, one-hot matmul": peers.sigmoid_mean_in_place,
            "in chunks, in place": partial(in_chunks, score=peers.sigmoid_mean_in_place),
        },
        keops=peers.sigmoid_mean_keops if points == FEW_POINTS else None,
        source="Najafi et al., released code",
        quick=points == FEW_POINTS,
    )


def _prior_mask() -> Workload:
    shape = (4, 2048, 60, 60)

    alternatives = with_compiled(
        as_PFENet=peers.prior_as_written, normalised_first=peers.prior_normalised
    )
    alternatives["eager masked-out support dropped first"] = Peer(
        peers.prior_compacted, synchronizes=True
    )
    alternatives["FAISS"] = Peer(peers.prior_faiss, devices=("cpu",), package="faiss")
    return Workload(
        name="prior-mask",
        title=f"prior mask, {size(shape)}",
        family="similarity",
        op="prior_mask",
        source="PFENet",
        draw=partial(_draw_support, shape=shape),
        library=as_tuple(pk.prior_mask),
        peers=alternatives,
        floor=_floor_prior,
        variants=("half", "full"),
        modes=(FORWARD,),
        oracle=peers.prior_exact,
    )


def _sample_reference() -> Workload:
    shape, classes, per_class = (4, CHANNELS, *FRAME), 21, 100

    sizes = {"num_classes": classes, "num_per_class": per_class}
    alternatives = with_compiled(sort_by_label_and_chance=partial(peers.sample_sorted, **sizes))
    loop = partial(peers.sample_loop, **sizes)
    alternatives["eager loop over labels"] = Peer(loop, synchronizes=True)
    return Workload(
        name="sample-reference",
        title=f"reference points, {per_class} of each of {classes} classes, {size(shape)}",
        family="similarity",
        op="sample_reference",
        source="Najafi et al.",
        draw=partial(_draw_frames, shape=shape, classes=classes),
        library=partial(pk.sample_reference, **sizes),
        peers=alternatives,
        floor=partial(_floor_sample, drawn=classes * per_class),
        modes=(FORWARD,),
        quick=True,
        oracle=loop,
        compared=_sampling_properties,
        slow=("eager",),
    )


def _draw_pairs(
    variant: str, generator: torch.Generator, shrink: int, *, shape: tuple[int, int, int]
) -> Inputs:
    """Two images with the same five objects."""
    channels, height, width = (shape[0], *(side // shrink for side in shape[1:]))
    labels = label_map(variant, generator, 1, height, 2 * width, 5)
    drawn = embeddings(generator, labels, 5, channels)
    x, y = (t.flatten(2).contiguous() for t in drawn.split(width, 3))
    x_labels, y_labels = (t.flatten(1).contiguous() for t in labels.split(width, 2))
    return Inputs((x, y, x_labels, y_labels), differentiable=(0, 1))


def _floor_pairs(inputs: Inputs, mode: str) -> Floor:
    """Reads the inputs and computes the products of all pairs; the backward pass takes two more
    such products and writes two gradients.
    """
    x, y, *_ = inputs.tensors
    read = sum(tensor.nbytes for tensor in inputs.tensors)
    operations = 2 * x.shape[1] * x.shape[2] * y.shape[2]
    if mode == FORWARD:
        return Floor(read, operations)
    return Floor(read + x.nbytes + y.nbytes, 3 * operations)


def _pair_loss() -> Workload:
    shape = (CHANNELS, 122, 210)

    alternatives = with_compiled(whole_matrix=peers.pair_loss_whole)
    alternatives["eager in chunks, checkpointed"] = Peer(peers.pair_loss_in_chunks)
    alternatives["torch.compile(chunks), checkpointed"] = Peer(peers.pair_loss_compiled_chunks())
    pixels = shape[1] * shape[2]
    return Workload(
        name="pair-loss",
        title=f"loss over all pairs, {CHANNELS}x{pixels} and {CHANNELS}x{pixels}",
        family="similarity",
        op="pair_similarity_loss",
        source="Najafi et al.",
        draw=partial(_draw_pairs, shape=shape),
        library=as_tuple(pk.pair_similarity_loss),
        peers=alternatives,
        floor=_floor_pairs,
        variants=("coherent",),
        modes=(BOTH,),
        oracle=peers.pair_loss_in_chunks,
        slow=("eager",),
    )


def _sampling_properties(
    outputs: tuple[Tensor, ...], _: object, features: Tensor, labels: Tensor
) -> tuple[Tensor, ...]:
    """What must not depend on the draw: the labels, which are also those of the drawn pixels; the
    difference between points and pixels, which is 0; the number of distinct pixels."""
    points, drawn = outputs
    found, pixels = drawn >= 0, labels[0].numel()
    index = points[:, 0].nan_to_num().long().clamp(0, pixels - 1)
    own = torch.where(found, labels.flatten(1).gather(1, index), -1)
    expected = features.flatten(2).gather(2, index[:, None].expand_as(points))
    off = points - torch.where(found[:, None], expected, 0)
    used = torch.zeros(len(labels), pixels + 1, dtype=torch.bool, device=labels.device)
    used.scatter_(1, torch.where(found, index, pixels), True)
    return drawn, own, off, used[:, :pixels].sum(1)


WORKLOADS: tuple[Workload, ...] = (
    *(
        _sigmoid_mean(100 * classes, classes, train)
        for classes in (2, 21)
        for train in (False, True)
    ),
    _matching(
        "label-transfer-prototypes",
        "label transfer, sum of products",
        200,
        2,
        peers.dot_sum,
        {"reduce": "sum"},
        op="label_transfer",
        compiled={"class_prototypes_then_matmul": peers.prototypes},
        collapses=True,
        source="Najafi et al., eq. 4",
        quick=True,
    ),
    _matching(
        "nearest-point",
        "nearest point, squared distance",
        2100,
        21,
        peers.nearest,
        {"metric": "sqeuclidean", "reduce": "min"},
        faiss=peers.nearest_faiss,
        keops=peers.nearest_keops,
        source="FEELVOS",
    ),
    _matching(
        "top-mean",
        f"mean of the {peers.NEAREST} best cosines",
        2000,
        2,
        peers.top_mean,
        {"metric": "cosine", "reduce": "topk", "k": peers.NEAREST},
        faiss=peers.top_mean_faiss,
        source="VideoMatch",
    ),
    _prior_mask(),
    _sample_reference(),
    _pair_loss(),
)
