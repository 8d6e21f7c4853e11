"""The triplet family under Triton's interpreter: test_triton_interpreter.py runs this file."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.triplet import ops
from tests.triplet_cases import hinges_and_gradient, inputs

SMALL = {"shape": (2, 21, 5, 7), "rows": 40}


def check(features, *sets, **options):
    actual = hinges_and_gradient(features, sets, "triton", **options)
    oracle = hinges_and_gradient(features.double(), sets, "eager", **options)
    plain = hinges_and_gradient(features, sets, "eager", **options)
    for a, o, p, name in zip(actual, oracle, plain, ("hinge", "gradient"), strict=True):
        assert a.dtype == p.dtype
        testing.assert_within_budget(a, o, p, name)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize(("dtype", "squared"), [(torch.float16, False), (torch.float32, True)])
def test_matches_the_oracle_in_every_layout(dtype, squared, layout):
    check(*inputs(dtype, layout=layout, **SMALL), margin=1.5, squared=squared)


@pytest.mark.parametrize("channels", [1, 64, 70])
@pytest.mark.parametrize("rows", [1, 17])
def test_sizes(channels, rows):
    features, *sets = inputs(shape=(2, channels, 5, 7), rows=40)
    check(features, *(index[:, 1 : rows + 1] for index in sets))


def test_a_pixel_may_be_in_every_row():
    features, *sets = inputs(shape=(1, 5, 4, 6), rows=30)
    check(features, torch.full_like(sets[0], 7), *sets[1:])


def test_an_index_past_the_last_pixel_is_absent(monkeypatch):
    # these tensors are on the CPU, where such an index is an error before there is a kernel
    monkeypatch.setattr(ops, "PIXELS", {name: lambda values, _: values for name in ops.PIXELS})
    features, *sets = inputs(**SMALL)
    past = [sets[0].clone(), *sets[1:]]
    past[0][:, 8] = features[0, 0].numel()
    sets[0][:, 8] = -1
    found, expected = (hinges_and_gradient(features, s, "triton") for s in (past, sets))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_rows_the_gradient_is_zero():
    features, *sets = inputs(**SMALL)
    for empty in ([index[:, :0] for index in sets], [index.clamp(max=-1) for index in sets]):
        found, gradient = hinges_and_gradient(features, empty, "triton")
        assert (found == 0).all()
        assert (gradient == 0).all()


@pytest.mark.parametrize("num_samples", [1, 40, 200])
def test_draws_are_those_of_the_cpu(num_samples):
    mask = testing.random_labels(4, 9, 13, high=2, seed=3).bool()
    mask[1], mask[2] = False, True
    found = []
    for backend in ("triton", "cpu"):
        generator = torch.Generator().manual_seed(5)
        found.append(
            [
                pk.sample_pixels(m, num_samples, generator=generator, backend=backend)
                for m in (mask, mask[:0], mask[:, :0])
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("squared", [False, True])
def test_the_loss_is_that_of_the_cpu(squared):
    mask = testing.coherent_labels(2, 12, 20, 3) == 1
    features = testing.features(2, 8, 12, 20).requires_grad_()
    results = []
    for backend in ("triton", "cpu"):
        torch.manual_seed(0)
        loss = pk.is_triplet_loss(features, mask, num_samples=30, squared=squared, backend=backend)
        results.append((loss, *torch.autograd.grad(loss, features)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
