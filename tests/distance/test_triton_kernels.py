"""Triton's kernels of the distance family where the public functions cannot lead them."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from pixelkernels.distance import ops, reference
from pixelkernels.distance import triton as kernels
from pixelkernels.distance.triton import transform
from tests.distance.literal import NOWHERE, hard_masks
from tests.helpers import INTERPRETED, backends, first_quick

TRITON = pytest.mark.parametrize("backend", backends("triton"))
PATCHED = pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel holds the constant")
TRANSFORMS = first_quick(
    # squared, row and column spacing, border
    (True, 1.0, 1.0, False),
    (True, 1.0, 1.0, True),
    (False, 1.0, 1.0, False),
    (False, 1.5, 0.7, False),
    (False, 0.3, 2.0, True),
    when=INTERPRETED,
)


def check_transform(mask, device, squared, row_spacing, column_spacing, border):
    options = (squared, row_spacing, column_spacing, border)
    actual = kernels.distance_transform(mask.to(device), *options).cpu()
    oracle = reference.squared_distance(mask, (row_spacing, column_spacing), border)
    if squared:
        assert actual.dtype == torch.int32
        assert torch.equal(actual, oracle.clamp(max=NOWHERE).int())
    else:
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), oracle.sqrt(), rtol=3e-7, atol=0)


@TRITON
@pytest.mark.parametrize("encoding", range(4), ids=ops.ENCODINGS)
def test_click_at_nan_is_absent(encoding, backend, device):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 40, 2, generator=generator) * torch.tensor([50.0, 70.0]) - 10
    labels = torch.randint(0, 2, (2, 40), generator=generator)
    points[0, 0, 1], points[1, 3:9, 0], points[1, 8, 1] = torch.nan, torch.nan, torch.nan
    maps = kernels.click_maps(points.to(device), labels.to(device), 6, 9, encoding, 3.0, 20.0)
    expected = reference.click_maps(points, labels, 6, 9, ops.ENCODINGS[encoding], 3.0, 20.0)
    torch.testing.assert_close(maps.cpu(), expected)


@TRITON
@pytest.mark.parametrize("encoding", range(4), ids=ops.ENCODINGS)
@pytest.mark.parametrize("radius", [1e-30, 1e30])
def test_no_radius_makes_a_click_map_nan(encoding, radius, backend, device):
    points = torch.tensor([[[1.0, 2.0]]], device=device)
    labels = torch.ones(1, 1, dtype=torch.int64, device=device)
    positive, negative = kernels.click_maps(points, labels, 3, 4, encoding, radius, 20.0)[0]
    nearest = (20.0, 0.0, 1.0, 0.0)[encoding]
    assert (negative == nearest).all()
    assert positive[1, 2] == 1 - torch.tensor(nearest).clamp(max=1)
    assert not positive.isnan().any()


@TRITON
@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_transform_matches_the_oracle(options, backend, device):
    check_transform(torch.stack(list(hard_masks(3, 100).values())), device, *options)


@TRITON
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (20, 1), (2, 32), (2, 33), (5, 64)], ids=str)
def test_border_counts_as_true_in_every_shape(shape, backend, device):
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(1, *shape, generator=generator) < 0.1
    mask = torch.cat([mask, torch.zeros_like(mask)])
    check_transform(mask, device, squared=True, row_spacing=1.0, column_spacing=1.0, border=True)


@TRITON
@PATCHED
@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_columns_of_many_segments(options, backend, device, monkeypatch):
    monkeypatch.setattr(transform, "SEGMENT", 2)
    mask = torch.zeros(1, 39, 3, dtype=torch.bool)
    mask[0, 18, 0] = mask[0, 19, 0] = mask[0, 38, 0] = mask[0, 5, 2] = True
    check_transform(mask, device, *options)


@TRITON
@PATCHED
@pytest.mark.parametrize("border", [False, True])
def test_sides_too_long_for_exact_squares(border, backend, device, monkeypatch):
    monkeypatch.setattr(transform, "SHORT", 2)
    named = hard_masks(3, 70)
    masks = [named[x] for x in ("empty", "one corner", "diagonal", "sparse")]
    check_transform(torch.stack(masks), device, False, 1.0, 1.0, border)


@triton.jit
def block_of_exact_squares(down, result, x0, first):
    least = transform.block_minimum(
        down - first, x0, first, first + 32, 1.0, 1.0, transform.SHORT, True, 32
    )
    tl.store(result + tl.arange(0, 32), least)


@TRITON
@pytest.mark.parametrize(("x0", "first"), [(32735, 0), (0, 32735)])
def test_the_largest_squares(x0, first, backend, device):
    # the pixels and the True pixels of opposite corners, in images of the longest sides
    x = torch.arange(32, device=device)
    down = torch.full((32,), 32766, dtype=torch.int16, device=device)
    result = torch.empty(32, dtype=torch.int32, device=device)
    block_of_exact_squares[(1,)](down, result, x0, first)
    squares = (x0 + x[:, None] - first - x) ** 2 + 32766**2
    assert squares.max() == 2 * 32766**2
    assert torch.equal(result + 2**30 + x**2, squares.amin(1))
    # nothing is above all of them
    block_of_exact_squares[(1,)](torch.full_like(down, transform.SHORT), result, x0, first)
    assert (result > 2**30).all()
