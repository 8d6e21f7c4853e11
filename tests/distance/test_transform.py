"""The distance transform against all pairs of pixels, and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pixelkernels as pk
from pixelkernels import testing
from tests.distance.literal import NOWHERE, hard_masks, masks, squared_distances
from tests.helpers import DEVICES, INTERPRETED, backends, first_quick, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")
# every remainder of tiles and vectors, and lines of one pixel
SHAPES = [(1, 1), (1, 70), (1057, 1), (7, 15), (16, 16), (33, 17), (48, 65), (50, 97)]
if INTERPRETED:  # which takes a millisecond a pixel
    SHAPES = first_quick((2, 33), (1, 1), (1, 70), (20, 1), (5, 64))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transform_of_hard_masks(shape, backend, device):
    named = hard_masks(*shape)
    mask = torch.stack(list(named.values())).to(device)
    squared = pk.distance_transform(mask, squared=True, backend=backend)
    assert squared.dtype == torch.int32
    distance = pk.distance_transform(mask, backend=backend)
    assert distance.dtype == torch.float32
    for name, actual, plain in zip(named, squared.cpu(), distance.cpu(), strict=True):
        expected = squared_distances(named[name].numpy())
        assert np.array_equal(actual.numpy(), expected), name
        exact = np.where(expected == NOWHERE, np.inf, np.sqrt(expected)).astype(np.float32)
        assert np.array_equal(plain.numpy(), exact), name


@given(mask=masks(), border=st.booleans())
@settings(max_examples=500)
def test_transform_of_drawn_masks_on_the_cpu(mask, border):
    op = torch.ops.pixelkernels.distance_transform
    actual = op(torch.from_numpy(mask)[None], True, 1.0, 1.0, 1.0, border)[0].numpy()
    around = np.pad(mask, 1, constant_values=True) if border else mask
    expected = squared_distances(around)
    assert np.array_equal(actual, expected[1:-1, 1:-1] if border else expected)


@pytest.mark.parametrize("backend", ALL)
@settings(max_examples=3 if INTERPRETED else 100)
@given(mask=masks(), spacing=st.tuples(*[st.floats(0.1, 7)] * 2))
def test_transform_is_that_of_scipy(backend, mask, spacing):
    mask[0, 0] = True  # SciPy leaves an image without True pixels undefined
    device = DEVICES[backend]
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
    actual = pk.distance_transform(
        torch.from_numpy(mask).to(device), sampling=spacing, backend=backend
    )
    np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=1e-6)


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("sampling", [(1e3, 1e-2), (1e-2, 1e3), (1e-6, 2e-6), (3e5, 2e5)], ids=str)
def test_transform_of_very_unequal_spacings(sampling, backend, device):
    # one axis is lost in the other's rounding, and neighbouring pixels disagree on their sites
    mask = testing.random_labels(4, 90, 500, high=300) == 3
    expected = [ndimage.distance_transform_edt(~one, sampling=sampling) for one in mask.numpy()]
    actual = pk.distance_transform(mask.to(device), sampling=sampling, backend=backend)
    np.testing.assert_allclose(actual.cpu().numpy(), np.stack(expected), rtol=1e-6)


@not_interpreted
@pytest.mark.parametrize("backend", [*COMPILED, pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(480, 854), (33, 3000)], ids=str)
def test_transform_of_large_masks(shape, backend, device):
    labels = testing.coherent_labels(2, *shape, 9)
    sparse = testing.random_labels(1, *shape, high=4000)
    mask = torch.cat([labels, sparse]) == 3
    actual = pk.distance_transform(mask.to(device), squared=True, backend=backend)
    for image, one in zip(actual.cpu().numpy(), mask.numpy(), strict=True):
        expected = ndimage.distance_transform_edt(~one)
        assert np.array_equal(image, np.rint(expected**2).astype(np.int64))


@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
def test_roots_of_squares_that_float32_does_not_hold(backend, device):
    mask = torch.zeros(1, 3, 32767, dtype=torch.bool, device=device)
    mask[0, 0, 0] = True
    for turned in (mask, mask.mT):
        squares = pk.distance_transform(turned, squared=True, backend=backend)
        exact = squares.double().sqrt().float()
        assert torch.equal(pk.distance_transform(turned, backend=backend), exact)


@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
def test_transform_of_sides_that_squares_do_not_fit(backend, device):
    mask = torch.zeros(1, 3, 40000, dtype=torch.bool, device=device)
    mask[0, 0, 0] = True
    for turned in (mask, mask.mT):
        distance = pk.distance_transform(turned, backend=backend)
        far = distance.flatten()[-1].cpu().double()
        assert far == pytest.approx(np.hypot(2, 39999), rel=1e-6)
        with pytest.raises(ValueError, match="mask: expected sides up to 32767"):
            pk.distance_transform(turned, squared=True, backend=backend)


@pytest.mark.parametrize("backend", ALL)
def test_transform_takes_any_batch_stride_and_integer(backend, device):
    mask = torch.rand(2, 2, 4, 5, generator=torch.Generator().manual_seed(0)).to(device) < 0.1
    expected = pk.distance_transform(mask.flatten(0, 1), backend=backend).view(mask.shape)
    assert torch.equal(pk.distance_transform(mask, backend=backend), expected)
    assert torch.equal(pk.distance_transform(mask.mT, backend=backend).mT, expected)
    assert torch.equal(pk.distance_transform(mask[0, 0], backend=backend), expected[0, 0])
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        values = torch.where(mask, 7, 0).to(dtype)
        assert torch.equal(pk.distance_transform(values, backend=backend), expected)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0)], ids=str)
def test_no_pixels(shape, backend, device):
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for squared in (False, True):
        assert pk.distance_transform(mask, squared=squared, backend=backend).shape == shape
    if len(shape) == 3:
        click = pk.next_click(mask, mask, backend=backend)
        assert click.points.shape == (shape[0], 2)
        assert not click.valid.any()
        points, labels = pk.simulate_clicks(mask, 2, 3, backend=backend)
        assert (points == -1).all()
        assert (labels == -1).all()


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("sampling", [(2.0**-60, 2.0**-60), (2.0**40, 2.0**40), (1e-15, 1e9)])
def test_finest_and_coarsest_sampling(backend, sampling):
    mask = testing.random_labels(2, 4, 5, high=3) == 1
    found = pk.distance_transform(mask, sampling=sampling, backend=backend)
    assert (found[mask] == 0).all()
    assert (found[~mask] > 0).all()
    assert found.isfinite().all()
