"""The transform of labels, against all pairs of pixels and against edt."""

from __future__ import annotations

import edt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelkernels as pk
from pixelkernels.distance import ops
from tests.distance.literal import NOWHERE, hard_masks, hard_volumes
from tests.helpers import INTERPRETED, backends, first_quick, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")
# lines of one pixel, and every remainder of tiles, blocks and vectors
SHAPES = [(1, 70), (70, 1), (33, 17), (9, 97), (1, 1, 1), (40, 1, 1), (3, 70, 1), (3, 33, 9)]
LONG = (3, 300)
if INTERPRETED:  # which takes a millisecond a pixel
    SHAPES = first_quick((3, 34), (1, 7), (34, 1), (2, 3, 34), (3, 34, 2))
    LONG = (2, 70)
SPACINGS = first_quick((1.0, 1.0, 1.0), (2.1, 0.7, 1.3))


def to_another_label(labels: np.ndarray, border: bool, spacing: tuple[float, ...]) -> np.ndarray:
    """The squared distances by comparing all pairs of pixels, float64."""
    if border:
        # a number that no label is
        padded = np.pad(labels.astype(np.int64), 1, constant_values=1 << 50)
        inside = (slice(1, -1),) * labels.ndim
        return to_another_label(padded, False, spacing)[inside]
    pixels = np.argwhere(np.ones_like(labels, bool))
    squares = np.zeros((len(pixels),) * 2)
    for axis, step in enumerate(spacing):
        squares += (step * np.subtract.outer(pixels[:, axis], pixels[:, axis])) ** 2.0
    values = labels.flatten()
    squares[values[:, None] == values] = np.inf
    return squares.min(1).reshape(labels.shape)


def hard_labels(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    named = hard_masks(*shape) if len(shape) == 2 else hard_volumes(*shape)
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randint(0, 4, [-(-side // 4) for side in shape], generator=generator)
    for axis, side in enumerate(shape):
        coarse = coarse.repeat_interleave(4, axis).narrow(axis, 0, side)
    labels = {name: mask.long() for name, mask in named.items()}
    labels |= {
        "one label": torch.full(shape, 7),
        "regions": coarse,
        "every pixel": torch.arange(coarse.numel()).view(shape),
        "far apart": torch.where(coarse > 1, -(1 << 40), coarse << 40),
    }
    if INTERPRETED:
        labels = {name: labels[name] for name in ("one label", "regions")}
    return labels


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_distances_are_those_of_all_pairs(shape, spacing, border, backend, device):
    axes = len(shape)
    named, spacing = hard_labels(shape), spacing[-axes:]
    whole = set(spacing) == {1.0}
    labels = torch.stack(list(named.values())).to(device)
    options = {"spatial_dims": axes, "multilabel": True, "black_border": border, "backend": backend}
    distances = pk.distance_transform(labels, sampling=spacing, **options)
    assert distances.dtype == torch.float32
    with_background = ops.label_distance(
        backend, labels, False, *((1.0, *spacing)[-3:]), border, True
    )
    for i, (name, own) in enumerate(named.items()):
        squares = to_another_label(own.numpy(), border, spacing)
        expected = torch.from_numpy(np.sqrt(squares).astype(np.float32))
        found = with_background[i].cpu()
        if whole:
            assert torch.equal(found, expected), name
        else:
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, msg=name)
        assert torch.equal(distances[i].cpu(), torch.where(own == 0, 0, found)), name
    if whole:
        squared = pk.distance_transform(labels, squared=True, **options)
        assert squared.dtype == torch.int32
        roots = torch.where(squared == NOWHERE, torch.inf, squared.double().sqrt().float())
        assert torch.equal(roots, distances)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("border", [False, True])
def test_lines_of_many_parts(border, backend, device):
    """Another label may be many blocks of pixels away."""
    labels = torch.zeros(LONG, dtype=torch.int32)
    labels[0, 1:], labels[-1, : LONG[1] - 1], labels[:, LONG[1] // 2] = 1, 2, 0
    for turned in (labels, labels.T):
        options = {"multilabel": True, "black_border": border}
        expected = pk.distance_transform(turned, backend="eager", **options)
        found = pk.distance_transform(turned.to(device), backend=backend, **options)
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("backend", ALL)
def test_labels_of_any_dtype(backend, device):
    labels = hard_labels((5, 34))["regions"][None]
    expected = pk.distance_transform(labels, multilabel=True, backend="eager")
    dtypes = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16]
    for dtype in dtypes[: 2 if INTERPRETED else None]:
        given = labels.to(dtype).to(device)
        assert torch.equal(
            pk.distance_transform(given, multilabel=True, backend=backend).cpu(), expected
        )
    mask = (labels > 1).to(device)
    found = pk.distance_transform(mask, multilabel=True, backend=backend)
    assert torch.equal(found, pk.distance_transform(~mask, backend=backend))


@pytest.mark.parametrize("backend", ALL)
def test_border_of_masks(backend, device):
    shapes = ((3, 34), (2, 2, 34)) if INTERPRETED else ((9, 70), (5, 9, 34))
    for shape in shapes:
        for mask in hard_labels(shape).values():
            true = mask == 1
            padded = torch.nn.functional.pad(true, (1, 1) * len(shape), value=True)
            options = {"spatial_dims": len(shape)}
            expected = pk.distance_transform(padded, backend="eager", **options)
            for axis in range(len(shape)):
                expected = expected.narrow(axis, 1, shape[axis])
            found = pk.distance_transform(
                true.to(device), black_border=True, backend=backend, **options
            )
            assert torch.equal(found.cpu(), expected)


labels = st.integers(2, 3).flatmap(
    lambda axes: st.tuples(
        st.tuples(*[st.integers(1, (24, 24, 90)[i + 3 - axes]) for i in range(axes)]),
        st.integers(0, 2**32 - 1),
        st.integers(1, 5),
        st.sampled_from([1, 2, 7]),
        st.booleans(),
        st.sampled_from([(1.0, 1.0, 1.0), (2.1, 0.7, 1.3), (30.0, 1.0, 0.1)]),
    )
)


@not_interpreted
@settings(deadline=None, derandomize=True, max_examples=150)
@given(labels)
def test_distances_are_those_of_edt(drawn):
    shape, seed, count, scale, border, spacing = drawn
    rng = np.random.default_rng(seed)
    image = rng.integers(0, count + 1, [-(-side // scale) for side in shape]).astype(np.int32)
    for axis, side in enumerate(shape):
        image = image.repeat(scale, axis).take(range(side), axis)
    expected = edt.edt(image, anisotropy=spacing[-len(shape) :], black_border=border)
    found = pk.distance_transform(
        torch.from_numpy(image),
        spatial_dims=len(shape),
        sampling=spacing[-len(shape) :],
        multilabel=True,
        black_border=border,
    )
    # edt computes in float32 with other roundings
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-6)


@pytest.mark.slow
@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("shape", [(2, 3, 40000), (1, 40000, 3), (1, 2, 3, 27000)], ids=str)
def test_long_sides(shape, backend, device):
    """Beyond the sides whose squares are int32."""
    side = max(shape)
    x = torch.arange(side)
    cell, last = x // 9000, (side - 1) // 9000
    before = torch.where(cell > 0, x % 9000 + 1, side)
    after = torch.where(cell < last, 9000 - x % 9000, side)
    expected = torch.where(cell % 3 == 0, 0, torch.minimum(before, after)).float()
    axis = shape.index(side)
    along = [-1 if i == axis else 1 for i in range(len(shape))]
    labels = (cell % 3).view(along).expand(shape).contiguous().to(device)
    found = pk.distance_transform(
        labels, spatial_dims=len(shape) - 1, multilabel=True, backend=backend
    )
    assert torch.equal(found.cpu(), expected.view(along).expand(shape))
