"""Similarity in plain PyTorch: the oracle for every backend, and the `eager` backend itself.

Notation: N query pixels q_i, K reference points r_j with labels l_j in [0, L), similarities s_ij,
v_ij = transform(scale s_ij + shift). Matrices are [B, K, N].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    embedding_bag,
    normalize,
    pad,
)

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


def prior_gradient(
    grad_scores: Tensor,
    query: Tensor,
    support: Tensor,
    weights: Tensor,
    scores: Tensor,
    index: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of c_i = q_i.u_j / (|q_i| |u_j| + eps), where j is the best support pixel of i
    and u_j = w_j s_j. With g_i the gradient of the score, divided by that divisor, and ^ a unit
    vector:

        dq_i = g_i (u_j - c_i |u_j| ^q_i)
        du_j = sum_i g_i q_i less its part along ^u_j, plus ^u_j eps/|u_j| sum_i g_i c_i
        dw_j = s_j.du_j = eps/w_j sum_i g_i c_i

    In the last two the terms of q_i.u_j cancel but for eps, which no subtraction has to find.
    """
    if 0 in (query.numel(), weights.numel()):
        return torch.zeros_like(query), torch.zeros_like(support), torch.zeros_like(weights)
    # rows of channels: of queries, and of points with one more for the queries that have none
    q = query.mT.flatten(0, 1)
    s, w = support.mT, weights[..., None]
    u = pad(torch.where(w != 0, s, 0) * w, (0, 0, 0, 1))
    batch, points = w.shape[:2]
    image = torch.arange(batch, device=query.device)[:, None]
    found = index >= 0
    best = torch.where(found, index, points).long()
    of_best = (best + image * (points + 1)).flatten()
    norm_q, norm_u = (vector_norm(x, dim=-1, keepdim=True) for x in (q, u))
    norm_of_best = norm_u.flatten()[of_best, None]
    divisor = norm_q * norm_of_best + eps
    # for eps = 0 or a zero vector
    divisor, over_q, over_u = (torch.where(x == 0, 1, x) for x in (divisor, norm_q, norm_u))
    g, cosine = (torch.where(found, x, 0).view(-1, 1) for x in (grad_scores, scores))
    g = g / divisor
    cosine = cosine * g
    grad_q = u.flatten(0, 1).index_select(0, of_best).mul_(g)
    grad_q.addcmul_(q, cosine * norm_of_best / over_q, value=-1)

    # sums over the queries of a point, in the order of their positions on every device
    order, offsets = points_by_class(best, points)
    at, bags = ((x + image * best.shape[1]).flatten() for x in (order, offsets))

    def per_point(rows: Tensor, factors: Tensor) -> Tensor:
        factors = factors.flatten()[at]
        sums = embedding_bag(at, rows, bags, mode="sum", per_sample_weights=factors)
        return sums.unflatten(0, offsets.shape)[:, :-1]

    grad_u = per_point(q, g)
    rest = eps * per_point(torch.ones_like(g), cosine)
    unit, over_u = u[:, :-1].div_(over_u[:, :-1]), over_u[:, :-1]
    grad_u.addcmul_(unit, (unit * grad_u).sum(2, keepdim=True) - rest / over_u, value=-1)
    chosen = offsets.diff()[..., None] > 0
    return (
        grad_q.unflatten(0, best.shape).mT.contiguous(),
        torch.where(chosen, grad_u.mul_(w), 0).mT.contiguous(),
        (rest / torch.where(w == 0, 1, w))[..., 0],
    )


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


def contrast(
    anchors: Tensor,
    anchor_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    scale: float,
    negatives: bool,
    ignore_index: int,
    diagonal: int | None,
) -> tuple[Tensor, Tensor]:
    """The mean over the positives j of anchor i of log(e^{s_ij} + Z_i) - s_ij, Z_i summed over the
    negatives, or of log Z_i - s_ij, Z_i over all but the anchor itself; the number of positives."""
    own, other = anchor_labels.long()[:, None], bank_labels.long()
    a = torch.where(own != ignore_index, wide(anchors), 0)
    b = torch.where((other != ignore_index)[:, None], wide(bank), 0)
    s = scale * product(a, b.mT)
    valid = (own != ignore_index) & (other != ignore_index)
    same = valid & (own == other)
    itself = torch.zeros_like(same)
    if diagonal is not None:
        i, j = (torch.arange(n, device=s.device) for n in s.shape)
        itself = same & (i[:, None] + diagonal == j)
    positive = same & ~itself
    compared = valid & ~(same if negatives else itself)
    # an entry that no anchor is compared with: a logsumexp of nothing has the gradient NaN
    log_sum = pad(torch.where(compared, s, -torch.inf), (0, 1), value=-1e30).logsumexp(1)[:, None]
    pairs = log_sum - s
    if negatives:  # softplus, which torch's is not for large arguments
        pairs = torch.logaddexp(pairs, torch.zeros_like(pairs))
    count = positive.sum(1)
    return torch.where(positive, pairs, 0).sum(1) / count.clamp(min=1), count


def kept_pairs(
    a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """s_ij = scale <a_i, b_j> [B, N, M], and whether neither pixel is masked."""
    sides = []
    for x, mask in ((a, mask_a), (b, mask_b)):
        x = wide(x)
        kept = x.new_ones((x.shape[0], x.shape[2]), dtype=torch.bool) if mask is None else mask
        sides.append((torch.where(kept[:, None], x, 0), kept))
    (a, kept_a), (b, kept_b) = sides
    return scale * product(a.mT, b), kept_a[:, :, None] & kept_b[:, None]


def log_sums(
    a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """log sum_j e^{s_ij} [B, N] and log sum_i e^{s_ij} [B, M] over the kept pairs."""
    s, kept = kept_pairs(a, b, mask_a, mask_b, scale)
    # one more entry in each sum: a logsumexp of nothing has the gradient NaN
    s = pad(torch.where(kept, s, -torch.inf), (0, 1, 0, 1), value=-1e30)
    rows, columns = s.logsumexp(2)[:, :-1], s.logsumexp(1)[:, :-1]
    found = []
    for sums, any_kept, mask in ((rows, kept.any(2), mask_a), (columns, kept.any(1), mask_b)):
        sums = torch.where(any_kept, sums, -torch.inf)
        found.append(sums if mask is None else torch.where(mask, sums, 0))
    return found[0], found[1]


def mutual_best(
    a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None, scale: float, dual: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The maximum of each row i of the confidences: its first j, or -1, and its value; the first i
    of the maximum of each column, or -1.

    The confidence is s_ij, or with `dual` softmax_j(s)_ij softmax_i(s)_ij, here by its logarithm,
    which tells those apart that are rounded to 0.
    """
    confidence, kept = kept_pairs(a, b, mask_a, mask_b, scale)
    if dual:
        s = torch.where(kept, confidence, -torch.inf)
        confidence = s.log_softmax(2) + s.log_softmax(1)
    # one more entry in each row and column: a maximum over nothing would raise
    confidence = pad(torch.where(kept, confidence, -torch.inf), (0, 1, 0, 1), value=-torch.inf)
    value, best_b = (x[:, :-1] for x in confidence.max(2))
    best_a = confidence.argmax(1)[:, :-1]
    best_b, best_a = (
        torch.where(some, best, -1) for some, best in ((kept.any(2), best_b), (kept.any(1), best_a))
    )
    return best_b, value.exp() if dual else value, best_a


def log_dual_softmax(
    a: Tensor,
    b: Tensor,
    rows: Tensor,
    columns: Tensor,
    at_a: Tensor,
    at_b: Tensor,
    scale: float,
) -> Tensor:
    """2 s_ij - log sum_j e^{s_ij} - log sum_i e^{s_ij} of given pairs [K], whose pixels are counted
    over all images; 0 for pixels past the last."""
    a, b = (wide(pad(x.mT.flatten(0, 1), (0, 0, 0, 1))[at]) for x, at in ((a, at_a), (b, at_b)))
    rows, columns = (pad(x.flatten(), (0, 1))[at] for x, at in ((rows, at_a), (columns, at_b)))
    return 2 * scale * (a.to(rows.dtype) * b).sum(1) - rows - columns
