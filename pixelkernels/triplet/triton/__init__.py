"""Triplets in Triton: portable GPU kernels; with TRITON_INTERPRET=1 they run on CPU tensors.

A draw takes a prefix sum of the mask, permutes ranks, and finds the pixel of each rank by binary
search: there is no sort of all pixels, and no synchronisation.

A program of the forward reads the pixels of a tile of rows, of all sets, channel by channel. In the
backward, the gradient is filled with zeros and the entries of the rows are sorted by pixel. One
program sums all contributions to a pixel, in a fixed order, and writes them once. Bytes moved, for
features of F bytes, C channels, S sets of K rows:

    forward     F C S K; a sector of 32 bytes per value if channels are not contiguous
    backward    the same again, and F C H W, written twice at sampled pixels
"""

from .hinges import triplet_hinges, triplet_hinges_backward
from .sampling import draw_pixels

__all__ = ["draw_pixels", "triplet_hinges", "triplet_hinges_backward"]
