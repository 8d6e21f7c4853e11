"""Distance in Triton: portable GPU kernels; with TRITON_INTERPRET=1 they run on CPU tensors.

Click maps. A program has a tile of one map. A click can be the nearest of some pixel of the tile
only if its distance to the tile's centre exceeds that of the nearest click by at most the diagonal
of the tile. One pass over the clicks, one per thread, selects those few, and only they are compared
with every pixel. So the cost is the write of the maps, for any number of clicks.

Distance transforms, in two passes over the mask and one over rows. Columns: the distance of each
pixel to the nearest True pixel above or below it. Columns are cut into segments; one kernel finds
the first and last True pixel of each segment, the next one the nearest ones outside the segment,
and with scans inside it. Rows: d^2(x) = min_q down_q^2 + (x - q)^2. The argmin q is monotonic in x,
so the argmins of every 32nd pixel, the anchors, are found by bisection: that of an anchor lies
between those of its neighbours. The pixels between two anchors then search only between their
argmins. Each step of the bisection reads at most W + 1 columns per anchor, and so do all blocks of
32 pixels together, for any mask.

Bytes moved per pixel, with short columns (at most 32767) in int16. The ends of segments and the
anchors add 1 / 8 each; a program reads its row again from the caches:

    click_maps   the result, 4 per map     distance_transform   2 + 2 (down) + 2 + 4
"""

from .clicks import click_maps
from .transform import distance_transform

__all__ = ["click_maps", "distance_transform"]
