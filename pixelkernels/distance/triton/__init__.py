"""Distance in Triton: portable GPU kernels; with TRITON_INTERPRET=1 they run on CPU tensors.

Click maps. A program has a tile of one map. A click can be the nearest of some pixel of the tile
only if its distance to the tile's centre exceeds that of the nearest click by at most the diagonal
of the tile. One pass over the clicks, one per thread, selects those few, and only they are compared
with every pixel. So the cost is the write of the maps, for any number of clicks.

Distance transforms, along one axis after the other. Columns, two passes over the mask: the distance
of each pixel to the nearest True pixel above or below it. Columns are cut into segments; one kernel
finds the first and last True pixel of each segment, the next one the nearest ones outside the
segment, and with scans inside it. Rows: d^2(x) = min_q down_q^2 + (x - q)^2. The argmin q is
monotonic in x, so the argmins of every 32nd pixel, the anchors, are found by bisection: that of an
anchor lies between those of its neighbours. The pixels between two anchors then search only between
their argmins. Each step of the bisection reads at most W + 1 columns per anchor, and so do all
blocks of 32 pixels together, for any mask.

Volumes. The column kernels run along D, the kernel of rows along H, where it adds squares to
squares, and then along W. It reads contiguous lines, so the mask is transposed to [D, W, H] first,
and the squares are transposed back after the pass along H.

Labels. One kernel finds where the label changes along each axis, in one byte per pixel, which the
passes take in place of a mask: columns count the steps to another label, and a pass along lines
bounds its squares by those of the steps to another label along the line. Every pass reads the byte.

Nearest True pixels. In place of distances, the passes hand on sites: the coordinates of the nearest
True pixel on the axes so far. Those of a volume are pairs in one word. A pass computes costs from
sites, finds the argmin q, and stores q and the sites of column q. Each pass takes the first of
equal costs, as eager does. Costs in float64 have the bits of eager, and the limit on the quotient
of spacings keeps their argmins monotonic. For expanded labels, the last pass loads the label of the
pixel found and stores that alone.

Bytes moved per pixel, with sides up to 32767, whose steps and sites are int16. The ends of segments
and the anchors add 1 / 8 each; a program reads its row again from the caches. Columns of one
segment, up to 128 pixels, save 1:

    click_maps                      the result, 4 per map
    distance_transform              2 + 2 (down) + 2 + 4
    distance_transform of volumes   2 (transpose) + 2 + 2 (down) + 2 + 4 + 8 (transpose) + 4 + 4
    label_distance                  as the transforms, n + 1 for labels of n bytes, 1 in every pass,
                                    and 8 along lines for the next changes
    nearest_true                    2 + 2 (sites) + 2 + 12
    nearest_true of volumes         2 (transpose) + 2 + 2 (sites) + 2 + 4 + 8 (transpose) + 4 + 16

Memory per pixel besides the results: 2 for images, 4 for volumes, and 1 / 8 for the anchors. With
longer sides it is 4, for pairs of sites 8. The transposes of volumes read from the results, which
are written later.
"""

from .clicks import click_maps
from .nearest import expand_labels, nearest_true
from .transform import distance_transform, label_distance

__all__ = [
    "click_maps",
    "distance_transform",
    "expand_labels",
    "label_distance",
    "nearest_true",
]
