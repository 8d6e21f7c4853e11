"""What holds for prior masks alone: the formula, masked support, zero vectors and shots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.similarity import ops
from pixelkernels.testing.samples import OPS
from tests.helpers import Sample, backends

ALL = backends("eager", "cpu", "triton")
DIMS = {"B": 2, "D": 7, "H": 3, "W": 5, "P": 4, "Q": 6, "X": 4, "Y": 6, "S": 3}


def inputs(device="cpu", case="", dims=DIMS, **how):
    """query, support, weights: about a tenth of the weights are 0."""
    arguments = Sample(OPS["prior_mask"], case).call(dims, device, **how).arguments
    return [arguments[name] for name in ("query", "support", "weights")]


def opposed(device):
    """Every cosine is below 0."""
    query, support, weights = inputs(device, smooth=True)
    return query.abs(), -support.abs(), weights


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_is_the_largest_cosine_with_the_weighted_support(kept, backend):
    query, support, weights = inputs(dtype=torch.float64, smooth=True)
    weights *= torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)) < kept
    q, s = (x.flatten(2).mT.numpy() for x in (query, support))
    u = s * weights.flatten(1)[:, :, None].numpy()
    norms = np.linalg.norm(q, axis=2)[:, :, None] * np.linalg.norm(u, axis=2)[:, None]
    expected = (q @ u.transpose(0, 2, 1) / (norms + 1e-7)).max(2).reshape(2, 3, 5)
    found = pk.prior_mask(query, support, weights, normalize=None, backend=backend)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    low, high = (getattr(expected, side)((1, 2), keepdims=True) for side in ("min", "max"))
    found = pk.prior_mask(query, support, weights, backend=backend)
    np.testing.assert_allclose(found, (expected - low) / (high - low + 1e-7), rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", ALL)
def test_weights_of_zero_hold_the_maximum_at_zero(backend, device):
    query, support, weights = opposed(device)
    options = {"normalize": None, "backend": backend}
    assert (pk.prior_mask(query, support, weights, **options) < 0).all()
    weights[:, 0, 0] = 0  # where an index of -1 would look
    support[:, :, 0, 0] = torch.nan
    leaves = [x.requires_grad_() for x in (query, support, weights)]
    found = pk.prior_mask(*leaves, **options)
    assert not found.any()
    assert all(not gradient.any() for gradient in torch.autograd.grad(found.sum(), leaves))


@pytest.mark.parametrize("backend", ALL)
def test_a_weight_of_zero_has_no_gradient(backend, device):
    query, support, weights = inputs(device)
    weights.requires_grad_()
    found = pk.prior_mask(query, support, weights, normalize=None, backend=backend)
    (gradient,) = torch.autograd.grad(found.sum(), weights)
    assert (weights == 0).any()
    assert not gradient[weights == 0].any()


@pytest.mark.parametrize("backend", ALL)
def test_zero_weights_and_zero_vectors_are_finite(backend, device):
    query, support, weights = inputs(device)
    assert not pk.prior_mask(query, support, 0 * weights, backend=backend).any()
    query[0], support[1] = 0, 0
    leaves = [x.requires_grad_() for x in (query, support, weights)]
    for reduce in ("max", "softmax"):
        found = pk.prior_mask(*leaves, reduce=reduce, normalize=None, backend=backend)
        assert found.isfinite().all()
        assert reduce == "softmax" or not found.any()
        for gradient in torch.autograd.grad(found.sum(), leaves):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reduce", ["max", "softmax"])
def test_shots_are_averaged_after_the_scaling(reduce, backend, device):
    query, support, weights = inputs(device, "shots")
    options = {"reduce": reduce, "backend": backend}
    found = pk.prior_mask(query, support, weights, **options)
    shots = zip(support.unbind(1), weights.unbind(1), strict=True)
    each = [pk.prior_mask(query, *shot, **options) for shot in shots]
    torch.testing.assert_close(found, torch.stack(each).mean(0))


@pytest.mark.parametrize("backend", ALL)
def test_weights_of_another_size_are_resized(backend, device):
    query, support, weights = inputs(device, dims={**DIMS, "X": 11, "Y": 9})
    resized = torch.nn.functional.interpolate(
        weights[:, None], (4, 6), mode="bilinear", align_corners=True
    )[:, 0]
    expected = pk.prior_mask(query, support, resized, backend=backend)
    assert torch.equal(pk.prior_mask(query, support, weights, backend=backend), expected)


@pytest.mark.parametrize("backend", backends("cpu", "triton"))
def test_index_is_that_of_the_first_best_pixel(backend, device):
    query, support, weights = inputs(device, smooth=True)
    weights[:] = 1
    # powers of two, whose cosines are exact: the second row equals the first
    support[:, :, 2:] = support[:, :, :2]
    support = torch.where(support < 0, -1.0, 1.0)
    query = torch.where(query < 0, -1.0, 1.0)
    _, index = ops.prior_scores(backend, query, support, weights, 0.0)
    products = support.flatten(2).mT @ query.flatten(2)
    assert torch.equal(index.flatten(1), products.argmax(1).int())


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("reduce", ["max", "softmax"])
def test_empty_support_gives_zeros(backend, reduce):
    query = testing.features(2, 3, 4, 5)
    support, weights = torch.zeros(2, 3, 0, 5, requires_grad=True), torch.zeros(2, 0, 5)
    found = pk.prior_mask(query, support, weights, reduce=reduce, normalize=None, backend=backend)
    assert torch.equal(found, torch.zeros(2, 4, 5))
    assert torch.autograd.grad(found.sum(), support)[0].shape == support.shape


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("masked", [False, True])
def test_nan_in_the_support_makes_the_prior_nan(backend, masked):
    query, weights = testing.features(2, 3, 4, 5), torch.ones(2, 4, 5)
    support = query.clone()
    support[0, :, 2, 2] = torch.nan
    weights[:, 0, 0] = float(not masked)
    found = pk.prior_mask(query, support, weights, normalize=None, backend=backend)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@torch.no_grad()
def test_gradients_of_the_kernel_and_of_eager_agree_where_a_point_is_chosen_and_where_not():
    query, support = (testing.features(2, 40, 6, 7, seed=seed) for seed in (0, 1))
    weights = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(2))
    weights[:, 0] = 0
    support[:, :, 0] = torch.nan
    scores, index = ops.prior_scores("cpu", query, support, weights, 1e-7)
    given = [x.flatten(2) for x in (query, support)]
    given += [x.flatten(1) for x in (weights, scores, index)]
    cpu, eager = (
        ops.prior_backward(backend, torch.ones(2, 42), *given, 1e-7) for backend in ("cpu", "eager")
    )
    torch.testing.assert_close(cpu, eager)
    chosen = torch.zeros(2, 42, dtype=torch.bool).scatter_(1, index.flatten(1).long(), True)
    assert 0 < chosen.sum() < 60
    for _, grad_support, grad_weights in (cpu, eager):
        assert (grad_support.mT[~chosen] == 0).all()
        assert (grad_weights[~chosen] == 0).all()
