"""Signed distances against the public code that they come from, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.compat.originals import boundary_map, inner_boundary_map
from tests.helpers import INTERPRETED, backends, first_quick

ALL = backends("eager", "cpu", "triton", "cuda")
SHAPES = [(7, 15), (1, 20), (20, 1), (31, 33), (5, 6, 7), (1, 9, 8), (12, 1, 5), (9, 10, 11)]
if INTERPRETED:  # which takes a millisecond a pixel
    SHAPES = first_quick((5, 9), (4, 5, 3))


def objects(*shape, seed=0):
    """Two connected objects, and scattered pixels; none empty or full."""
    *leading, width = shape
    rows = int(np.prod(leading))
    labels = testing.coherent_labels(2, rows, width, 3, seed) == 1
    scattered = testing.random_labels(1, rows, width, high=4, seed=seed) == 0
    mask = torch.cat([labels, scattered]).view(3, *shape)
    first, last = mask.flatten(1).unbind(1)[:: rows * width - 1]
    first[:], last[:] = True, False
    return mask


def signed(mask, **options):
    return pk.signed_distance(mask, spatial_dims=mask.dim() - 1, **options)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_edges_are_those_of_the_boundary_loss(shape, backend, device):
    mask = objects(*shape)
    found = signed(mask.to(device), backend=backend).cpu()
    assert found.dtype == torch.float32
    expected = np.stack([boundary_map(x.numpy()) for x in mask])
    # the distance is rounded, and so is its difference from 1
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inner_boundaries_are_those_of_compute_sdf(shape, backend, device):
    mask = objects(*shape)
    found = signed(mask.to(device), boundary="inner", backend=backend).cpu()
    expected = np.stack([inner_boundary_map(x.numpy()) for x in mask])
    assert np.array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize(
    "sampling",
    first_quick((2.0, 0.5, 1.25), (3.0, 0.5), (0.25, 1.75), (0.1, 4.0, 4.0), when=INTERPRETED),
)
def test_sampling(sampling, backend, device):
    mask = objects(*[(6, 9), (5, 4, 7)][len(sampling) - 2])
    found = signed(mask.to(device), sampling=sampling, backend=backend).cpu()
    expected = np.stack([boundary_map(x.numpy(), sampling) for x in mask])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    inner = signed(mask.to(device), sampling=sampling, boundary="inner", backend=backend).cpu()
    zero = np.stack([inner_boundary_map(x.numpy()) == 0 for x in mask])
    expected = np.where(zero, 0, expected - mask.numpy())
    np.testing.assert_allclose(inner, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("boundary", ["edges", "inner"])
def test_images_without_a_boundary_are_zero(boundary, backend, device):
    for shape in ((5, 7), (1, 1), (3, 4, 5), (1, 1, 1)):
        mask = torch.stack([torch.zeros(shape), torch.ones(shape)]).bool().to(device)
        found = signed(mask, boundary=boundary, backend=backend)
        assert (found == 0).all()
        assert found.shape == mask.shape


@pytest.mark.parametrize("backend", ALL)
def test_the_border_of_the_image_is_no_boundary(backend, device):
    mask = torch.ones(1, 4, 6, dtype=torch.bool, device=device)
    mask[:, :, 0] = False
    edges = pk.signed_distance(mask, backend=backend)
    assert edges[0, 0].tolist() == [1, 0, -1, -2, -3, -4]
    inner = pk.signed_distance(mask, boundary="inner", backend=backend)
    assert inner[0, 3].tolist() == [1, 0, -2, -3, -4, -5]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("boundary", first_quick("inner", "edges", when=INTERPRETED))
def test_volumes_of_one_slice_are_images(boundary, backend, device):
    mask = objects(6, 9).to(device)
    for axis in (1, 2, 3):
        volume = pk.signed_distance(
            mask.unsqueeze(axis), spatial_dims=3, boundary=boundary, backend=backend
        )
        image = pk.signed_distance(mask, boundary=boundary, backend=backend)
        assert torch.equal(volume.squeeze(axis), image)


@pytest.mark.parametrize("backend", ALL)
def test_takes_any_batch_stride_and_integer(backend, device):
    mask = objects(4, 5).to(device)
    expected = pk.signed_distance(mask, backend=backend)
    assert torch.equal(pk.signed_distance(mask[1], backend=backend), expected[1])
    assert torch.equal(pk.signed_distance(mask.mT, backend=backend).mT, expected)
    assert torch.equal(pk.signed_distance(mask[:, None], backend=backend)[:, 0], expected)
    volume = pk.signed_distance(mask[None, :, None], spatial_dims=3, backend=backend)
    assert torch.equal(volume[0, :, 0], expected)
    for dtype in (torch.uint8, torch.int16, torch.int64):
        assert torch.equal(pk.signed_distance(mask.to(dtype) * 7, backend=backend), expected)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0)], ids=str)
def test_no_pixels(shape, backend, device):
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for boundary in ("edges", "inner"):
        assert pk.signed_distance(mask, boundary=boundary, backend=backend).shape == shape


def test_result_owns_no_more_memory_than_its_own():
    found = pk.signed_distance(objects(8, 9))
    assert found.untyped_storage().nbytes() == found.nbytes


def test_volumes_are_never_guessed_at():
    with pytest.raises(ValueError, match="pass spatial_dims=3 for volumes"):
        pk.signed_distance(torch.zeros(1, 1, 2, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="sampling: expected 3 numbers, got 2"):
        pk.signed_distance(torch.zeros(2, 3, 4).bool(), spatial_dims=3, sampling=(1, 2))
