"""The click on the deepest error, and random ones for training, against the literal algorithm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelkernels as pk
from pixelkernels import testing
from tests.distance.literal import error_depths, masks, next_click
from tests.helpers import backends, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")


@given(
    wrong=masks(30),
    seed=st.integers(0, 2**32 - 1),
    ignore_index=st.sampled_from((-1, 0, 1, 3, 300)),
    mostly=st.sampled_from((0.02, 0.5, 1.0)),
)
@settings(max_examples=100)
def test_next_click_is_the_literal_algorithm(wrong, seed, ignore_index, mostly):
    random = np.random.default_rng(seed)
    target = random.choice([1, 1, 0, ignore_index, 3], (3, *wrong.shape))
    target[0], target[1] = 1, np.where(target[1] > 0, 1, 0)
    prediction = (target != 0) ^ wrong
    not_clicked = random.random(prediction.shape) < mostly
    tensors = [torch.from_numpy(x) for x in (prediction, target, not_clicked)]
    for backend in ("cpu", "eager"):
        click = pk.next_click(
            *tensors[:2], not_clicked=tensors[2], ignore_index=ignore_index, backend=backend
        )
        for image in range(3):
            point, label, valid = next_click(
                prediction[image], target[image], not_clicked[image], ignore_index
            )
            assert tuple(click.points[image].tolist()) == point
            assert click.labels[image] == label
            assert click.valid[image] == valid


@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
def test_next_click_of_a_batch(backend, device):
    target = testing.coherent_labels(6, 30, 61, 4) - 1
    prediction = testing.coherent_labels(6, 30, 61, 4, seed=5) == 1
    prediction[3] = target[3] > 0  # nothing to correct
    click = pk.next_click(prediction.to(device), target.to(device), backend=backend)
    for image in range(6):
        point, label, valid = next_click(
            prediction[image].numpy(), target[image].numpy(), np.ones((30, 61), bool), -1
        )
        assert (tuple(click.points[image].tolist()), click.labels[image], click.valid[image]) == (
            point,
            label,
            valid,
        )
    assert click.points.dtype == click.labels.dtype == torch.int64


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.bool])
def test_next_click_takes_any_integer(dtype, backend, device):
    target = (testing.coherent_labels(2, 40, 50, 3) == 1).to(device)
    prediction = target.roll(9, 2)
    expected = pk.next_click(prediction, target, backend=backend)
    for ignore_index in (-1, 255):
        actual = pk.next_click(
            prediction.to(dtype), target.to(dtype), ignore_index=ignore_index, backend=backend
        )
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@given(wrong=masks(30), seed=st.integers(0, 2**32 - 1), mostly=st.sampled_from((0.02, 0.5, 1.0)))
@settings(max_examples=100)
def test_random_next_click_is_deeper_than_half_of_the_deepest(wrong, seed, mostly):
    random = np.random.default_rng(seed)
    target = random.choice([1, 1, 0, -1, 3], (3, *wrong.shape))
    prediction = (target != 0) ^ wrong
    not_clicked = random.random(prediction.shape) < mostly
    tensors = [torch.from_numpy(x) for x in (prediction, target, not_clicked)]
    fixed = pk.next_click(*tensors[:2], not_clicked=tensors[2])
    clicks = [
        pk.next_click(
            *tensors[:2],
            not_clicked=tensors[2],
            random=True,
            generator=torch.Generator().manual_seed(seed % 1000),
            backend=backend,
        )
        for backend in ("cpu", "eager")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*clicks, strict=True))
    assert torch.equal(clicks[0].labels, fixed.labels)
    assert torch.equal(clicks[0].valid, fixed.valid)
    for image in range(3):
        if fixed.valid[image]:
            depths = error_depths(prediction[image], target[image], not_clicked[image], -1)
            depth = depths[0 if fixed.labels[image] else 1]
            assert 4 * depth[tuple(clicks[0].points[image].tolist())] > depth.max()


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_random_next_clicks_are_uniform(backend, device):
    target = torch.zeros(2000, 9, 12, dtype=torch.bool, device=device)
    target[:, 1:8, 2:9] = True
    click = pk.next_click(torch.zeros_like(target), target, random=True, backend=backend)
    # depths 1 to 4, in squares 1, 4, 9 and 16: the 3 x 3 pixels with 9 and 16
    seen = (click.points[:, 0] * 12 + click.points[:, 1]).bincount(minlength=108).view(9, 12)
    inner = seen[3:6, 4:7]
    assert inner.sum() == len(target)
    assert ((inner - 2000 / 9).abs() < 6 * (2000 / 9) ** 0.5).all()
