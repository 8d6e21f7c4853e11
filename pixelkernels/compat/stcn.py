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

    Args:
        mk: keys [1, C, N]. Further trailing dimensions are flattened, here and below.
        ms: shrinkage [1, 1, N], or None for 1.
        qk: query keys [1, C, HW].
        qe: query selection [1, C, HW], or None for 1 (STCN).
        mv: values [objects, V, N].
        top_k: the number of matches in the softmax; None for all.

    Returns: (values [objects, V, HW], usage [1, N]). Differentiable. The softmax subtracts the
    largest exponent; with top_k the original does not, and gives 0/0 for a pixel whose matches are
    all far away. Memory: two copies of the values and of the keys.
    """
    mk, qk, mv = (x.flatten(2) for x in (mk, qk, mv))
    if len(mk) != 1 or len(qk) != 1:
        raise ValueError(f"mk, qk: expected one image, got {len(mk)} and {len(qk)}")
    keys, queries = mk[0], qk[0]
    channels, entries = keys.shape
    selection = torch.ones_like(queries) if qe is None else qe.flatten(2)[0]
    shrinkage = 1 if ms is None else ms.flatten()
    # expand the square: one product with 2 C channels plus the query's own term
    memory = torch.cat([-keys.square(), 2 * keys, -torch.ones_like(keys[:1])])
    memory = memory * (shrinkage / math.sqrt(channels))
    own = (selection * queries.square()).sum(0, keepdim=True)
    query = torch.cat([selection, queries * selection, own]).T
    values = mv.flatten(0, 1).T.contiguous()
    read, usage = [], keys.new_zeros(entries)
    for block in query.split(max(BLOCK // entries, 1)):
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
    return torch.cat(read).view(-1, *mv.shape[:2]).permute(1, 2, 0), usage[None]
