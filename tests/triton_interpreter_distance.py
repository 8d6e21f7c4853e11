"""Distance under Triton's interpreter, on CPU tensors: test_triton_interpreter.py runs this file.

Every program instance costs milliseconds and every pixel that is scanned one, so masks are low and
wide, with several blocks of columns, or narrow and high, with several segments of rows.
"""

from __future__ import annotations

import os

import pytest
import torch
import triton
import triton.language as tl
from scipy import ndimage

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.distance import ops, reference
from pixelkernels.distance import triton as kernels
from pixelkernels.distance.triton import transform

NOWHERE = 2**31 - 1
ENCODINGS = (
    {"encoding": "euclidean", "truncate": None},
    {"encoding": "disk", "radius": 5},
    {"encoding": "tanh", "radius": 7.5},
    {"encoding": "gaussian", "radius": 4},
)
TRANSFORMS = (
    # squared, row and column spacing, border
    (True, 1.0, 1.0, False),
    (True, 1.0, 1.0, True),
    (False, 1.0, 1.0, False),
    (False, 1.5, 0.7, False),
    (False, 0.3, 2.0, True),
)


def clicks():
    """Images with few clicks, with many, also outside, with one kind alone, and with none."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4, 150, 2, generator=generator) * torch.tensor([50.0, 70.0]) - 10
    labels = torch.randint(0, 2, (4, 150), generator=generator)
    points[0] = points[0].round()
    points[1, :6] = torch.tensor([[5e3, 3], [3, -7e3], [-1e30, 1e30], [1e9, 4], [4, 1e9], [0, 0]])
    labels[0, 5:], labels[2], labels[3] = -1, 0, -1
    return points, labels


def masks(height, width):
    """The masks that are hard for an algorithm whose cost depends on the mask, and others."""
    generator = torch.Generator().manual_seed(1)
    empty = torch.zeros(height, width, dtype=torch.bool)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    corner, end = empty.clone(), empty.clone()
    corner[0, 0], end[-1, -1] = True, True
    dense, sparse = torch.rand(2, height, width, generator=generator)
    diagonal = (columns * height // width) == rows
    checkers = (rows + columns) % 2 == 0
    return torch.stack([empty, ~empty, corner, end, diagonal, checkers, dense < 0.3, sparse < 0.02])


def check_transform(mask, squared, row_spacing, column_spacing, border):
    actual = kernels.distance_transform(mask, squared, row_spacing, column_spacing, border)
    oracle = reference.squared_distance(mask, (row_spacing, column_spacing), border)
    if squared:
        assert actual.dtype == torch.int32
        assert torch.equal(actual, oracle.clamp(max=NOWHERE).int())
    else:
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), oracle.sqrt(), rtol=3e-7, atol=0)


def test_runs_under_the_interpreter():
    assert os.environ.get("TRITON_INTERPRET") == "1"
    assert "triton" in pk.available_backends()


@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_click_maps_match_the_oracle(options):
    points, labels = clicks()
    size = (35, 50)
    actual = pk.click_maps(points, labels, size, backend="triton", **options)
    plain = pk.click_maps(points, labels, size, backend="eager", **options)
    if options["encoding"] == "disk":
        assert torch.equal(actual, plain)
        return
    oracle = reference.click_maps(
        points.double(), labels, *size, options["encoding"], options.get("radius", 0.0), torch.inf
    )
    finite = oracle.isfinite()
    assert torch.equal(actual.isinf(), ~finite)
    testing.assert_within_budget(actual[finite], oracle[finite], plain[finite])


@pytest.mark.parametrize("encoding", range(4), ids=ops.ENCODINGS)
def test_a_click_that_is_no_number_is_absent(encoding):
    points, labels = clicks()
    points, labels = points[:2, :40].contiguous(), labels[:2, :40].contiguous()
    points[0, 0, 1], points[1, 3:9, 0], points[1, 8, 1] = torch.nan, torch.nan, torch.nan
    arguments = (points, labels, 6, 9, encoding, 3.0, 20.0)
    expected = reference.click_maps(points, labels, 6, 9, ops.ENCODINGS[encoding], 3.0, 20.0)
    torch.testing.assert_close(kernels.click_maps(*arguments), expected)


@pytest.mark.parametrize("encoding", range(4), ids=ops.ENCODINGS)
@pytest.mark.parametrize("radius", [1e-30, 1e30])
def test_no_radius_makes_a_click_map_nan(encoding, radius):
    points, labels = torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1, dtype=torch.int64)
    positive, negative = kernels.click_maps(points, labels, 3, 4, encoding, radius, 20.0)[0]
    nearest = (20.0, 0.0, 1.0, 0.0)[encoding]
    assert (negative == nearest).all()
    assert positive[1, 2] == 1 - torch.tensor(nearest).clamp(max=1)
    assert not positive.isnan().any()


def test_no_clicks_and_no_pixels():
    points, labels = torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int64)
    maps = pk.click_maps(points, labels, (3, 5), backend="triton")
    assert torch.equal(maps, torch.full((2, 2, 3, 5), 255.0))
    for batch, size in ((0, (3, 5)), (2, (0, 5)), (2, (3, 0))):
        maps = pk.click_maps(points[:batch], labels[:batch], size, backend="triton")
        assert maps.shape == (batch, 2, *size)


@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_transform_matches_the_oracle(options):
    check_transform(masks(3, 100), *options)


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (20, 1), (2, 32), (2, 33), (5, 64)], ids=str)
def test_every_shape_of_image(shape, border):
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(1, *shape, generator=generator) < 0.1
    check_transform(torch.cat([mask, torch.zeros_like(mask)]), True, 1.0, 1.0, border)


@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_columns_of_many_segments(options, monkeypatch):
    monkeypatch.setattr(transform, "SEGMENT", 2)
    mask = torch.zeros(1, 39, 3, dtype=torch.bool)
    mask[0, 18, 0] = mask[0, 19, 0] = mask[0, 38, 0] = mask[0, 5, 2] = True
    check_transform(mask, *options)


@pytest.mark.parametrize("border", [False, True])
def test_sides_too_long_for_exact_squares(border, monkeypatch):
    monkeypatch.setattr(transform, "SHORT", 2)
    check_transform(masks(3, 70)[[0, 2, 4, 7]], False, 1.0, 1.0, border)


@triton.jit
def block_of_exact_squares(down, result, x0, first):
    least = transform.block_minimum(
        down - first, x0, first, first + 32, 1.0, 1.0, transform.SHORT, True, 32
    )
    tl.store(result + tl.arange(0, 32), least)


@pytest.mark.parametrize(("x0", "first"), [(32735, 0), (0, 32735)])
def test_the_largest_squares(x0, first):
    # the pixels and the True pixels of opposite corners, in images of the longest sides
    x, down = torch.arange(32), torch.full((32,), 32766, dtype=torch.int16)
    result = torch.empty(32, dtype=torch.int32)
    block_of_exact_squares[(1,)](down, result, x0, first)
    squares = (x0 + x[:, None] - first - x) ** 2 + 32766**2
    assert squares.max() == 2 * 32766**2
    assert torch.equal(result + 2**30 + x**2, squares.amin(1))
    # nothing is above all of them
    block_of_exact_squares[(1,)](torch.full_like(down, transform.SHORT), result, x0, first)
    assert (result > 2**30).all()


def test_agrees_with_scipy():
    mask = torch.rand(12, 40, generator=torch.Generator().manual_seed(3)) < 0.05
    expected = torch.from_numpy(ndimage.distance_transform_edt(~mask.numpy()))
    actual = pk.distance_transform(mask.to(torch.uint8)[None, None], backend="triton")
    assert torch.equal(actual[0, 0], expected.float())


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("squared", [False, True])
def test_no_pixels(shape, squared):
    mask = torch.zeros(shape, dtype=torch.bool)
    distance = pk.distance_transform(mask, squared=squared, backend="triton")
    assert distance.shape == mask.shape
    assert distance.dtype == (torch.int32 if squared else torch.float32)


def test_next_click_agrees_with_eager():
    target = testing.coherent_labels(2, 9, 40, 4)
    prediction = testing.coherent_labels(2, 9, 40, 4, seed=5) == 1
    prediction[1] = target[1] == 1
    prediction[1, 3:7, 30:36] ^= True
    expected = pk.next_click(prediction, target, ignore_label=3, backend="eager")
    actual = pk.next_click(prediction, target, ignore_label=3, backend="triton")
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert actual.valid.all()


@pytest.mark.parametrize("strategy", ["boundary", "mixed"])
def test_simulated_clicks_agree_with_eager(strategy):
    labels = testing.coherent_labels(2, 8, 60, 3)
    clicks = [
        pk.simulate_clicks(
            labels == 1,
            3,
            4,
            others=labels == 2,
            strategy=strategy,
            margin=1,
            spacing=3,
            band=8,
            generator=torch.Generator().manual_seed(7),
            backend=backend,
        )
        for backend in ("triton", "eager")
    ]
    assert all(torch.equal(a, e) for a, e in zip(*clicks, strict=True))
    assert (clicks[0][1] >= 0).any()


def test_same_bits_on_every_run():
    arguments = (masks(3, 40)[6:], False, 1.3, 0.7, True)
    first, again = (kernels.distance_transform(*arguments) for _ in range(2))
    assert torch.equal(first, again)
    points, labels = clicks()
    first, again = (
        pk.click_maps(points[:1], labels[:1], (9, 70), backend="triton") for _ in range(2)
    )
    assert torch.equal(first, again)
