"""Label maps made from a photo without learning: its salient object, and its regions of even
colour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage import color, filters, segmentation

Floats = NDArray[np.float64]

SEGMENTS = 300  # superpixels, fine enough to follow the outlines
BORDER_SHARE = 0.1  # of the superpixels on the border, those that a superpixel is compared with
CENTRE_SIGMA = 0.3  # of the centre prior, in image sides
FREE_CONTRAST = 3.0  # Lab units between neighbours that are shading, not an outline
SMOOTHING = (8.0, 0.25)  # reach of the smoothing: Lab units, image sides
SMALLEST_PART = 0.1  # of the largest part of an object, below which a part is a speck


def many_regions(photo: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[H, W]: the regions of even colour that Felzenszwalb and Huttenlocher's method finds."""
    smallest = photo.shape[0] * photo.shape[1] // 200
    return np.asarray(
        segmentation.felzenszwalb(photo, scale=200, sigma=0.8, min_size=smallest), np.int64
    )


def salient_object(photo: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[H, W]: True on what stands out from the border of the photo.

    The cue of each superpixel is how far its colour is from similar colours on the border, plus its
    geodesic distance from the border (Wei et al., 2012), with a prior for the centre; it is
    smoothed among superpixels of like colour and place and cut by Otsu's threshold.
    """
    lab = color.rgb2lab(photo)
    segments = segmentation.slic(photo, n_segments=SEGMENTS, compactness=10, start_label=0)
    size = np.bincount(segments.ravel())
    rows, columns = np.indices(segments.shape)
    places = np.stack([rows / rows.max() - 0.5, columns / columns.max() - 0.5], axis=-1)
    colour, place = _means(lab, segments, size), _means(places, segments, size)
    colour_gap, place_gap = _distances(colour), _distances(place)
    border = np.unique(np.concatenate([segments[[0, -1]].ravel(), segments[:, [0, -1]].ravel()]))

    compared = max(1, round(BORDER_SHARE * len(border)))
    contrast = np.sort(colour_gap[:, border], axis=1)[:, :compared].mean(axis=1)
    enclosure = _geodesic(segments, colour_gap, border)
    centre = np.exp(-np.square(place).sum(axis=1) / (2 * CENTRE_SIGMA**2))
    cue = (_to_one(contrast) + _to_one(enclosure)) * centre

    alike = np.exp(
        -sum(
            (gap / reach) ** 2 / 2
            for gap, reach in zip((colour_gap, place_gap), SMOOTHING, strict=True)
        )
    )
    smooth = np.sqrt((alike * size) @ cue / (alike @ size))[segments]
    return _whole(smooth > filters.threshold_otsu(smooth))


def _means(values: Floats, segments: NDArray[np.int64], size: NDArray[np.int64]) -> Floats:
    """[H, W, K] -> [S, K]: the mean over each segment."""
    sums = [np.bincount(segments.ravel(), channel.ravel()) for channel in np.moveaxis(values, 2, 0)]
    return np.stack(sums, axis=1) / size[:, None]


def _distances(points: Floats) -> Floats:
    return np.linalg.norm(points[:, None] - points, axis=2)


def _geodesic(segments: NDArray[np.int64], gap: Floats, border: NDArray[np.int64]) -> Floats:
    """The least sum of colour steps on a way from the border."""
    graph = np.zeros_like(gap)
    for one, other in ((segments[:-1], segments[1:]), (segments[:, :-1], segments[:, 1:])):
        # a step that costs nothing would be no edge to the sparse graph
        graph[one, other] = np.maximum(gap[one, other] - FREE_CONTRAST, 1e-3)
    np.fill_diagonal(graph, 0)
    ways = sparse.csgraph.dijkstra(sparse.csr_matrix(graph), directed=False, indices=border)
    return np.asarray(ways.min(axis=0))


def _to_one(values: Floats) -> Floats:
    return values / max(values.max(), 1e-12)


def _whole(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without holes and specks."""
    parts, _ = ndimage.label(ndimage.binary_fill_holes(mask))
    size = np.bincount(parts.ravel())
    size[0] = 0
    keep = (size > 0) & (size >= SMALLEST_PART * size.max())
    return np.asarray(keep[parts])
