"""Regions in Triton: portable GPU kernels; with TRITON_INTERPRET=1 they run on CPU tensors.

Sums over regions. A program of one to eight warps reads its block of pixels in short tiles [P
pixels, CB channels]. Within a tile it loops over the labels that occur, in ascending order, and
sums the pixels of each with a select. The accumulators of the current region stay in registers from
tile to tile; they go to memory when the region changes. A short tile of a real label map has one or
two labels, so this takes a few instructions per value, and no table of regions in registers. There
is no product with a one-hot matrix: the NaN of a pixel stays in its region, and sums are plain
float32 on every device. A second kernel merges the blocks of each region in a fixed order, so every
run gives the same bits. The block size grows with the number of regions, which keeps the partials
below a quarter of the float32 features (with one block per image, they are twice the means).

Kernels that map pixels to pixels (gradients, distances, scores) read larger tiles and gather the
rows of each pixel's region. If the threads of a warp hold different pixels, regions are contiguous
in the gathered tables.

Bytes moved, for features of F bytes, labels of L, W for one float per pixel. The tables [B, R, C],
and what a program reads twice, come from the caches:

    region_stats           F + L     region_stats_backward          2F + L  (mean alone: F + L)
    region_pull           2F + 2L    region_pull_backward           2F + L
    region_contrast        F + L + W region_push                    the means, R times
    weighted_mean          F + W     weighted_mean_backward         2F + 2W
                                     weighted_mean_share             F + W
    background_distance   2F + 2W    background_distance_backward   3F + 6W
"""

from .gradients import region_pull_backward, region_stats_backward
from .pairs import region_contrast, region_push
from .statistics import region_pull, region_stats
from .weighted import (
    background_distance,
    background_distance_backward,
    weighted_mean,
    weighted_mean_backward,
    weighted_mean_share,
)

__all__ = [
    "background_distance",
    "background_distance_backward",
    "region_contrast",
    "region_pull",
    "region_pull_backward",
    "region_push",
    "region_stats",
    "region_stats_backward",
    "weighted_mean",
    "weighted_mean_backward",
    "weighted_mean_share",
]
