"""Peers of the similarity family, independent of the library.

A score maps queries [B, D, N], reference points [B, D, K], their labels [B, K] and the number of
classes L to [B, L, N]. Points are sorted by class, with the same number in each class; most of this
code relies on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import batch_norm, normalize, one_hot
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.utils.checkpoint import checkpoint

# before the sigmoid; dot products within a class are near 30 (see `embeddings`)
SCALE, SHIFT = 0.05, -0.1
SCORES = 2**21  # per chunk, to stay in the caches
# Per chunk with a gradient: large enough for malloc to use mmap, since the tensors kept by each
# chunk would fragment the heap.
TRAINING_SCORES = 2**23
NEAREST = 20  # VideoMatch averages this many points
EPS = 1e-7  # PFENet's, in the cosine and in the min-max scaling
PAIR_CHUNK = 512  # pixels of x at a time
NORM_EPS = 1e-5  # of the batch norm

Score = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def _by_class(scores: Tensor, num_classes: int) -> Tensor:
    """[B, K, N] -> [B, L, K/L, N]."""
    return scores.unflatten(1, (num_classes, -1))


def sigmoid_mean(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    scores = torch.sigmoid(SCALE * (reference.mT @ query) + SHIFT)
    return _by_class(scores, num_classes).mean(2)


def sigmoid_mean_in_place(
    query: Tensor, reference: Tensor, labels: Tensor, num_classes: int
) -> Tensor:
    """One matrix of scores, and the means as a product with a one-hot matrix."""
    scores = ((SCALE * reference).mT @ query).add_(SHIFT).sigmoid_()
    member = one_hot(labels, num_classes).to(scores.dtype)
    return (member / member.sum(1, keepdim=True)).mT @ scores


def dot_sum(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return _by_class(reference.mT @ query, num_classes).sum(2)


def prototypes(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """A sum of dot products as one product with the sum of the class."""
    return reference.unflatten(2, (num_classes, -1)).sum(3).mT @ query


def nearest(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The minimum of |r|^2 - 2 <q, r> in each class, plus |q|^2."""
    squares = reference.square().sum(1)[..., None]
    scores = torch.baddbmm(squares, reference.mT, query, alpha=-2)
    return _by_class(scores, num_classes).amin(2) + query.square().sum(1, keepdim=True)


def top_mean(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Points in the last dimension, where `topk` is fast."""
    scores = normalize(query, dim=1).mT @ normalize(reference, dim=1)
    best = scores.unflatten(2, (num_classes, -1)).topk(NEAREST).values
    return best.mean(3).mT


# Only the score of a chunk is compiled; torch.compile would unroll the loop.
@partial(torch.compiler.disable, recursive=False)
def in_chunks(
    query: Tensor, reference: Tensor, labels: Tensor, num_classes: int, score: Score
) -> Tensor:
    """Some thousand queries at a time; in float64, the oracle."""
    points = reference.shape[2]
    if torch.is_grad_enabled():  # checkpoint, or the scores of all chunks would be kept
        again = partial(checkpoint, score, use_reentrant=False)
        chunks = query.split(TRAINING_SCORES // points, 2)
        return torch.cat([again(chunk, reference, labels, num_classes) for chunk in chunks], 2)
    chunks = query.split(SCORES // points, 2)
    scores = query.new_empty(len(query), num_classes, query.shape[2])
    for chunk, out in zip(chunks, scores.split(chunks[0].shape[2], 2), strict=True):
        out.copy_(score(chunk, reference, labels, num_classes))
    return scores


def nearest_faiss(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return _faiss(query, reference, num_classes, 1, "IndexFlatL2")


def top_mean_faiss(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    query, reference = normalize(query, dim=1), normalize(reference, dim=1)
    return _faiss(query, reference, num_classes, NEAREST, "IndexFlatIP")


def _faiss(query: Tensor, reference: Tensor, num_classes: int, k: int, kind: str) -> Tensor:
    """The mean of the k best points of each class, per image and class."""
    scores = [
        torch.stack([_search(image, points, k, kind).mean(1) for points in classes])
        for image, classes in zip(
            query, reference.unflatten(2, (num_classes, -1)).transpose(1, 2), strict=True
        )
    ]
    return torch.stack(scores)


def sigmoid_mean_keops(
    query: Tensor, reference: Tensor, labels: Tensor, num_classes: int
) -> Tensor:
    points = reference.shape[2] // num_classes
    return _keops(query, reference, num_classes, lambda q, r: _sigmoid(q | r).sum(3)) / points


def nearest_keops(query: Tensor, reference: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return _keops(query, reference, num_classes, lambda q, r: q.sqdist(r).min(3))


def _sigmoid(products: Any) -> Any:
    return 1 / (1 + (-(SCALE * products + SHIFT)).exp())


def _keops(
    query: Tensor, reference: Tensor, num_classes: int, reduce: Callable[[Any, Any], Tensor]
) -> Tensor:
    """A reduction over the points of each class, compiled by KeOps, without a matrix of scores."""
    from pykeops.torch import LazyTensor

    queries = LazyTensor(query.mT.contiguous()[:, None, :, None])
    points = reference.unflatten(2, (num_classes, -1)).permute(0, 2, 3, 1).contiguous()
    return reduce(queries, LazyTensor(points[:, :, None])).squeeze(-1)


def _search(query: Tensor, points: Tensor, k: int, kind: str) -> Tensor:
    """The k best scores of queries [D, N] with points [D, K]: [N, k]."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index: Any = getattr(faiss, kind)(len(points))
    index.add(points.mT.contiguous().numpy())
    return torch.from_numpy(index.search(query.mT.contiguous().numpy(), k)[0])


def _minmax(prior: Tensor) -> Tensor:
    least, most = prior.amin((1, 2), keepdim=True), prior.amax((1, 2), keepdim=True)
    return (prior - least) / (most - least + EPS)


def prior_as_written(query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor]:
    """The steps of PFENet."""
    u, q = (support * weights[:, None]).flatten(2), query.flatten(2)
    norms = torch.bmm(vector_norm(u, dim=1)[..., None], vector_norm(q, dim=1)[:, None])
    similarity = torch.bmm(u.mT, q) / (norms + EPS)
    return (_minmax(similarity.amax(1).view(len(q), *query.shape[2:])),)


def prior_exact(query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor]:
    """The oracle: the same, image by image, to save memory."""
    images = zip(query.split(1), support.split(1), weights.split(1), strict=True)
    return (torch.cat([prior_as_written(*image)[0] for image in images]),)


def prior_normalised(query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor]:
    """The features divided by their norms before the product."""
    u = normalize((support * weights[:, None]).flatten(2), dim=1)
    q = normalize(query.flatten(2), dim=1)
    return (_minmax(torch.bmm(u.mT, q).amax(1).view(len(q), *query.shape[2:])),)


def _prior_by_image(
    query: Tensor, support: Tensor, weights: Tensor, largest: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor]:
    """Image by image, without the support pixels of weight 0, whose similarity is 0.

    `largest` maps q [C, N] and u [C, K] to the largest product [N] of each query.
    """
    priors = []
    for q, s, w in zip(query, support, weights, strict=True):
        kept = w > 0
        prior = largest(normalize(q.flatten(1), dim=0), normalize(s[:, kept], dim=0))
        priors.append(prior.view(q.shape[1:]) if kept.all() else prior.view(q.shape[1:]).relu())
    return (_minmax(torch.stack(priors)),)


def prior_compacted(query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor]:
    return _prior_by_image(query, support, weights, lambda q, u: (u.mT @ q).amax(0))


def prior_faiss(query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor]:
    return _prior_by_image(query, support, weights, lambda q, u: _search(q, u, 1, "IndexFlatIP"))


def sample_loop(
    features: Tensor, labels: Tensor, num_classes: int, num_per_class: int
) -> tuple[Tensor, Tensor]:
    """Per image and class: the oracle."""
    count = num_classes * num_per_class
    points = features.new_zeros(*features.shape[:2], count)
    drawn = labels.new_full((len(labels), count), -1)
    for image, (pixels, own) in enumerate(zip(features.flatten(2), labels.flatten(1), strict=True)):
        for label in range(num_classes):
            index = (own == label).nonzero()[:, 0]
            index = index[torch.randperm(len(index), device=index.device)[:num_per_class]]
            rows = slice(label * num_per_class, label * num_per_class + len(index))
            points[image, :, rows] = pixels[:, index]
            drawn[image, rows] = label
    return points, drawn


def sample_sorted(
    features: Tensor, labels: Tensor, num_classes: int, num_per_class: int
) -> tuple[Tensor, Tensor]:
    """All classes at once: one sort by label plus a random number in [0, 1)."""
    labels = labels.flatten(1)
    # in float32, label + number could round to the next label
    keys = labels + torch.rand(labels.shape, dtype=torch.float64, device=labels.device)
    keys, order = keys.sort(1)
    classes = torch.arange(num_classes, dtype=keys.dtype, device=keys.device)
    first = torch.searchsorted(keys, classes.expand(len(keys), -1).contiguous())
    rows = torch.arange(num_per_class, device=keys.device)
    at = (first[..., None] + rows).flatten(1)
    index = order.gather(1, at.clamp(max=order.shape[1] - 1))
    wanted = torch.arange(num_classes, device=keys.device).repeat_interleave(num_per_class)
    found = (at < order.shape[1]) & (labels.gather(1, index) == wanted)
    points = features.flatten(2).gather(2, index[:, None].expand(-1, features.shape[1], -1))
    return torch.where(found[:, None], points, 0), torch.where(found, wanted, -1)


def pair_loss_whole(x: Tensor, y: Tensor, x_labels: Tensor, y_labels: Tensor) -> tuple[Tensor]:
    """The whole matrix."""
    s = x[0].mT @ y[0]
    z = batch_norm(s[None, None], None, None, training=True, eps=NORM_EPS)[0, 0]
    return (cross_entropy(z, (x_labels[0, :, None] == y_labels[0]).to(z.dtype)),)


def _statistics(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of <x_i, y_j> over all pairs."""
    x, y = x.double(), y.double()
    mean = (x.mean(1) * y.mean(1)).sum()
    square = ((x @ x.mT) * (y @ y.mT)).sum() / (x.shape[1] * y.shape[1])
    return mean, square - mean.square()


def _losses(x: Tensor, y: Tensor, own: Tensor, other: Tensor, a: Tensor, c: Tensor) -> Tensor:
    z = a * (x.mT @ y) + c
    return cross_entropy(z, (own[:, None] == other).to(z.dtype), reduction="sum")


def pair_loss_in_chunks(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    losses: Callable[..., Tensor] = _losses,
) -> tuple[Tensor]:
    """A block of rows at a time, recomputed in the backward pass."""
    mean, var = _statistics(x[0], y[0])
    a = (var + NORM_EPS).rsqrt().to(x.dtype)
    c = (-mean).to(x.dtype) * a
    total = x.new_zeros((), dtype=torch.float64)
    for chunk, own in zip(x[0].split(PAIR_CHUNK, 1), x_labels[0].split(PAIR_CHUNK), strict=True):
        part = checkpoint(losses, chunk, y[0], own, y_labels[0], a, c, use_reentrant=False)
        total = total + part.double()
    return ((total / (x.shape[2] * y.shape[2])).to(x.dtype),)


def pair_loss_compiled_chunks() -> Callable[..., tuple[Tensor]]:
    losses = torch.compile(_losses, dynamic=False)
    return lambda *tensors: pair_loss_in_chunks(*tensors, losses=losses)
