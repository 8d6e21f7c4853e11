"""Similarity in Triton: portable GPU kernels; TRITON_INTERPRET=1 runs them on CPU tensors.

The matrix of similarities, K points x N query pixels, is only ever there in tiles. A first kernel
copies the points into class order, channels last, so that a class is a range of rows, whose end a
program reads as the bound of its loop: nothing waits for the device. A program of the forward holds
a tile of query pixels and goes over the classes; each tile of the matrix is one matrix product on
the tensor cores (float32 in full: on the ordinary ones), reduced at once into a few numbers per
pixel. Half-precision features are multiplied as they are; norms, scale, shift and transforms enter
afterwards, in float32. max, min and topk choose by similarity, which every transform leaves in
order, and transform only what they have chosen.

The gradients compute the tiles again, with the same products as the forward, once with the query at
rest and once with the points, and multiply each with the other side. No two programs add to one
number: where the points are too few to fill a GPU, the query is split, the parts, 16 MiB at most,
are stored and added in a fixed order. So the bits never change from run to run.

A sum or a mean without a transform is linear in the points: the mean of a class stands for all of
it, for squared distances with the mean of |r|^2, and K becomes the number L of classes.

Multiplications and additions, in units of K N D, and bytes moved, for features of F bytes; the
points are read again from the caches for every tile of 64 or 128 query pixels:

    scores      1, softmax over several classes 2         F N D + 2 F K D + 4 N L
    the same, collapsed   N L D, bound by memory          F N D + F K D + 4 N L
    topk        1 for k <= 64, and a search in each tile while it has better points; else 34
    prior       1, K the support pixels of the mask       F N D + 2 F K D + 4 N
    pairs       1; with the gradient 2, and 2 per chunk as in backward
    backward    2, and 2 per chunk of channels: of 128 in bfloat16 and where one tile holds them,
                else of 64                                2 F N D + 4 F K D + 4 N L
"""

from .gradient import matching_scores_backward
from .pairs import pair_terms
from .prior import prior_scores
from .sampling import sample_ranks
from .scores import matching_scores

__all__ = [
    "matching_scores",
    "matching_scores_backward",
    "pair_terms",
    "prior_scores",
    "sample_ranks",
]
