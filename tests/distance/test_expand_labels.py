"""Labels grown into the background, against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.segmentation import expand_labels
from torch import Tensor

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels._core import validation as check
from tests.helpers import backends, first_quick, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")


def sparse_labels(*shape: int) -> Tensor:
    """Blobs of the labels 1 to 4, far from each other, and single pixels."""
    rows = math.prod(shape[:-1])
    coherent = testing.coherent_labels(1, rows, shape[-1], 9)[0].view(shape)
    random = testing.random_labels(*shape, high=60)
    return torch.where(coherent < 3, coherent + 1, torch.where(random == 0, 4, 0))


def distances_of_labels(labels: np.ndarray, sampling: tuple[float, ...]) -> np.ndarray:
    """[5, *space]: from every pixel to the nearest one of each label; infinite for label 0."""
    found = np.full((5, *labels.shape), np.inf)
    for label in range(1, 5):
        if (labels == label).any():
            found[label] = ndimage.distance_transform_edt(labels != label, sampling=sampling)
    return found


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(40, 61), (9, 20, 30)], ids=str)
@pytest.mark.parametrize("distance", first_quick(3, 0, 1, math.sqrt(3), 4.7, 1e300), ids=str)
def test_labels_are_those_of_scikit_image_but_for_ties(distance, shape, backend, device):
    labels = sparse_labels(*shape)
    options = {"spatial_dims": len(shape), "backend": backend}
    found = pk.expand_labels(labels.to(device), distance, **options).cpu().numpy()
    expected = expand_labels(labels.numpy(), distance)
    assert np.array_equal(found == 0, expected == 0)
    distances = distances_of_labels(labels.numpy(), (1.0,) * len(shape))
    nearest = distances.min(0)
    unique = (distances == nearest).sum(0) == 1
    assert np.array_equal(found[unique], expected[unique])
    at_found = np.take_along_axis(distances, found[None], 0)[0]
    assert (at_found == nearest)[found > 0].all()


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_labels_of_every_dtype_with_a_sampling(backend, device):
    labels, sampling = sparse_labels(9, 20, 30), (2.5, 0.5, 0.75)
    options = {"spatial_dims": 3, "sampling": sampling, "backend": backend}
    found = pk.expand_labels(labels.to(device), 2.0, **options)
    distances = distances_of_labels(labels.numpy(), sampling)
    nearest = distances.min(0)
    index = found.cpu().numpy()
    assert np.array_equal(index == 0, nearest > 2.0)
    at_found = np.take_along_axis(distances, index[None], 0)[0]
    np.testing.assert_allclose(at_found[index > 0], nearest[index > 0])
    for dtype in check.INTEGER_DTYPES:
        narrow = pk.expand_labels(labels.to(device, dtype), 2.0, **options)
        assert narrow.dtype == dtype
        assert torch.equal(narrow, found.to(dtype))


def test_nothing_to_grow():
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    assert torch.equal(pk.expand_labels(labels, 5), labels)
    assert torch.equal(pk.expand_labels(labels + 7, 5), labels + 7)
    for shape in ((0, 3), (3, 0), (0, 2, 3)):
        assert pk.expand_labels(torch.zeros(shape, dtype=torch.int64), 5).shape == shape
