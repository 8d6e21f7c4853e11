"""Triton's kernels of the distance family where the public functions cannot lead them."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from pixelkernels._core.validation import LONGEST_SIDES
from pixelkernels.distance import ops, reference
from pixelkernels.distance import triton as kernels
from pixelkernels.distance.triton import columns, layout, nearest, transform
from tests.distance.literal import NOWHERE, hard_masks, hard_volumes
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
# 0.7, which no binary fraction is, and spacings that make float64 round
SPACINGS = ((1.0, 1.0, 1.0), (2.1, 0.7, 0.7), (0.3, 170.0, 0.2))


def check_transform(mask, device, squared, row_spacing, column_spacing, border):
    """Images and volumes; the depth has the spacing of the columns."""
    spacings = (column_spacing, row_spacing, column_spacing)
    actual = kernels.distance_transform(mask.to(device), squared, *spacings, border).cpu()
    oracle = reference.squared_distance(mask, spacings, border)
    if squared:
        assert actual.dtype == torch.int32
        assert torch.equal(actual, oracle.clamp(max=NOWHERE).int())
    else:
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), oracle.sqrt(), rtol=3e-7, atol=0)


def clicks(axes):
    """Some are outside."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([30.0, 50.0, 70.0])[-axes:]
    points = torch.rand(2, 40, axes, generator=generator) * sizes - 10
    return points, torch.randint(0, 2, (2, 40), generator=generator)


def check_nearest(mask, device, squared, *spacings):
    actual = kernels.nearest_true(mask.to(device), squared, *spacings)
    for one, other in zip(actual, reference.nearest_true(mask, squared, *spacings), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.cpu(), other)


@TRITON
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("encoding", range(4), ids=ops.ENCODINGS)
def test_click_at_nan_is_absent(encoding, axes, backend, device):
    points, labels = clicks(axes)
    points[0, 0, 1], points[1, 3:9, 0], points[1, 8, 1] = torch.nan, torch.nan, torch.nan
    points[0, 7:15, -1] = torch.nan
    space = ((1, 6, 9), (2, 6, 9))[axes - 2]
    maps = kernels.click_maps(points.to(device), labels.to(device), *space, encoding, 3.0, 20.0)
    expected = reference.click_maps(points, labels, *space, ops.ENCODINGS[encoding], 3.0, 20.0)
    torch.testing.assert_close(maps.cpu(), expected)


@TRITON
@pytest.mark.parametrize("space", [(1, 33, 65), (3, 3, 70), (9, 1, 2)], ids=str)
def test_squared_distances_to_clicks_are_rounded_after_every_operation(space, backend, device):
    points, labels = clicks(2 if space[0] == 1 else 3)
    maps = kernels.click_maps(points.to(device), labels.to(device), *space, 0, 0.0, torch.inf)
    for found, sites, kinds in zip(maps.cpu(), points, labels, strict=True):
        squared = torch.zeros(len(sites), 1, 1, 1)
        for axis, places in enumerate(sites.mT, 3 - sites.shape[1]):
            pixels = torch.arange(space[axis]).view([-1 if i == axis else 1 for i in range(3)])
            squared = squared + (pixels - places[:, None, None, None]).square()
        for label, one in zip((1, 0), found, strict=True):
            # the root in float64, because that of float32 may be off by a bit in torch
            root = squared[kinds == label].amin(0).double().sqrt().float()
            assert torch.equal(one, root.view_as(one))


@TRITON
@pytest.mark.parametrize("encoding", range(4), ids=ops.ENCODINGS)
@pytest.mark.parametrize("radius", [1e-30, 1e30])
def test_no_radius_makes_a_click_map_nan(encoding, radius, backend, device):
    points = torch.tensor([[[1.0, 2.0]]], device=device)
    labels = torch.ones(1, 1, dtype=torch.int64, device=device)
    positive, negative = kernels.click_maps(points, labels, 1, 3, 4, encoding, radius, 20.0)[0]
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
@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_transform_of_volumes_matches_the_oracle(options, backend, device):
    named = hard_volumes(3, 2, 34)
    volumes = [named[x] for x in ("empty", "diagonal 0", "last column 2", "sparse")]
    check_transform(torch.stack(volumes), device, *options)


@TRITON
@PATCHED
@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_columns_of_many_segments(options, backend, device, monkeypatch):
    monkeypatch.setattr(columns, "SEGMENT", 2)
    mask = torch.zeros(1, 39, 3, dtype=torch.bool)
    mask[0, 18, 0] = mask[0, 19, 0] = mask[0, 38, 0] = mask[0, 5, 2] = True
    check_transform(mask, device, *options)
    check_nearest(mask, device, False, *SPACINGS[0])


@TRITON
@PATCHED
@pytest.mark.parametrize("spacings", first_quick(*SPACINGS, when=INTERPRETED), ids=str)
def test_depth_of_many_segments(spacings, backend, device, monkeypatch):
    monkeypatch.setattr(columns, "SEGMENT", 2)
    # as for slices of 2^30 pixels
    monkeypatch.setattr(columns, "WIDE", 1)
    mask = torch.zeros(2, 9, 1, 2, dtype=torch.bool)
    mask[0, 3, 0, 0] = mask[0, 4, 0, 0] = mask[0, 8, 0, 0] = mask[0, 0, 0, 1] = True
    _, row_spacing, column_spacing = spacings
    check_transform(mask, device, False, row_spacing, column_spacing, False)
    check_nearest(mask, device, False, *spacings)


@TRITON
@PATCHED
@pytest.mark.parametrize("border", [False, True])
def test_sides_too_long_for_exact_squares(border, backend, device, monkeypatch):
    monkeypatch.setattr(columns, "SHORT", 2)
    monkeypatch.setitem(LONGEST_SIDES, 2, 2)
    named = hard_masks(3, 70)
    masks = [named[x] for x in ("empty", "one corner", "diagonal", "sparse")]
    check_transform(torch.stack(masks), device, False, 1.0, 1.0, border)


@TRITON
@PATCHED
@pytest.mark.parametrize("shape", [(3, 70), (3, 2, 34), (2, 3, 5)], ids=str)
def test_nearest_of_sides_too_long_for_short_sites(shape, backend, device, monkeypatch):
    for module in (columns, nearest):
        monkeypatch.setattr(module, "SHORT", 2)
    monkeypatch.setitem(LONGEST_SIDES, len(shape), 2)
    named = hard_masks(*shape) if len(shape) == 2 else hard_volumes(*shape)
    masks = [mask for name, mask in named.items() if name.split()[0] in ("empty", "diagonal")]
    check_nearest(torch.stack(masks), device, False, *SPACINGS[0])


@TRITON
@pytest.mark.parametrize("spacings", first_quick(*SPACINGS[::-1], when=INTERPRETED), ids=str)
@pytest.mark.parametrize("shape", [(2, 40), (2, 2, 35)], ids=str)
def test_nearest_has_the_bits_of_eager(shape, spacings, backend, device):
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(2, *shape, generator=generator) < 0.05
    mask[0, -1, -1] = mask[0, 0, 0] = True
    check_nearest(mask, device, False, *spacings)


@TRITON
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 65, 130), (3, 64, 7)], ids=str)
def test_transpose(shape, dtype, backend, device):
    source = torch.arange(torch.Size(shape).numel(), device=device).to(dtype).view(shape)
    target = torch.empty_like(source.mT, memory_format=torch.contiguous_format)
    assert torch.equal(layout.transpose(source, target), source.mT)


@triton.jit
def block_of_exact_costs(words, result, argmin, x0, first, place, SITES: tl.constexpr):
    least, q = transform.nearest_in_chunk(
        words - first,
        x0,
        first,
        first + 32,
        (place, place),
        (1.0, 1.0, 1.0),
        SITES,
        tl.int32,
        True,
        32,
    )
    tl.store(result + tl.arange(0, 32), least)
    tl.store(argmin + tl.arange(0, 32), q)


@TRITON
@pytest.mark.parametrize("farther", [False, True])
@pytest.mark.parametrize(
    ("sites", "word", "place", "side"),
    [
        # what a transform reads: steps, then squares; and sites, then pairs of them
        (1, 32766, 0, 32767),
        (0, 2 * 26754**2, 0, 26755),
        (1, 0, 32766, 32767),
        (2, 0, 26754, 26755),
        (2, 26754 << 16 | 26754, 0, 26755),
    ],
)
def test_the_largest_squares(sites, word, place, side, farther, backend, device):
    # the pixels and the True pixels of opposite corners, in images and volumes of the longest sides
    x = torch.arange(32, device=device)
    x0, first = (side - 32, 0) if farther else (0, side - 32)
    words = torch.full((32,), word, dtype=torch.int32, device=device)
    if sites == 1:
        words = words.short()
    result, argmin = torch.empty_like(x, dtype=torch.int32), torch.empty_like(x, dtype=torch.int32)
    block_of_exact_costs[(1,)](words, result, argmin, x0, first, place, sites)
    axes = 2 if sites == 1 else 3
    squares = (x0 + x[:, None] - first - x) ** 2 + (axes - 1) * (side - 1) ** 2
    assert squares.max() == axes * (side - 1) ** 2 < 2**31
    assert torch.equal(result + 2**30 + x**2, squares.amin(1))
    assert torch.equal(argmin, first + squares.argmin(1))
    # nothing is above all of them
    block_of_exact_costs[(1,)](torch.full_like(words, -1), result, argmin, x0, first, place, sites)
    assert (result > 2**30).all()


@TRITON
def test_the_first_of_equally_near_pixels(backend, device):
    # The block from column 32 on searches columns 10 to 64: first 64, then 10 to 41, then 42 to 63.
    # Column 37 is in the middle of 10 and 64, column 35 in that of 10 and 60.
    mask = torch.zeros(2, 1, 70, dtype=torch.bool)
    mask[:, 0, [10, 64]] = mask[1, 0, 60] = True
    check_nearest(mask, device, True, 1.0, 1.0, 1.0)
    check_nearest(mask, device, False, 1.0, 1.0, 0.7)
