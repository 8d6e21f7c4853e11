"""The distance family on every backend against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.distance import reference
from tests.distance_cases import (
    ENCODINGS,
    NOWHERE,
    clicks,
    hard_masks,
    masks,
    squared_distances,
)
from tests.helpers import backends

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")
# every size of remainder of the tiles and vectors, and lines of one pixel
SHAPES = ((1, 1), (1, 70), (1057, 1), (7, 15), (16, 16), (33, 17), (48, 65), (50, 97))


# ---- distance transform ----


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
@settings(max_examples=2000, deadline=None)
def test_transform_of_drawn_masks_on_the_cpu(mask, border):
    op = torch.ops.pixelkernels.distance_transform
    actual = op(torch.from_numpy(mask)[None], True, 1.0, 1.0, border)[0].numpy()
    around = np.pad(mask, 1, constant_values=True) if border else mask
    expected = squared_distances(around)
    assert np.array_equal(actual, expected[1:-1, 1:-1] if border else expected)


@pytest.mark.parametrize("backend", ALL)
@settings(max_examples=100, deadline=None)
@given(mask=masks(), spacing=st.tuples(*[st.floats(0.1, 7)] * 2))
def test_transform_is_scipys(backend, mask, spacing):
    mask[0, 0] = True  # SciPy leaves an image without True pixels undefined
    device = "cuda" if backend in ("triton", "cuda") else "cpu"
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
    actual = pk.distance_transform(
        torch.from_numpy(mask).to(device), sampling=spacing, backend=backend
    )
    np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("sampling", [(1e3, 1e-2), (1e-2, 1e3), (1e-6, 2e-6), (3e5, 2e5)], ids=str)
def test_transform_of_very_unequal_spacings(sampling, backend, device):
    # one axis is lost in the other's rounding, and neighbouring pixels disagree on their sites
    mask = testing.random_labels(4, 90, 500, high=300) == 3
    expected = [ndimage.distance_transform_edt(~one, sampling=sampling) for one in mask.numpy()]
    actual = pk.distance_transform(mask.to(device), sampling=sampling, backend=backend)
    np.testing.assert_allclose(actual.cpu().numpy(), np.stack(expected), rtol=1e-6)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(480, 854), (33, 3000)], ids=str)
def test_transform_of_large_masks(shape, backend, device):
    labels = testing.coherent_labels(2, *shape, 9)
    sparse = testing.random_labels(1, *shape, high=4000)
    mask = torch.cat([labels, sparse]) == 3
    actual = pk.distance_transform(mask.to(device), squared=True, backend=backend)
    for image, one in zip(actual.cpu().numpy(), mask.numpy(), strict=True):
        expected = ndimage.distance_transform_edt(~one)
        assert np.array_equal(image, np.rint(expected**2).astype(np.int64))


@pytest.mark.parametrize("backend", COMPILED)
def test_roots_of_squares_that_float32_does_not_hold(backend, device):
    mask = torch.zeros(1, 3, 32767, dtype=torch.bool, device=device)
    mask[0, 0, 0] = True
    for turned in (mask, mask.mT):
        squares = pk.distance_transform(turned, squared=True, backend=backend)
        exact = squares.double().sqrt().float()
        assert torch.equal(pk.distance_transform(turned, backend=backend), exact)


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
    mask = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0)).to(device) < 0.1
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


# ---- click maps ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("count", [0, 1, 12, 300])
def test_click_maps_match_the_oracle(count, encoding, backend, device):
    for shape in SHAPES:
        points, labels = clicks(2, count, *shape)
        if count:
            labels[1] = 1  # an image without negative clicks
        radius = ENCODINGS[encoding]
        for truncate in (30.0, None):
            actual = pk.click_maps(
                points.to(device),
                labels.to(device),
                shape,
                encoding=encoding,
                radius=radius,
                truncate=truncate,
                backend=backend,
            ).cpu()
            limit = torch.inf if truncate is None else truncate
            exact, plain = (
                reference.click_maps(p, labels, *shape, encoding, radius or 0.0, limit)
                for p in (points.double(), points)
            )
            assert actual.dtype == torch.float32
            assert torch.equal(actual.isinf(), exact.isinf())
            finite = [torch.where(exact.isinf(), 0, x) for x in (actual, exact, plain)]
            testing.assert_within_budget(*finite, name=f"{encoding} {shape}")


@pytest.mark.parametrize("backend", ALL)
def test_click_maps_of_whole_points_are_exact(backend, device):
    points, labels = clicks(count=40, height=70, width=200)
    points, labels = points.round().long().to(device), labels.to(device)
    maps = pk.click_maps(points, labels, (70, 200), truncate=None, backend=backend)
    for image in range(2):
        for channel, label in enumerate((1, 0)):
            sites = points[image, labels[image] == label].cpu().numpy()
            pixels = np.argwhere(np.ones((70, 200)))
            d2 = np.square(pixels[:, None] - sites[None]).sum(-1).min(1).reshape(70, 200)
            expected = np.sqrt(d2.astype(np.float32))
            np.testing.assert_allclose(maps[image, channel].cpu().numpy(), expected, rtol=2e-7)


@pytest.mark.parametrize("backend", ALL)
def test_disks_hold_their_border(backend, device):
    points = torch.tensor([[[20, 30]]], device=device)
    labels = torch.ones(1, 1, dtype=torch.bool, device=device)
    disk = pk.click_maps(points, labels, (50, 60), encoding="disk", radius=5, backend=backend)
    assert disk[0, 0].sum() == 81
    assert disk[0, 0, 20, 35] == disk[0, 0, 17, 26] == 1
    assert (disk[0, 1] == 0).all()
    wide = pk.click_maps(points, labels, (50, 60), encoding="disk", radius=2**40, backend=backend)
    assert (wide[0, 0] == 1).all()


@pytest.mark.parametrize("backend", ALL)
def test_padding_may_hold_anything(backend, device):
    points, labels = clicks()
    points, labels = points.to(device), labels.to(device)
    expected = pk.click_maps(points, labels, (48, 65), backend=backend)
    points[labels == -1] = torch.nan
    assert torch.equal(pk.click_maps(points, labels, (48, 65), backend=backend), expected)


@pytest.mark.parametrize("backend", backends("triton", "cuda"))
def test_wrong_values_are_absent_on_a_device(backend, device):
    points, labels = clicks()
    expected = pk.click_maps(points[:, 2:].to(device), labels[:, 2:].to(device), (48, 65))
    points[:, 0, 1], labels[:, 0] = torch.nan, 1
    labels[:, 1] = 5
    actual = pk.click_maps(points.to(device), labels.to(device), (48, 65), backend=backend)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("backend", ALL)
def test_clicks_far_outside_and_all_in_one_place(backend, device):
    points = torch.tensor([[[1e6, -1e6], [torch.inf, 3.0]], [[7.0, 7.0], [7.0, 7.0]]])
    labels = torch.tensor([[1, 0], [1, 1]])
    maps = pk.click_maps(
        points.to(device), labels.to(device), (20, 70), truncate=None, backend=backend
    )
    exact = reference.click_maps(points.double(), labels, 20, 70, "euclidean", 0.0, torch.inf)
    torch.testing.assert_close(maps.cpu().double(), exact, rtol=1e-6, atol=0)


# ---- simulated clicks ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("strategy", ["background", "objects", "boundary", "mixed"])
def test_simulated_clicks_keep_their_distances(strategy, backend, device):
    labels = testing.coherent_labels(5, 90, 120, 6)
    target, others = labels == 0, (labels == 1) | (labels == 2)
    target[3] = False
    others[4] = False
    points, kinds = pk.simulate_clicks(
        target.to(device),
        6,
        7,
        others=others.to(device),
        strategy=strategy,
        margin=4,
        spacing=9,
        band=25,
        generator=torch.Generator(device).manual_seed(1),
        backend=backend,
    )
    assert points.shape == (5, 13, 2)
    assert points.dtype == kinds.dtype == torch.int64
    points, kinds = points.cpu(), kinds.cpu()
    assert (kinds[3, :6] == -1).all()
    assert (kinds[3, 6:] == 0).all()
    assert ((kinds == -1) == (points == -1).all(2)).all()
    for image in range(5):
        to_edge = ndimage.distance_transform_edt(target[image])
        to_target = np.sqrt(squared_distances(target[image].numpy()))
        for label in (1, 0):
            chosen = points[image, kinds[image] == label]
            rows, columns = chosen.T.numpy()
            assert (kinds[image, :6] != 0).all()
            assert (kinds[image, 6:] != 1).all()
            apart = torch.cdist(chosen.double(), chosen.double())
            assert (apart[~torch.eye(len(chosen), dtype=torch.bool)] >= 9).all()
            if label == 1:
                assert (to_edge[rows, columns] >= 4).all()
            elif image != 3:
                assert (to_target[rows, columns] >= 4).all()
                near = to_target[rows, columns] <= 25
                other = others[image].numpy()[rows, columns]
                if strategy == "objects":
                    assert other.all() if image != 4 else near.all()
                else:
                    assert (near | (other if strategy == "mixed" else False)).all()


@pytest.mark.parametrize("backend", COMPILED)
def test_simulated_clicks_depend_on_the_generator_alone(backend, device):
    target = (testing.coherent_labels(4, 60, 80, 3) == 1).to(device)

    def draw(seed, chosen):
        generator = torch.Generator(device).manual_seed(seed)
        return pk.simulate_clicks(target, 4, 4, generator=generator, backend=chosen)

    first, again, other = draw(3, backend), draw(3, "eager"), draw(4, backend)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_boundary_clicks_are_the_farthest():
    target = torch.zeros(1, 61, 61, dtype=torch.bool)
    target[:, 25:36, 25:36] = True
    points, _ = pk.simulate_clicks(
        target, 0, 5, strategy="boundary", band=20, generator=torch.Generator().manual_seed(0)
    )
    to_target = np.sqrt(squared_distances(target[0].numpy()))
    allowed = np.argwhere((to_target >= 5) & (to_target <= 20))
    for i in range(1, 5):
        earlier = points[0, :i].numpy()
        gaps = np.square(allowed[:, None] - earlier[None]).sum(-1).min(1)
        assert points[0, i].tolist() == allowed[gaps.argmax()].tolist()


def test_the_first_click_is_uniform():
    target = torch.ones(3000, 3, 4, dtype=torch.bool)
    points, _ = pk.simulate_clicks(target, 1, 0, generator=torch.Generator().manual_seed(0))
    counts = (points[:, 0, 0] * 4 + points[:, 0, 1]).bincount(minlength=12).double()
    chi_square = float((counts - 250).square().sum() / 250)
    assert chi_square < 31.3  # 11 degrees of freedom, one in a thousand
