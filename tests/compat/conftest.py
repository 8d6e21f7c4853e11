"""Inputs of the drop-ins: random ones, and photographs with masks.

Photographs that scikit-image ships are always there. PIXELKERNELS_TEST_DATA may name a folder with
more: video/<name>/images and masks, instances, and scenes/voc.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from skimage import data

from pixelkernels import testing


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def folder(*names):
    root = Path(os.environ.get("PIXELKERNELS_TEST_DATA") or "nowhere")
    if not root.is_dir():
        pytest.skip("PIXELKERNELS_TEST_DATA names no folder of images")
    return root.joinpath(*names)


def read(file):
    """The pixels of an image, or its palette's indices."""
    return np.array(Image.open(file))


@pytest.fixture(scope="module", params=["silhouettes", "car-shadow"])
def masks(request):
    """Pairs of an object and a prediction, bool [H, W] each."""
    if request.param == "car-shadow":
        files = sorted(folder("video", "car-shadow", "masks").glob("*.png"))
        frames = [read(file) > 127 for file in files]
        pairs = ((0, 1), (3, 10), (6, 7), (11, 4), (13, 14), (19, 2))
        return [(frames[i], frames[j]) for i, j in pairs]
    return [
        (mask, other)
        for mask in (~data.horse().astype(bool), data.coins() > 120)
        for other in (np.roll(mask, (5, -9), (0, 1)), mask[::-1], ~mask, np.zeros_like(mask))
    ]


@pytest.fixture(scope="module", params=["coins", "nuclei", "voc"])
def instances(request):
    """Features [1, E, H, W] float64 (a photograph, sharp and blurred), and labels [1, 1, H, W]
    whose ids are not consecutive."""
    if request.param == "coins":
        image = data.coins()[..., None]
        labels = ndimage.label(ndimage.median_filter(image[..., 0], 7) > 120)[0] * 7
    elif request.param == "nuclei":
        image = read(folder("instances", "img2d.tif"))[::2, ::2, None]
        labels = read(folder("instances", "mask2d.tif"))
        assert len(np.unique(labels)) == 126
        labels = labels[::2, ::2]
    else:
        image = read(folder("scenes", "voc", "JPEGImages", "2011_000006.jpg"))
        labels = read(folder("scenes", "voc", "SegmentationObject", "2011_000006.png"))
    labels = torch.from_numpy(labels.astype(np.int64))
    assert len(labels.unique()) < labels.max() + 1
    image = image.astype(np.float64)
    image = (image - image.mean((0, 1))) / image.std((0, 1))
    scales = np.concatenate([ndimage.gaussian_filter(image, (s, s, 0)) for s in (0, 2, 6)], 2)
    features = torch.from_numpy(scales).movedim(2, 0)[None].contiguous()
    return SimpleNamespace(features=features, labels=labels[None, None])


PHOTOS = ["chelsea", "car-shadow", "judo"]


@functools.cache
def load(name):
    """Two images [1, 3, H, W] in [0, 1], float64, and labels [H, W] of the first; 16 divides H and
    W."""
    if name == "chelsea":
        image, size = data.chelsea(), (288, 448)
        warmth = ndimage.gaussian_filter(image[..., 0] - 1.0 * image[..., 2], 3)
        labels = np.digitize(warmth, [50, 80]) * 2  # no pixel is 1
        images = [image, image[::-1, ::-1]]
    else:
        size, root = (480, 848), folder("video", name)
        files = {"car-shadow": ("00000", "00004"), "judo": ("00008", "00009")}[name]
        images = [read(root / "images" / f"{file}.jpg") for file in files]
        labels = read(root / "masks" / f"{files[0]}.png")
        labels = labels.astype(int) if name == "judo" else (labels > 127).astype(int)
    reference, query = (
        torch.from_numpy(np.array(x)).movedim(2, 0)[None, :, : size[0], : size[1]].double() / 255
        for x in images
    )
    labels = torch.from_numpy(labels[: size[0], : size[1]])
    assert labels.bool().any()
    return SimpleNamespace(reference=reference, query=query, labels=labels)


@pytest.fixture(params=PHOTOS)
def photos(request):
    return load(request.param)


def features(image):
    """Differences from the mean colour, averaged over 4 x 4 pixels: [1, 48, H / 16, W / 16]."""
    return F.pixel_unshuffle(F.avg_pool2d(image - image.mean((2, 3), True), 4), 4)


@pytest.fixture(params=["random", *PHOTOS])
def shots(request):
    """Query features [2, C, h, w], and for each of two shots features and a mask [2, 1, H, W]."""
    if request.param == "random":
        query, *supports = torch.randn(3, 2, 16, 6, 7, dtype=torch.float64)
        return query, supports, list((torch.rand(2, 2, 1, 24, 23) > 0.4).double())
    photos = load(request.param)
    mask = (photos.labels > 0).double()[None, None]
    query = torch.cat([features(photos.query), features(photos.reference.flip(3))])
    images = (photos.reference, photos.reference.flip(2))
    supports = [features(torch.cat([x, x.flip(3)])) for x in images]
    return query, supports, [torch.cat([x, x.flip(3)]) for x in (mask, mask.flip(2))]


@pytest.fixture(params=["random", *PHOTOS])
def frames(request):
    """Features of two frames [D, h, w], float64, and labels [h, w] of the first, from 0 on."""
    if request.param == "random":
        first, second = torch.randn(2, 5, 13, 18, dtype=torch.float64)
        labels = testing.coherent_labels(1, 13, 18, 3)[0]
    else:
        photos = load(request.param)
        first, second = (features(x)[0] for x in (photos.reference, photos.query))
        labels = photos.labels[8::16, 8::16].unique(return_inverse=True)[1]
    assert labels.max() > 0
    return SimpleNamespace(first=first, second=second, labels=labels, count=int(labels.max()) + 1)
