"""Regions in Triton: portable GPU kernels; TRITON_INTERPRET=1 runs the same ones on CPU tensors.

Sums over regions. A program of one to four warps walks its block of pixels in short tiles
[P pixels, CB channels]. In a tile it loops over the labels that occur there, smallest first, and
sums the pixels of each under a select; the region at hand stays in registers from tile to tile and
its partials go to memory when it changes. A short tile of a real label map has one or two labels,
so this costs a few instructions per value and needs no table of regions in registers, whatever
their number. Nothing is multiplied by a one-hot matrix: the NaN of a pixel stays in its region, and
sums are in ordinary float32 on every device. A second kernel merges the blocks of each region in a
fixed order, so the bits never change from run to run. Blocks grow with the number of regions to
keep the partials below a quarter of the float32 features (if one block is the whole image, they
are twice the table of means).

Maps from pixels to pixels (gradients, distances, scores) take tiles of many pixels and gather the
rows of each pixel's region, out of tables with the regions side by side where threads hold pixels.

Bytes moved, for features of F bytes, labels of L, one float per pixel of W; tables [B, R, C] and
whatever is read twice by one program come from the caches:

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
