"""Distance in Triton: portable GPU kernels; TRITON_INTERPRET=1 runs the same ones on CPU tensors.

Click maps. A program has a tile of pixels of one map. A click can be the nearest of some pixel of
the tile only if it is not farther from the tile's centre than the nearest click by more than the
tile's diagonal; it takes one pass over the clicks, a thread to each, to find those few, and only
they are compared with every pixel. So the cost is the write of the maps, however many the clicks.

Distance transforms, in two passes over the mask and one over rows. Columns: each pixel's distance
to the nearest True pixel above or below it. A column is cut into segments; one kernel finds the
first and last True pixel of each, a second one those nearest to its segment, and within it by
scans. Rows: d^2(x) = min_q down_q^2 + (x - q)^2. The q that attains it never decreases with x, so
that of every 32nd pixel, the anchors, is found by halving: an anchor looks only between those of
its neighbours. The pixels from one anchor to the next then look only between these two. Each step
of the halving reads W + 1 columns per anchor at most, and so do all blocks of 32 pixels together,
whatever the mask.

Bytes moved per pixel, with short columns (at most 32767) in int16; the first and last True pixels
of segments add 1 / 8, anchors 1 / 8, and what a row's program reads again comes from the caches:

    click_maps   the result, 4 per map     distance_transform   2 + 2 (down) + 2 + 4
"""

from .clicks import click_maps
from .transform import distance_transform

__all__ = ["click_maps", "distance_transform"]
