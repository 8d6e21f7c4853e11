"""The photos as a batch, with the labels and clicks that networks and losses take.

The labels come from the photos themselves, without learning: the salient object, and the regions of
even colour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage import color, filters, segmentation
from torch import Tensor

import pixelkernels as pk

from .photos import Photo

Floats = NDArray[np.float64]

SEED = 0
PIXELS = 2000  # drawn for each set of the triplets
POSITIVE, NEGATIVE = 4, 4
# in image sides: the library's defaults are for photos of a few hundred pixels
MARGIN, SPACING, BAND = 0.025, 0.05, 0.2
RADIUS = 0.5

SEGMENTS = 300  # superpixels, small enough to follow the outlines
BORDER_SHARE = 0.1  # a superpixel is compared with this share of those on the border
CENTRE_SIGMA = 0.3  # of the centre prior, in image sides
FREE_CONTRAST = 3.0  # Lab units between neighbours that are shading, not an outline
SMOOTHING = (8.0, 0.25)  # bandwidths: Lab units, image sides
SMALLEST_PART = 0.1  # smaller parts of an object are specks; a share of its largest part


class Scene(NamedTuple):
    """A batch of photos with everything that a step of the demo needs."""

    names: list[str]
    images: Tensor  # [B, 3, H, W], about -2 to 2
    mask: Tensor  # [B, H, W] bool: the salient object
    regions: Tensor  # [B, H, W] int64, -1 nowhere
    num_regions: int
    background: Tensor  # [B, H, W]: how likely a pixel is background, from its position alone
    points: Tensor  # [B, N, 2]: simulated clicks
    click_labels: Tensor  # [B, N]: 1 on the object, 0 off it, -1 padding
    # [B, K] each: two draws of the object's pixels, then two of the others
    pixels: tuple[Tensor, ...]


def build(photos: list[Photo], device: str) -> Scene:
    images = normalized(photos, device)
    objects = np.stack([salient_object(photo.pixels) for photo in photos])
    mask = torch.from_numpy(objects).to(device)
    labels = np.stack([many_regions(photo.pixels) for photo in photos])
    regions, num_regions = pk.compact_labels(torch.from_numpy(labels).to(device))
    points, click_labels = simulate_clicks(mask)
    return Scene(
        names=[photo.name for photo in photos],
        images=images,
        mask=mask,
        regions=regions,
        num_regions=num_regions,
        background=_border_prior(images.shape[2])
        .expand(len(photos), -1, -1)
        .contiguous()
        .to(device),
        points=points,
        click_labels=click_labels,
        pixels=draw_pixels(mask),
    )


def normalized(photos: list[Photo], device: str) -> Tensor:
    """[B, 3, H, W], about -2 to 2."""
    pixels = torch.from_numpy(np.stack([photo.pixels for photo in photos])).to(device)
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def draw_pixels(mask: Tensor) -> tuple[Tensor, ...]:
    """Drawn once for both backends, because each has its own stream of random numbers."""
    generator = torch.Generator(mask.device).manual_seed(SEED)
    masks = (mask, mask, ~mask, ~mask)
    return tuple(pk.sample_pixels(m, PIXELS, generator=generator) for m in masks)


def simulate_clicks(objects: Tensor) -> tuple[Tensor, Tensor]:
    """Points [B, 8, 2] and labels [B, 8] on objects [B, H, W], the same in every call."""
    side = objects.shape[-1]
    return pk.simulate_clicks(
        objects,
        POSITIVE,
        NEGATIVE,
        strategy="boundary",
        margin=MARGIN * side,
        spacing=SPACING * side,
        band=BAND * side,
        generator=torch.Generator(objects.device).manual_seed(SEED),
    )


def click_maps(points: Tensor, labels: Tensor, side: int) -> Tensor:
    """[B, 2, side, side] in [0, 1]: each pixel's distance from positive and negative clicks."""
    return pk.click_maps(points, labels, (side, side), encoding="tanh", radius=RADIUS * side)


def _border_prior(side: int) -> Tensor:
    """[side, side]: 1 at the border and 0 at the centre, where photographers place the object."""
    along = torch.linspace(-1, 1, side).abs()
    return torch.maximum(along[:, None], along).pow(8)


def many_regions(photo: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[H, W]: regions of even colour by the method of Felzenszwalb and Huttenlocher."""
    smallest = photo.shape[0] * photo.shape[1] // 200
    return np.asarray(
        segmentation.felzenszwalb(photo, scale=200, sigma=0.8, min_size=smallest), np.int64
    )


def salient_object(photo: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[H, W]: True on what stands out from the border of the photo.

    The cue of a superpixel is its distance in colour from the most similar superpixels on the
    border, plus its geodesic distance from the border (Wei et al., 2012), times a centre prior. The
    cue is smoothed among superpixels of similar colour and position, then cut at Otsu's threshold.
    """
    lab = color.rgb2lab(photo)
    segments = segmentation.slic(photo, n_segments=SEGMENTS, compactness=10, start_label=0)
    size = np.bincount(segments.ravel())
    rows, columns = np.indices(segments.shape)
    positions = np.stack([rows / rows.max() - 0.5, columns / columns.max() - 0.5], axis=-1)
    colour, position = _means(lab, segments, size), _means(positions, segments, size)
    gaps = [np.linalg.norm(x[:, None] - x, axis=2) for x in (colour, position)]
    border = np.unique(np.concatenate([segments[[0, -1]].ravel(), segments[:, [0, -1]].ravel()]))

    compared = max(1, round(BORDER_SHARE * len(border)))
    contrast = np.sort(gaps[0][:, border], axis=1)[:, :compared].mean(axis=1)
    enclosure = _geodesic(segments, gaps[0], border)
    centre = np.exp(-np.square(position).sum(axis=1) / (2 * CENTRE_SIGMA**2))
    cue = sum(x / max(x.max(), 1e-12) for x in (contrast, enclosure)) * centre

    similarity = np.exp(
        -sum((gap / width) ** 2 / 2 for gap, width in zip(gaps, SMOOTHING, strict=True))
    )
    smooth = np.sqrt((similarity * size) @ cue / (similarity @ size))[segments]
    return _without_holes_and_specks(smooth > filters.threshold_otsu(smooth))


def _means(values: Floats, segments: NDArray[np.int64], size: NDArray[np.int64]) -> Floats:
    """[H, W, K] -> [S, K]: the mean over each segment."""
    sums = [np.bincount(segments.ravel(), channel.ravel()) for channel in np.moveaxis(values, 2, 0)]
    return np.stack(sums, axis=1) / size[:, None]


def _geodesic(segments: NDArray[np.int64], gap: Floats, border: NDArray[np.int64]) -> Floats:
    """The smallest sum of colour differences on a path from the border."""
    graph = np.zeros_like(gap)
    for one, other in ((segments[:-1], segments[1:]), (segments[:, :-1], segments[:, 1:])):
        # a sparse graph takes a cost of 0 for no edge
        graph[one, other] = np.maximum(gap[one, other] - FREE_CONTRAST, 1e-3)
    np.fill_diagonal(graph, 0)
    paths = sparse.csgraph.dijkstra(sparse.csr_matrix(graph), directed=False, indices=border)
    return np.asarray(paths.min(axis=0))


def _without_holes_and_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(ndimage.binary_fill_holes(mask))
    size = np.bincount(parts.ravel())
    size[0] = 0
    keep = (size > 0) & (size >= SMALLEST_PART * size.max())
    return np.asarray(keep[parts])
