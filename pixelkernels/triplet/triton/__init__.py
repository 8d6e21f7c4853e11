"""Triplets in Triton: portable GPU kernels; TRITON_INTERPRET=1 runs them on CPU tensors.

A draw counts the pixels inside the mask once (a cumulative sum), permutes ranks, and looks each up
in the counts: no sort of all pixels, and nothing waits for the device.

A program of the forward reads the pixels of a tile of rows, all sets of it, channel by channel. The
gradient is filled with zeros, and the rows' entries are sorted by pixel, so that one program adds
up, in a fixed order, all that a pixel gets, and writes it once. Bytes moved, for features of F
bytes, C channels, S sets of K rows:

    forward     F C S K, a sector of 32 bytes for each where channels lie apart
    backward    as much again, and F C H W written twice where rows lie
"""

from .hinges import triplet_hinges, triplet_hinges_backward
from .sampling import draw_pixels

__all__ = ["draw_pixels", "triplet_hinges", "triplet_hinges_backward"]
