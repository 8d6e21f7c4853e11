"""Similarity in Triton: portable GPU kernels; with TRITON_INTERPRET=1 they run on CPU tensors.

The matrix of similarities, K points x N query pixels, exists only in tiles. A first kernel packs
the points in class order, channels last, so that a class is a range of rows; a program loads its
end as the bound of a loop, without synchronisation. A program of the forward holds a tile of query
pixels and loops over the classes. Each tile of the matrix is one matrix product on the tensor cores
(float32 in full precision: outside them), which is reduced at once to a few numbers per pixel.
Half precision features are multiplied as they are; norms, scale, shift and transforms are applied
afterwards, in float32. max, min and topk select by similarity, because transforms are monotonic,
and transform only the selected values.

The gradients recompute the tiles with the same products, once per tile of the query and once per
tile of the points, and multiply each with the other side. No two programs add to the same number:
if there are too few points to fill a GPU, the query is split, and the partial sums, at most 16 MiB,
are stored and added in a fixed order. So every run gives the same bits.

A sum or a mean without a transform is linear in the points: one prototype per class replaces its
points (for squared distances together with the mean of |r|^2), and K becomes the number L of
classes.

Multiply-adds, in units of K N D, and bytes moved, for features of F bytes. The points are read
again from the caches for every tile of 64 or 128 query pixels:

    scores      1, softmax over several classes 2         F N D + 2 F K D + 4 N L
    the same, collapsed   N L D, memory bound             F N D + F K D + 4 N L
    topk        1 for k <= 64, plus a search in each tile while it has better points; else 34
    prior       1, with K the support pixels of the mask  F N D + 2 F K D + 4 N
    pairs       1; with the gradient 2, and 2 per chunk as in backward
    contrast    1, and again for the positives; with the gradient 2, and 2 per chunk of up to 256
                channels; the gradient in the bank 2 per chunk
                                                          F (N + K) D + 8 K, with their gradients
    log sums    2; their gradient as backward             2 F (N + K) D + 4 (N + K)
    mutual best 2                                         2 F (N + K) D + 20 (N + K)
    backward    2, and 2 per chunk of channels: 128 in bfloat16, or if one tile holds them; else 64
                                                          2 F N D + 4 F K D + 4 N L
"""

from .contrast import contrast_bank_gradient, contrast_pass
from .gradient import matching_scores_backward
from .mutual import log_sums, log_sums_backward, mutual_best
from .pairs import pair_terms
from .prior import prior_scores
from .sampling import sample_ranks
from .scores import matching_scores

__all__ = [
    "contrast_bank_gradient",
    "contrast_pass",
    "log_sums",
    "log_sums_backward",
    "matching_scores",
    "matching_scores_backward",
    "mutual_best",
    "pair_terms",
    "prior_scores",
    "sample_ranks",
]
