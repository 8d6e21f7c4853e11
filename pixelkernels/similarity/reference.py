"""Similarity in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: N query pixels q_i, K reference points r_j with labels l_j in [0, L), similarities s_ij,
v_ij = transform(scale s_ij + shift). Matrices are [B, K, N].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, pad

from .._core.distributed import total
from .._core.numerics import product, wide

TRANSFORM = {"identity": lambda x: x, "sigmoid": torch.sigmoid, "exp": torch.exp}


def similarity(query: Tensor, reference: Tensor, metric: str) -> Tensor:
    """[B, D, N] and [B, D, K] -> [B, K, N]: <q, r>, <q, r>/(|q| |r|) or |q - r|^2."""
    if metric == "cosine":
        query, reference = normalize(query, dim=1), normalize(reference, dim=1)
    products = product(reference.mT, query)
    if metric != "sqeuclidean":
        return products
    squares = reference.square().sum(1)[:, :, None] + query.square().sum(1)[:, None]
    return (squares - 2 * products).clamp(min=0)


def matching_scores(
    query: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    metric: str,
    transform: str,
    scale: Tensor,
    shift: Tensor,
    reduce: str,
    k: int,
) -> Tensor:
    """scores[b, c, i] = reduce_{j: l_j = c} v_ij."""
    # append an ignored point: a reduction over no points at all would raise
    index = pad(labels.flatten(1).long(), (0, 1), value=-1)
    r = pad(wide(reference).flatten(2), (0, 1))
    valid = (index >= 0) & (index < num_classes)
    r = torch.where(valid[:, None], r, 0)
    q = wide(query).flatten(2)
    v = TRANSFORM[transform](scale * similarity(q, r, metric) + shift)
    if reduce == "softmax":
        v = torch.where(valid[:, :, None], v, -torch.inf).softmax(1)
    smaller = smaller_is_better(metric, scale)
    worst = torch.where(smaller, torch.inf, -torch.inf).to(v.dtype)
    scores = []
    for label in range(num_classes):
        own = (index == label)[:, :, None]
        count = own.sum(1)
        if reduce in ("sum", "softmax"):
            score = torch.where(own, v, 0).sum(1)
        elif reduce == "mean":
            score = torch.where(own, v, 0).sum(1) / count.clamp(min=1)
        elif reduce == "max":
            score = torch.where(own, v, -torch.inf).amax(1)
        elif reduce == "min":
            score = torch.where(own, v, torch.inf).amin(1)
        else:
            best = torch.where(smaller, -v, v)
            best = torch.where(own, best, -torch.inf).topk(min(k, v.shape[1]), 1).values
            taken = torch.arange(best.shape[1], device=v.device)[:, None] < count[:, :, None]
            total = torch.where(taken, torch.where(smaller, -best, best), 0).sum(1)
            score = total / count.clamp(min=1, max=k)
        scores.append(torch.where(count > 0, score, worst))
    return torch.stack(scores, 1).unflatten(2, query.shape[2:])


def best_labels(scores: Tensor, present: Tensor, smaller: Tensor) -> Tensor:
    """The first of the `present` [B, L] classes with the best score; -1 if there is none.

    NaN is worse than any other score.
    """
    present = present.view(*present.shape, *[1] * (scores.dim() - 2))
    rank = torch.where(smaller, -scores, scores)
    known = present & ~rank.isnan()
    # a known score may be -inf, too: compare known candidates only, if there are any
    rank = torch.where(known, rank, -torch.inf)
    candidates = torch.where(known.any(1, keepdim=True), known, present)
    best = candidates & (rank == rank.amax(1, keepdim=True))
    return torch.where(present.any(1), best.byte().argmax(1), -1)


def smaller_is_better(metric: str, scale: Tensor) -> Tensor:
    """Whether a smaller score is a better match: a 0-d bool tensor."""
    return (scale > 0) & (metric == "sqeuclidean")


def points_by_class(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The positions [B, K] sorted by label, ignored ones last, and where each class starts
    [B, L + 1]."""
    index = labels.long()
    valid = (index >= 0) & (index < num_classes)
    in_order, order = torch.where(valid, index, num_classes).sort(dim=1, stable=True)
    classes = torch.arange(num_classes + 1, device=labels.device)
    offsets = torch.searchsorted(in_order, classes.expand(len(index), -1).contiguous())
    return order, offsets


def sample_reference(labels: Tensor, num_classes: int, num_per_class: int, keys: Tensor) -> Tensor:
    """The n = `num_per_class` pixels of each class with the smallest `keys` [B, N], then -1."""
    order = keys.argsort(1)
    index = labels.long().gather(1, order)
    picked = []
    for label in range(num_classes):
        own = index == label
        first = own.byte().argsort(dim=1, descending=True, stable=True)[:, :num_per_class]
        pixels = torch.where(own.gather(1, first), order.gather(1, first), -1)
        picked.append(pad(pixels, (0, num_per_class - first.shape[1]), value=-1))
    return torch.cat(picked, 1)


def prior_scores(query: Tensor, support: Tensor, weights: Tensor, eps: float) -> Tensor:
    """max_j q_i.u_j / (|q_i| |u_j| + eps) with u_j = w_j s_j; [B, h, w]."""
    q = wide(query).flatten(2)
    w = wide(weights).flatten(1)[:, None]
    u = torch.where(w != 0, wide(support).flatten(2), 0) * w
    norms = vector_norm(u, dim=1)[:, :, None] * vector_norm(q, dim=1)[:, None]
    cosine = product(u.mT, q) / (norms + eps)
    if cosine.shape[1] == 0:
        cosine = pad(cosine, (0, 0, 0, 1))
    return cosine.amax(1).unflatten(1, query.shape[2:])


def prior_softmax(query: Tensor, support: Tensor, weights: Tensor) -> Tensor:
    """sum_j softmax_j(cos(q_i, s_j)) w_j; [B, h, w]."""
    cosine = similarity(wide(query).flatten(2), wide(support).flatten(2), "cosine")
    scores = (cosine.softmax(1) * wide(weights).flatten(1)[:, :, None]).sum(1)
    return scores.unflatten(1, query.shape[2:])


def pair_similarity_loss(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    group: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean of BCE(batch_norm(s_ij), [l_i = l_j]) over all valid pairs, s_ij = <x_i, y_j>; the
    mean and variance of s; the number of pairs. Sums are over the ranks of the group."""
    x_index, y_index = x_labels.flatten(1).long(), y_labels.flatten(1).long()
    valid = (x_index >= 0)[:, :, None] & (y_index >= 0)[:, None]
    x = torch.where(x_index[:, None] >= 0, wide(x).flatten(2), 0)
    y = torch.where(y_index[:, None] >= 0, wide(y).flatten(2), 0)
    s = product(x.mT, y)
    pairs = total(valid.sum(), group)
    batch_mean = total(s.sum(), group) / pairs.clamp(min=1)
    deviation = torch.where(valid, s - batch_mean, 0)
    batch_var = total(deviation.square().sum(), group) / pairs.clamp(min=1)
    if mean is None or var is None:
        mean, var = batch_mean, batch_var
    logits = (s - mean) / (var + eps).sqrt() * weight + bias
    same = (x_index[:, :, None] == y_index[:, None]).to(s.dtype)
    losses = binary_cross_entropy_with_logits(logits, same, reduction="none")
    loss = total(torch.where(valid, losses, 0).sum(), group) / pairs.clamp(min=1)
    return loss, batch_mean, batch_var, pairs.to(batch_var.dtype)
