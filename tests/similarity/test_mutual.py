"""Mutual matches: NumPy's pairs one by one, and the released codes of LoFTR and DeDoDe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import pixelkernels as pk
from pixelkernels.testing import LAYOUTS
from pixelkernels.testing.inputs import features
from tests.helpers import INTERPRETED, assert_same, backends, supported_dtypes

ALL = pytest.mark.parametrize("backend", backends("eager", "cpu", "triton"))
COMPILED = pytest.mark.parametrize("backend", backends("cpu", "triton"))
MODES = pytest.mark.parametrize("mode", ["dual_softmax", "nearest"])


def pair(batch=2, channels=16, size=(6, 7), other=(5, 9), device="cpu", dtype=torch.float32):
    """Unit features, and in another order noisy copies of them and of features of neither."""
    pixels, others = size[0] * size[1], other[0] * other[1]
    a = normalize(features(batch, channels, pixels, dtype=torch.float64), dim=1)
    b = torch.cat([a, features(batch, channels, max(others - pixels, 0), dtype=a.dtype, seed=1)], 2)
    order = torch.randperm(b.shape[2], generator=torch.Generator().manual_seed(0))[:others]
    noise = features(batch, channels, others, dtype=a.dtype, seed=2)
    b = normalize(b[:, :, order] + 0.1 * noise, dim=1)
    sides = (a.unflatten(2, size), b.unflatten(2, other))
    return [x.to(device, dtype) for x in sides]


def padding(batch, size, heights, widths, device="cpu"):
    """A mask per image whose kept pixels are its upper left part."""
    rows, columns = (torch.arange(n) for n in size)
    masks = [
        (rows[:, None] < height) & (columns < width)
        for height, width in zip(heights, widths, strict=True)
    ]
    return torch.stack(masks[:batch]).to(device)


def listed(found):
    """Matches as a set of (image, i, j), and the confidences by them."""
    keys = zip(found.batch.tolist(), found.i.tolist(), found.j.tolist(), strict=True)
    return dict(zip(keys, found.confidence.tolist(), strict=True))


def assert_matches(found, expected, tolerance=1e-5):
    """The matches are those of a dictionary, in order."""
    found = listed(found)
    assert list(found) == sorted(expected)
    for key, confidence in expected.items():
        assert found[key] == pytest.approx(confidence, rel=tolerance, abs=tolerance), key


# ---- the formula ----


def by_loops(a, b, temperature, threshold, mode):
    """Every pair on its own, in NumPy."""
    found = {}
    for image, (x, y) in enumerate(zip(a.flatten(2).numpy(), b.flatten(2).numpy(), strict=True)):
        s = x.T @ y
        if mode == "dual_softmax":
            e = np.exp(s / temperature)
            s = e / e.sum(1, keepdims=True) * (e / e.sum(0, keepdims=True))
        for i in range(s.shape[0]):
            for j in range(s.shape[1]):
                first_j = all(s[i, j] > v for v in s[i, :j]) and s[i, j] == s[i].max()
                first_i = all(s[i, j] > v for v in s[:i, j]) and s[i, j] == s[:, j].max()
                if first_i and first_j and s[i, j] > threshold:
                    found[image, i, j] = s[i, j]
    return found


@ALL
@MODES
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_matches_are_the_maxima_of_row_and_column(mode, threshold, backend, device):
    a, b = pair()
    expected = by_loops(a.double(), b.double(), 0.1, threshold, mode)
    assert len(expected) > 20
    found = pk.mutual_matches(
        a.to(device), b.to(device), threshold=threshold, mode=mode, backend=backend
    )
    assert_matches(found, expected)
    assert [x.dtype for x in found] == [*[torch.int64] * 3, torch.float32]


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
@MODES
def test_float64_is_matched_in_float64(mode, backend):
    a, b = pair(dtype=torch.float64)
    found = pk.mutual_matches(a, b, mode=mode, backend=backend)
    assert_matches(found, by_loops(a, b, 0.1, 0.2, mode), 1e-12)
    assert found.confidence.dtype == torch.float64


@ALL
@MODES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_matched_in_float32(mode, dtype, backend, device):
    if backend == "triton" and dtype not in supported_dtypes(backend):
        pytest.skip("the interpreter multiplies matrices of bfloat16 wrongly")
    a, b = pair(dtype=dtype)
    expected = by_loops(a.double(), b.double(), 0.1, 0.2, mode)
    found = pk.mutual_matches(a.to(device), b.to(device), mode=mode, backend=backend)
    assert_matches(found, expected, 1e-4)
    assert found.confidence.dtype == torch.float32


@COMPILED
@MODES
@pytest.mark.parametrize("channels", [1, 3, 140, 300])
def test_any_number_of_channels(mode, channels, backend, device):
    a, b = pair(1, channels)
    options = {"temperature": 0.3, "threshold": 0.0, "mode": mode}
    expected = pk.mutual_matches(a.double(), b.double(), **options, backend="eager")
    found = pk.mutual_matches(a.to(device), b.to(device), **options, backend=backend)
    assert_matches(found, listed(expected))


@COMPILED
@MODES
def test_several_tiles_of_pixels(mode, backend, device):
    sizes = ((1, 150), (3, 70)) if INTERPRETED else ((1, 1500), (30, 41))
    a, b = pair(1, 12, *sizes)
    options = {"temperature": 0.1, "threshold": 0.0, "mode": mode}
    expected = pk.mutual_matches(a.double(), b.double(), **options, backend="eager")
    found = pk.mutual_matches(a.to(device), b.to(device), **options, backend=backend)
    assert_matches(found, listed(expected))


@ALL
def test_confidences_of_far_features_keep_their_digits(backend, device):
    """e^s is no float32, and the confidence is rounded as often as s."""
    a, b = pair(device=device)
    options = {"temperature": 1e-4, "threshold": 0.0, "backend": backend}
    found = pk.mutual_matches(a, b, **options)
    options |= {"backend": "eager"}
    # similarities up to 1e4, each rounded in the sixth digit or better
    assert_matches(found, listed(pk.mutual_matches(a.double(), b.double(), **options)), 2e-2)


@ALL
@MODES
def test_layouts_and_points_without_a_grid(mode, backend, device):
    a, b = pair(device=device)
    expected = pk.mutual_matches(a, b, mode=mode, backend=backend)
    for layout in LAYOUTS.values():
        found = pk.mutual_matches(layout(a), layout(b), mode=mode, backend=backend)
        assert_matches(found, listed(expected))
    flat = pk.mutual_matches(a.flatten(2), b.flatten(2), mode=mode, backend=backend)
    assert_same(flat._asdict(), expected._asdict())


# ---- the originals ----


def loftr(a, b, temperature, threshold, border, mask_a=None, mask_b=None):
    """The coarse matching of LoFTR in evaluation, from all confidences. Its features have been
    divided by the root of their number: so is the product, here by the temperature."""
    (height_a, width_a), (height_b, width_b) = a.shape[2:], b.shape[2:]
    s = torch.einsum("bci,bcj->bij", a.flatten(2), b.flatten(2)) / temperature
    if mask_a is not None:
        both = mask_a.flatten(1)[:, :, None] & mask_b.flatten(1)[:, None]
        s = torch.where(both, s, -1e9)
    confidence = s.softmax(1) * s.softmax(2)
    kept = (confidence > threshold).view(-1, height_a, width_a, height_b, width_b)
    for image in range(len(a)):
        sides = []
        for mask, size in ((mask_a, a.shape[2:]), (mask_b, b.shape[2:])):
            if mask is not None:
                size = (int(mask[image].sum(0).max()), int(mask[image].sum(1).max()))
            sides += size
        if border:
            for axis, side in enumerate(sides):
                lines = kept[image].movedim(axis, 0)
                lines[:border] = False
                lines[max(side - border, 0) :] = False
    kept = kept.reshape(confidence.shape)
    kept &= confidence == confidence.amax(2, keepdim=True)
    kept &= confidence == confidence.amax(1, keepdim=True)
    found = {}
    for image, i in kept.any(2).nonzero().tolist():
        j = int(kept[image, i].nonzero()[0])
        found[image, i, j] = float(confidence[image, i, j])
    return found


@ALL
@pytest.mark.parametrize("border", [0, 1, 2, 9])
def test_matches_of_loftr(border, backend, device):
    a, b = pair(2, 16, (8, 9), (9, 10))
    channels = 16
    a, b = 4 * a, 4 * b
    temperature = 0.1 * channels  # of features that LoFTR divides by the root of the channels
    expected = loftr(a.double(), b.double(), temperature, 0.2, border)
    assert bool(expected) == (border < 9)
    found = pk.mutual_matches(
        a.to(device), b.to(device), temperature=temperature, border=border, backend=backend
    )
    assert_matches(found, expected)


@ALL
@pytest.mark.parametrize("border", [0, 2])
def test_matches_of_loftr_with_padded_images(border, backend, device):
    a, b = pair(3, 16, (8, 9), (9, 10))
    mask_a = padding(3, (8, 9), (8, 6, 3), (7, 9, 3))
    mask_b = padding(3, (9, 10), (7, 9, 9), (10, 10, 10))
    expected = loftr(a.double(), b.double(), 0.1, 0.2, border, mask_a, mask_b)
    assert len({image for image, *_ in expected}) == (3 if border == 0 else 2)
    for convert in (torch.Tensor.bool, torch.Tensor.int, lambda mask: 3 * mask.byte()):
        found = pk.mutual_matches(
            a.to(device), b.to(device), mask_a=convert(mask_a).to(device),
            mask_b=convert(mask_b).to(device), border=border, backend=backend,
        )  # fmt: skip
        assert_matches(found, expected)


def dedode(a, b, inv_temperature, threshold, normalised):
    """DeDoDe's dual softmax matcher, of descriptions [B, N, C] and [B, M, C]."""
    if normalised:
        a, b = (x / x.norm(dim=2, keepdim=True) for x in (a, b))
    s = a @ b.mT * inv_temperature
    p = s.softmax(1) * s.softmax(2)
    best = (p == p.amax(2, keepdim=True)) & (p == p.amax(1, keepdim=True)) & (p > threshold)
    return {tuple(key): float(p[tuple(key)]) for key in best.nonzero().tolist()}


@ALL
@pytest.mark.parametrize("normalised", [False, True])
def test_matches_of_dedode(normalised, backend, device):
    a, b = (3 * x.flatten(2).mT for x in pair())
    inverse = 20.0 if normalised else 1.0
    expected = dedode(a.double(), b.double(), inverse, 0.1, normalised)
    assert len(expected) > 20
    if normalised:
        a, b = normalize(a, dim=2), normalize(b, dim=2)
    found = pk.mutual_matches(
        a.mT.to(device), b.mT.to(device), temperature=1 / inverse, threshold=0.1, backend=backend
    )
    assert_matches(found, expected)


# ---- ties, masks, borders, nothing ----


@ALL
@MODES
def test_of_equal_maxima_the_first_matches(mode, backend, device):
    """Each pixel of either side is there several times, in small integers, which keep products and
    sums exact."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.eye(4)
    of_a, of_b = (torch.randint(4, (n,), generator=generator) for n in (9, 200))
    a, b = (4 * kinds[:, kind][None].to(device) for kind in (of_a, of_b))
    options = {"temperature": 4.0, "threshold": -1.0, "mode": mode, "backend": backend}
    found = listed(pk.mutual_matches(a, b, **options))
    first = {(0, of_a.tolist().index(k), of_b.tolist().index(k)) for k in set(of_a.tolist())}
    assert set(found) == first
    # where all pairs are equal, too
    found = pk.mutual_matches(0 * a, 0 * b, **options)
    assert list(listed(found)) == [(0, 0, 0)]


@ALL
@MODES
def test_masked_pixels_take_part_in_nothing(mode, backend, device):
    a, b = pair(1, device=device)
    generator = torch.Generator().manual_seed(0)
    masks = [(torch.rand(1, *x.shape[2:], generator=generator) < 0.7).to(device) for x in (a, b)]
    spoiled = [x.where(mask[:, None], torch.nan) for x, mask in zip((a, b), masks, strict=True)]
    options = {"threshold": 0.0, "mode": mode, "backend": backend}
    found = pk.mutual_matches(*spoiled, mask_a=masks[0], mask_b=masks[1], **options)
    # the others alone
    places = [mask.flatten().nonzero()[:, 0] for mask in masks]
    alone = pk.mutual_matches(
        *(x.flatten(2)[:, :, place] for x, place in zip((a, b), places, strict=True)), **options
    )
    there = zip(places[0][alone.i].tolist(), places[1][alone.j].tolist(), strict=True)
    keys = [(0, i, j) for i, j in there]
    assert len(keys) > 10
    assert_matches(found, dict(zip(keys, alone.confidence.tolist(), strict=True)))
    # one mask alone
    for name, mask, one in (("mask_a", masks[0], 0), ("mask_b", masks[1], 1)):
        sides = [a, b]
        sides[one] = spoiled[one]
        found = pk.mutual_matches(*sides, **{name: mask}, **options)
        other = torch.ones_like(masks[1 - one])
        both = {"mask_a": other, "mask_b": other, name: mask}
        assert_same(found._asdict(), pk.mutual_matches(*sides, **both, **options)._asdict())


@ALL
@MODES
def test_without_kept_pixels_there_are_no_matches(mode, backend, device):
    a, b = pair(device=device)
    for one, name in enumerate(("mask_a", "mask_b")):
        sides, mask = [a, b], torch.ones((2, *(a, b)[one].shape[2:]), dtype=torch.bool)
        mask[1] = False
        mask = mask.to(device)
        sides[one] = sides[one].where(mask[:, None], torch.nan)
        options = {"threshold": -100.0, "mode": mode, "border": 1, "backend": backend}
        found = pk.mutual_matches(*sides, **{name: mask}, **options)
        assert set(found.batch.tolist()) == {0}
        found = pk.mutual_matches(*sides, **{name: mask & False}, **options)
        assert len(found.batch) == 0


@ALL
@MODES
@pytest.mark.parametrize(
    ("size", "other"), [((0, 3), (2, 2)), ((2, 2), (3, 0)), ((0, 0), (0, 0)), ((1, 1), (1, 1))]
)
@pytest.mark.parametrize(("batch", "channels"), [(2, 3), (0, 3), (1, 0)])
def test_empty_sizes(mode, size, other, batch, channels, backend, device):
    a, b = (torch.zeros(batch, channels, *sides, device=device) for sides in (size, other))
    masks = {
        name: torch.ones_like(x[:, :1].sum(1) if channels else x.sum(1), dtype=torch.bool)
        for name, x in (("mask_a", a), ("mask_b", b))
    }
    for given in ({}, masks):
        found = pk.mutual_matches(a, b, threshold=-1.0, mode=mode, **given, backend=backend)
        count = batch if size == other == (1, 1) else 0
        assert [len(x) for x in found] == [count] * 4
        assert (found.confidence == (1 if mode == "dual_softmax" else 0)).all()
        found = pk.mutual_matches(a, b, threshold=-1.0, border=1, **given, backend=backend)
        assert len(found.i) == 0


@ALL
def test_a_border_drops_matches_after_the_mutual_test(backend, device):
    """A pixel at the border is the best of its partner all the same."""
    a = torch.eye(16, device=device).view(1, 16, 4, 4)
    b = a.roll(1, 3)
    found = pk.mutual_matches(a, b, border=1, backend=backend)
    # 5, 6, 9 and 10 are inside; 5 and 9 find theirs inside, 6 and 10 at the right border
    assert list(listed(found)) == [(0, 5, 6), (0, 9, 10)]


@ALL
def test_a_border_with_a_mask_is_that_of_the_fullest_row_and_column(backend, device):
    a = torch.eye(36, device=device).view(1, 36, 6, 6)
    mask = torch.zeros(1, 6, 6, dtype=torch.bool, device=device)
    mask[0, :5, :4] = True
    mask[0, 0, 3] = False
    found = pk.mutual_matches(a, a, mask_a=mask, border=1, backend=backend)
    rows, columns = torch.meshgrid(torch.arange(1, 4), torch.arange(1, 3), indexing="ij")
    assert found.i.tolist() == (6 * rows + columns).flatten().tolist()


@ALL
def test_nan_of_kept_pixels_matches_nothing(backend, device):
    a, b = pair(1, device=device)
    a[0, :, 2, 3] = torch.nan
    for mode in ("dual_softmax", "nearest"):
        found = pk.mutual_matches(a, b, threshold=-100.0, mode=mode, backend=backend)
        assert 2 * 7 + 3 not in found.i.tolist()
        assert found.confidence.isfinite().all()


@COMPILED
def test_the_same_bits_on_every_run_and_under_autocast(backend, device):
    a, b = pair(device=device)
    first = pk.mutual_matches(a, b, backend=backend)
    assert_same(pk.mutual_matches(a, b, backend=backend)._asdict(), first._asdict())
    with torch.autocast(device, dtype=torch.bfloat16):
        assert_same(pk.mutual_matches(a, b, backend=backend)._asdict(), first._asdict())


def test_matches_have_no_gradient():
    a, b = pair()
    found = pk.mutual_matches(a.requires_grad_(), b, backend="eager")
    assert not found.confidence.requires_grad


def test_a_border_needs_rows_and_columns():
    a, b = pair()
    with pytest.raises(ValueError, match=r"^b: expected shape \[B, D, H, W\] with a border"):
        pk.mutual_matches(a, b.flatten(2), border=1, backend="eager")
    with pytest.raises(ValueError, match=r"^a: expected a device that holds values, got meta"):
        pk.mutual_matches(a.to("meta"), b.to("meta"))
