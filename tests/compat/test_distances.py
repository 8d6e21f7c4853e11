"""Drop-ins for distance transforms: SciPy, MONAI and kornia."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from scipy import ndimage

from pixelkernels.compat import kornia, monai, scipy
from tests.compat.test_clicks import blobs

edt = ndimage.distance_transform_edt


def squares(mask):
    """Squared distances to the nearest zero, int64, from the pixel that SciPy finds."""
    nearest = edt(mask, return_distances=False, return_indices=True)
    return ((np.indices(mask.shape) - nearest) ** 2).sum(0)


@pytest.mark.parametrize("sampling", [None, 2.5, (1.5, 0.7)])
def test_scipy_transform(sampling):
    (image,) = blobs(5)
    found, expected = scipy.distance_transform_edt(image, sampling), edt(image, sampling)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6 if sampling else 0)
    out = np.empty_like(expected)
    assert scipy.distance_transform_edt(image, sampling, distances=out) is None
    assert np.array_equal(out, found)
    distances, indices = scipy.distance_transform_edt(image, sampling, return_indices=True)
    assert np.array_equal(distances, expected)
    assert indices.shape == (2, *image.shape)


@pytest.mark.parametrize(
    "image", [np.ones((4, 5)), np.zeros((4, 5)), np.ones((3, 4, 5)) * blobs(1, shape=(4, 5))]
)
def test_scipy_transform_of_special_images(image):
    assert np.array_equal(scipy.distance_transform_edt(image), edt(image))


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_monai_transform(kind):
    images = blobs(0, 1, 2).astype(np.float32)
    given = images if kind == "array" else torch.from_numpy(images)
    found = monai.distance_transform_edt(given)
    assert type(found) is type(given)
    assert np.array_equal(found, [edt(x) for x in images])
    spaced = monai.distance_transform_edt(given, sampling=[2.0, 0.5])
    np.testing.assert_allclose(spaced, [edt(x, sampling=(2, 0.5)) for x in images], rtol=1e-6)


def test_monai_does_not_serve_indices():
    with pytest.raises(ValueError, match="indices are not served"):
        monai.distance_transform_edt(np.ones((1, 2, 2)), return_indices=True)


def test_monai_channel_without_a_zero_is_infinitely_far():
    """SciPy, which the original calls on the CPU, measures to a pixel that does not exist."""
    image = torch.ones(3, 4, 5)
    image[1, 0, 0] = image[2] = 0
    for found in (monai.distance_transform_edt(x) for x in (image, image.numpy())):
        assert [found[i, 3, 4].item() for i in range(3)] == [float("inf"), 5, 0]


def test_roots_are_taken_in_float64():
    image = np.ones((2, 5001))
    image[0, 0] = 0
    expected = sqrt(5000**2 + 1)  # needs more bits than float32 has
    assert scipy.distance_transform_edt(image)[1, 5000] == expected
    assert monai.distance_transform_edt(image[None])[0, 1, 5000] == pytest.approx(expected, 1e-12)


def test_kornia_transform():
    images = torch.from_numpy(blobs(1, 2))[:, None]
    found = kornia.distance_transform(images.float(), kernel_size=5)
    expected = [[edt(~x[0].numpy())] for x in images]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-6)
    with pytest.raises(ValueError, match="kernel_size"):
        kornia.distance_transform(images.float(), kernel_size=4)


def test_kornia_transform_is_the_exact_distance_to_nonzero_pixels_and_has_no_gradient():
    """In a channel of zeros the original gives 0."""
    image = torch.zeros(1, 3, 40, 50, requires_grad=True)
    with torch.no_grad():
        image[0, 0, 3, 4], image[0, 1, 39, 49] = -0.25, 7
    found = kornia.distance_transform(image)
    assert not found.requires_grad
    assert found[0, 0, [3, 3, 0, 33, 8], [4, 5, 0, 44, 16]].tolist() == [0, 1, 5, 50, 13]
    assert found[0, 1, 0, 0].item() == np.float32(sqrt(39**2 + 49**2))
    assert found[0, 2].isinf().all()


def test_transforms_of_masks(masks):
    for mask in [pair[0] for pair in masks[::4]]:
        found, exact = scipy.distance_transform_edt(mask), squares(mask)
        assert np.array_equal(found, edt(mask))
        assert np.array_equal(found, np.sqrt(exact))
        both = np.stack([mask, ~mask])
        expected = [edt(x) for x in both]
        assert np.array_equal(monai.distance_transform_edt(both), expected)
        tensor = torch.from_numpy(both).float()
        assert np.array_equal(monai.distance_transform_edt(tensor), expected)
        in_float32 = np.sqrt(exact).astype(np.float32)
        assert np.array_equal(kornia.distance_transform(1 - tensor[None])[0, 0], in_float32)


def test_transforms_of_many_objects(instances):
    labels = instances.labels[0, 0].numpy()
    edges = ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)
    for mask in (labels > 0, edges, labels):
        found = scipy.distance_transform_edt(mask)
        assert np.array_equal(found, edt(mask))
        assert np.array_equal(found, np.sqrt(squares(mask)))
