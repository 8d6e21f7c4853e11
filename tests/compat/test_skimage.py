"""The drop-in for scikit-image, against the original."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage import segmentation

from pixelkernels import compat
from pixelkernels.compat import skimage


@pytest.mark.parametrize("spacing", [1, (1.0, 1.0, 1.0), (2.5, 0.3, 0.7)], ids=str)
@pytest.mark.parametrize("shape", [(40,), (30, 41), (7, 12, 15)], ids=str)
def test_skimage_labels_are_those_of_a_nearest_pixel(shape, spacing):
    steps = spacing if spacing == 1 else spacing[-len(shape) :]
    rng = np.random.default_rng(0)
    labels = (rng.random(shape) < 0.03) * rng.integers(1, 5, shape)
    for dtype in (np.int32, np.uint16, np.float64):
        given = labels.astype(dtype)
        for distance in (0, 1, 2.0, 2.5, 4.3, np.inf):
            expected = segmentation.expand_labels(given, distance, steps)
            found = skimage.expand_labels(given, distance, steps)
            assert found.dtype == dtype
            # of equally near labels it may be another one
            assert np.array_equal(found > 0, expected > 0)
            apart = [
                ndimage.distance_transform_edt(given != x, sampling=steps)
                if (given == x).any()
                else np.full(shape, np.inf)
                for x in range(1, 5)
            ]
            own = np.choose(np.maximum(found.astype(int) - 1, 0), apart)
            nearest = np.minimum.reduce(apart)
            assert np.allclose(own[found > 0], nearest[found > 0], rtol=1e-12)
    assert np.array_equal(given, labels)


def test_skimage_labels_of_odd_arguments():
    labels = np.zeros((5, 6), np.int64)
    assert not skimage.expand_labels(labels, 3).any()
    labels[2, 3] = -7
    for given in (labels[::-1, ::2], labels.T, labels.astype(">i4"), labels == -7):
        for distance in (1.5, -1.0, np.float32(2)):
            expected = segmentation.expand_labels(given, distance)
            found = skimage.expand_labels(given, distance)
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype


def test_patched_skimage():
    image = np.eye(5, dtype=np.int32)
    with compat.patch("skimage"):
        assert segmentation.expand_labels is skimage.expand_labels
        assert segmentation.expand_labels(image).sum() == 13
    assert segmentation.expand_labels is not skimage.expand_labels
