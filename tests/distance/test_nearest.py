"""Volumes, and the nearest True pixel, against all pairs of pixels and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pixelkernels as pk
from pixelkernels import testing
from tests.distance.literal import (
    NOWHERE,
    hard_masks,
    hard_volumes,
    masks,
    nearest_true,
    squared_distances,
)
from tests.helpers import DEVICES, INTERPRETED, backends, first_quick, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")
# lines of one pixel, and every remainder of tiles and vectors
VOLUMES = [(1, 1, 1), (1, 9, 20), (40, 1, 1), (3, 70, 1), (2, 3, 100), (17, 5, 33), (5, 33, 9)]
IMAGES = [(1, 1), (1, 70), (70, 1), (7, 15), (33, 17), (9, 97)]
if INTERPRETED:  # which takes a millisecond a pixel
    VOLUMES = first_quick((2, 3, 34), (1, 1, 5), (34, 2, 1), (3, 34, 2))
    IMAGES = first_quick((3, 34), (1, 7), (34, 1))
INTERPRETED_MASKS = ("empty", "diagonal", "diagonal 0")
# a spacing of 0.7, which no binary fraction is, makes 3 x 0.7 and 2.1 differ
SPACINGS = first_quick((1.0, 1.0, 1.0), (2.5, 0.5, 0.5), (2.1, 0.7, 0.7), (1.0, 900.0, 1.0))


def hard(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    named = hard_masks(*shape) if len(shape) == 2 else hard_volumes(*shape)
    if not INTERPRETED:
        return named
    return {name: named[name] for name in INTERPRETED_MASKS if name in named}


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", VOLUMES, ids=str)
def test_transform_of_hard_volumes(shape, backend, device):
    named = hard(shape)
    mask = torch.stack(list(named.values())).to(device)
    options = {"spatial_dims": 3, "backend": backend}
    squared = pk.distance_transform(mask, squared=True, **options)
    distance = pk.distance_transform(mask, **options)
    assert (squared.dtype, distance.dtype) == (torch.int32, torch.float32)
    for name, actual, plain in zip(named, squared.cpu(), distance.cpu(), strict=True):
        expected = squared_distances(named[name].numpy())
        assert np.array_equal(actual.numpy(), expected), name
        exact = np.where(expected == NOWHERE, np.inf, np.sqrt(expected)).astype(np.float32)
        assert np.array_equal(plain.numpy(), exact), name


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("sampling", SPACINGS, ids=str)
@pytest.mark.parametrize("shape", [*IMAGES, *VOLUMES], ids=str)
def test_nearest_is_that_of_all_pairs(shape, sampling, backend, device):
    axes = len(shape)
    named = hard(shape)
    mask = torch.stack(list(named.values())).to(device)
    sampling = sampling[3 - axes :]
    options = {"spatial_dims": axes, "return_indices": True, "backend": backend}
    if set(sampling) == {1.0}:
        squares, indices = pk.distance_transform(mask, squared=True, **options)
        plain = pk.distance_transform(mask, squared=True, spatial_dims=axes, backend=backend)
        assert torch.equal(squares, plain)
    distances, sampled = pk.distance_transform(mask, sampling=sampling, **options)
    assert sampled.dtype == torch.int32
    if set(sampling) == {1.0}:
        assert torch.equal(sampled, indices)
        roots = squares.double().sqrt().float()
        assert torch.equal(distances, torch.where(squares == NOWHERE, torch.inf, roots))
    positions = torch.tensor(np.indices(shape))
    for name, distance, actual in zip(named, distances.cpu(), sampled.cpu(), strict=True):
        expected = torch.from_numpy(nearest_true(named[name].numpy(), sampling))
        assert torch.equal(actual, expected.int()), name
        offsets = (actual - positions).flatten(1) * torch.tensor(sampling).double()[:, None]
        length = offsets.square().sum(0).sqrt().view(shape)
        length[expected[0] < 0] = torch.inf
        torch.testing.assert_close(distance.double(), length, rtol=2e-7, atol=0)


@pytest.mark.parametrize("backend", ALL)
@settings(max_examples=3 if INTERPRETED else 60)
@given(data=st.data())
def test_nearest_of_drawn_volumes_is_at_the_distance_of_scipy(backend, data):
    planes = data.draw(st.lists(masks(most=20), min_size=1, max_size=6))
    height, width = (min(plane.shape[i] for plane in planes) for i in (0, 1))
    mask = np.stack([plane[:height, :width] for plane in planes])
    mask[0, 0, 0] = True  # SciPy leaves a volume without True pixels undefined
    sampling = data.draw(st.tuples(*[st.floats(0.1, 7)] * 3))
    expected = ndimage.distance_transform_edt(~mask, sampling=sampling)
    tensor = torch.from_numpy(mask).to(DEVICES[backend])
    options = {"spatial_dims": 3, "sampling": sampling, "backend": backend}
    plain = pk.distance_transform(tensor, **options)
    np.testing.assert_allclose(plain.cpu().numpy(), expected, rtol=1e-6)
    distance, indices = pk.distance_transform(tensor, return_indices=True, **options)
    np.testing.assert_allclose(distance.cpu().numpy(), expected, rtol=1e-6)
    found = indices.cpu().numpy()
    assert mask[tuple(found)].all()
    offsets = (found - np.indices(mask.shape)) * np.array(sampling)[:, None, None, None]
    np.testing.assert_allclose(np.sqrt((offsets**2).sum(0)), expected, rtol=1e-6)


@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("shape", [(40, 50, 300), (300, 40, 50), (50, 300, 40)], ids=str)
def test_large_volumes_are_those_of_scipy(shape, backend, device):
    blobs = testing.coherent_labels(shape[0], *shape[1:], 9) == 3
    sparse = testing.random_labels(*shape, high=40000) == 0
    for mask in (blobs, sparse):
        mask[0, 0, 0] = True
        squares, indices = pk.distance_transform(
            mask.to(device), spatial_dims=3, squared=True, return_indices=True, backend=backend
        )
        expected = np.rint(ndimage.distance_transform_edt(~mask.numpy()) ** 2)
        assert np.array_equal(squares.cpu().numpy(), expected)
        found = indices.cpu().numpy()
        assert mask.numpy()[tuple(found)].all()
        assert np.array_equal(((found - np.indices(shape)) ** 2).sum(0), expected)


@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
def test_sides_that_squares_do_not_fit(backend, device):
    mask = torch.zeros(1, 2, 26800, dtype=torch.bool, device=device)
    mask[0, 0, 0] = True
    for turned in (mask, mask.transpose(1, 2), mask.transpose(0, 2)):
        options = {"spatial_dims": 3, "backend": backend}
        distance, indices = pk.distance_transform(turned, return_indices=True, **options)
        assert (indices == 0).all()
        exact = np.sqrt(1 + 26799**2)
        assert distance.flatten()[-1].item() == pytest.approx(exact, rel=1e-6)
        plain = pk.distance_transform(turned, **options)
        torch.testing.assert_close(plain, distance, rtol=1e-6, atol=0)
        with pytest.raises(ValueError, match="mask: expected sides up to 26755"):
            pk.distance_transform(turned, squared=True, **options)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)], ids=str)
def test_no_voxels(shape, backend, device):
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for squared in (False, True):
        options = {"spatial_dims": 3, "squared": squared, "backend": backend}
        assert pk.distance_transform(mask, **options).shape == shape
        distances, indices = pk.distance_transform(mask, return_indices=True, **options)
        assert distances.shape == shape
        assert indices.shape == (shape[0], 3, *shape[1:])


@pytest.mark.parametrize("backend", ALL)
def test_volumes_take_any_batch_and_stride(backend, device):
    mask = torch.rand(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(device) < 0.1
    options = {"spatial_dims": 3, "return_indices": True, "backend": backend}
    distances, indices = pk.distance_transform(mask, **options)
    assert indices.shape == (2, 2, 3, 3, 4, 5)
    one = pk.distance_transform(mask[1, 0], **options)
    assert torch.equal(one.distances, distances[1, 0])
    assert torch.equal(one.indices, indices[1, 0])
    turned = pk.distance_transform(mask.transpose(2, 4), spatial_dims=3, backend=backend)
    assert torch.equal(turned.transpose(2, 4), distances)


def test_batch_of_volumes_is_not_taken_for_images():
    with pytest.raises(ValueError, match=r"^mask: expected at most 4 .*spatial_dims=3"):
        pk.distance_transform(torch.zeros(1, 1, 2, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^mask: expected shape \[..., D, H, W\]"):
        pk.distance_transform(torch.zeros(3, 4, dtype=torch.bool), spatial_dims=3)
    with pytest.raises(TypeError, match=r"^mask: expected .*integer"):
        pk.distance_transform(torch.zeros(2, 3, 4), spatial_dims=3)
