"""The memory readout of STCN, XMem and Cutie: a softmax over the best matches of every pixel.

One function for three that their memory classes call one after the other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# similarities that are computed at a time
BLOCK = 1 << 22


def readout(
    mk: Tensor,
    ms: Tensor | None,
    qk: Tensor,
    qe: Tensor | None,
    mv: Tensor,
    top_k: int | None = 30,
) -> tuple[Tensor, Tensor]:
    """The value read from the memory for every query pixel, and how much each entry was used:
    `get_similarity(mk, ms, qk, qe)`, `do_softmax(..., top_k, return_usage=True)` and
    `mv @ affinity` in one step, without N x HW matrices.

    The similarity of memory entry n and pixel q is -ms_n sum_c qe_cq (mk_cn - qk_cq)^2 / sqrt(C).
    Without qe it is -ms_n sum_c (mk_cn^2 - 2 mk_cn qk_cq) / sqrt(C): the originals leave out the
    query's own square, which matters if ms is given.

    Args:
        mk: keys [B, C, N]. Further trailing dimensions are flattened, here and below.
        ms: shrinkage [B, 1, N], or None for 1.
        qk: query keys [B, C, HW].
        qe: query selection [B, C, HW], or None (STCN).
        mv: values [B, objects, V, N], or [B, V, N]. For B = 1 also [objects, V, N].
        top_k: the number of matches in the softmax; None for all.

    Returns: (values, shaped as mv with HW for N; usage [B, N]). Differentiable. The softmax
    subtracts the largest exponent; with top_k the original does not, and gives 0/0 for a pixel
    whose matches are all far away. Memory: two copies of the values and of the keys.
    """
    images = len(mk)
    leading = mv.shape[: mv.dim() - mk.dim() + 2]
    if len(qk) != images or len(leading) not in (2, 3) or leading[0] != images != 1:
        raise ValueError(
            f"mk, qk, mv: expected images of one batch, got {list(mk.shape)}, {list(qk.shape)},"
            f" {list(mv.shape)}"
        )
    mk, qk, mv = mk.flatten(2), qk.flatten(2), mv.flatten(len(leading))
    rows = mv.reshape(images, -1, mv.shape[-1])
    results = [
        _read(
            mk[b],
            None if ms is None else ms[b].flatten(),
            qk[b],
            None if qe is None else qe[b].flatten(1),
            rows[b],
            top_k,
        )
        for b in range(images)
    ]
    values, usage = (torch.stack(x) for x in zip(*results, strict=True))
    return values.view(*leading, -1), usage


def _read(
    keys: Tensor,
    shrinkage: Tensor | None,
    queries: Tensor,
    selection: Tensor | None,
    values: Tensor,
    top_k: int | None,
) -> tuple[Tensor, Tensor]:
    """For one image: values [rows, N] read for every query, [rows, HW], and usage [N]."""
    channels, entries = keys.shape
    # expand the square: one product
    if selection is None:
        memory = torch.cat([2 * keys, -keys.square().sum(0, keepdim=True)])
        query = torch.cat([queries, torch.ones_like(queries[:1])])
    else:
        memory = torch.cat([-keys.square(), 2 * keys, -torch.ones_like(keys[:1])])
        own = (selection * queries.square()).sum(0, keepdim=True)
        query = torch.cat([selection, queries * selection, own])
    memory = memory / math.sqrt(channels) * (1 if shrinkage is None else shrinkage)
    values = values.T.contiguous()
    read, usage = [], keys.new_zeros(entries)
    for block in query.T.split(max(BLOCK // entries, 1)):
        similarity = block @ memory
        if top_k is None:
            affinity = similarity.softmax(1)
            read.append(affinity @ values)
            usage = usage + affinity.sum(0)
        else:
            best, index = similarity.topk(top_k, sorted=False)
            affinity = best.softmax(1)
            read.append(F.embedding_bag(index, values, per_sample_weights=affinity, mode="sum"))
            usage = usage.index_add(0, index.flatten(), affinity.flatten())
    return torch.cat(read).T, usage
