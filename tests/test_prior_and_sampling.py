"""Prior masks and sampled references on every backend against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import backends
from tests.similarity_cases import prior

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")


def supports(backend, dtype):
    return not (backend == "triton" and dtype == torch.float64)


def case(device="cpu", dtype=torch.float32, kept=0.5, shots=None, layout="contiguous"):
    query = testing.features(2, 37, 9, 12, dtype=dtype, device=device, layout=layout)
    lead = (2,) if shots is None else (2, shots)
    support = testing.features(lead[0] * (shots or 1), 37, 7, 10, dtype=dtype, seed=3)
    weights = testing.weights(*lead, 7, 10, seed=4) + 0.1
    weights *= testing.weights(*lead, 7, 10, seed=5) <= kept
    support = testing.LAYOUTS[layout](support.to(device))
    return query, support.unflatten(0, lead), weights.to(device)


# ---- prior masks ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_prior_is_the_formula(kept, backend, device):
    dtype = torch.float64 if device == "cpu" else torch.float32
    query, support, weights = case(device, dtype, kept)
    query[1] = -query[1].abs()  # with support[1] positive, every cosine is below 0
    support[1] = support[1].abs()
    found = pk.prior_mask(query, support, weights, normalize=None, backend=backend)
    q, s = (x.flatten(2).mT.double().cpu().numpy() for x in (query, support))
    w = weights.flatten(1).double().cpu().numpy()
    expected = [[prior(one, s[b], w[b], 1e-7) for one in q[b]] for b in range(2)]
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    expected = torch.tensor(np.array(expected)).view(2, 9, 12).to(found)
    assert (found - expected).abs().max() <= tolerance
    # zero weights, where there are some, hold the maximum at 0
    assert (found[1] == 0).all() if kept < 1 else (found[1] < 0).all()
    scaled = pk.prior_mask(query, support, weights, backend=backend)
    low, high = (getattr(found, f)((1, 2), keepdim=True) for f in ("amin", "amax"))
    torch.testing.assert_close(scaled, (found - low) / (high - low + 1e-7))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("reduce", ["max", "softmax"])
@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_prior_in_every_dtype_and_layout(dtype, layout, reduce, backend, device):
    if not supports(backend, dtype):
        return
    query, support, weights = case(device, dtype, layout=layout)
    options = {"reduce": reduce, "normalize": None}

    def run(backend, dtype):
        leaves = [query.to(dtype), support.to(dtype), weights]
        leaves = [x.detach().requires_grad_() for x in leaves]
        found = pk.prior_mask(*leaves, backend=backend, **options)
        weight = testing.features(1, 2, 9, 12)[0].to(found)
        return [found, *torch.autograd.grad((found * weight).sum(), leaves)]

    oracle, plain = run("eager", torch.float64), run("eager", dtype)
    names = ("scores", "query", "support", "weights")
    for name, a, o, p in zip(names, run(backend, dtype), oracle, plain, strict=True):
        # weights and their gradient are float32 in every run
        testing.assert_within_budget(a, o, p, name, scale=0.1)
    assert not run(backend, dtype)[3][weights == 0].any() or reduce == "softmax"


@pytest.mark.parametrize("reduce", ["max", "softmax"])
@pytest.mark.parametrize("normalize", ["minmax", None])
def test_gradcheck_of_the_prior(normalize, reduce):
    query = testing.features(2, 5, 2, 3, dtype=torch.float64)
    support = testing.features(4, 5, 3, 2, dtype=torch.float64, seed=3).unflatten(0, (2, 2))
    weights = testing.features(2, 2, 3, 2, dtype=torch.float64, seed=5).abs()

    def run(*leaves):
        return pk.prior_mask(*leaves, reduce=reduce, normalize=normalize, backend="cpu")

    leaves = [x.requires_grad_() for x in (query, support, weights)]
    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("zero_wins", [False, True])
def test_masked_support_may_be_nan(zero_wins, backend, device):
    query, support, weights = case(device)
    if zero_wins:
        query, support = -query.abs(), support.abs()
        weights[:, 0, 0] = 0  # where an index of -1 would look
    expected = pk.prior_mask(query, support, weights, backend=backend)
    support = torch.where((weights == 0)[:, None], torch.nan, support).requires_grad_()
    weights.requires_grad_()
    found = pk.prior_mask(query, support, weights, backend=backend)
    assert torch.equal(found, expected)
    for grad in torch.autograd.grad(found.square().sum(), (support, weights)):
        assert not torch.isnan(grad).any()


@pytest.mark.parametrize("backend", ALL)
def test_an_empty_mask_and_zero_vectors(backend, device):
    query, support, weights = case(device)
    assert not pk.prior_mask(query, support, 0 * weights, backend=backend).any()
    query[0], support[1] = 0, 0
    for reduce in ("max", "softmax"):
        leaves = [x.detach().requires_grad_() for x in (query, support, weights)]
        found = pk.prior_mask(*leaves, reduce=reduce, normalize=None, backend=backend)
        assert torch.isfinite(found).all()
        assert reduce == "softmax" or not found.any()
        for grad in torch.autograd.grad(found.sum(), leaves):
            assert torch.isfinite(grad).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reduce", ["max", "softmax"])
def test_shots_are_averaged_after_the_scaling(reduce, backend, device):
    query, support, weights = case(device, shots=3)
    found = pk.prior_mask(query, support, weights, reduce=reduce, backend=backend)
    each = [
        pk.prior_mask(query, support[:, i], weights[:, i], reduce=reduce, backend=backend)
        for i in range(3)
    ]
    torch.testing.assert_close(found, torch.stack(each).mean(0))


@pytest.mark.parametrize("backend", ALL)
def test_weights_of_another_size_are_resized(backend, device):
    query, support, _ = case(device)
    large = testing.weights(2, 40, 33, device=device)
    resized = torch.nn.functional.interpolate(
        large[:, None], (7, 10), mode="bilinear", align_corners=True
    )[:, 0]
    expected = pk.prior_mask(query, support, resized, backend=backend)
    assert torch.equal(pk.prior_mask(query, support, large, backend=backend), expected)


@pytest.mark.parametrize("backend", ALL)
def test_empty_priors(backend, device):
    query, support, weights = case(device)
    assert pk.prior_mask(query[:0], support[:0], weights[:0], backend=backend).shape == (0, 9, 12)
    assert pk.prior_mask(query[..., :0], support, weights, backend=backend).shape == (2, 9, 0)
    leaves = [x.detach().requires_grad_() for x in (query, support[..., :0], weights[..., :0])]
    found = pk.prior_mask(*leaves, backend=backend)
    assert not found.any()
    assert all(not g.any() for g in torch.autograd.grad(found.sum(), leaves))


# ---- sampled references ----


def picture(device="cpu", dtype=torch.float32):
    """Features that name their pixel, and labels: class 3 is absent, class 2 has 5 pixels."""
    labels = testing.random_labels(2, 14, 17, low=-1, high=2).to(device)
    labels[:, 0, :5] = 2
    places = torch.arange(2 * 14 * 17, device=device, dtype=dtype).view(2, 1, 14, 17)
    return torch.cat([places, -places], 1), labels


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("num", [1, 5, 20, 300])
def test_samples_are_distinct_pixels_of_their_class(num, backend, device):
    features, labels = picture(device)
    drawn, drawn_labels = pk.sample_reference(features, labels, 4, num, backend=backend)
    assert drawn.shape == (2, 2, 4 * num)
    assert drawn_labels.dtype == torch.int64
    for image in range(2):
        for c in range(4):
            part = slice(c * num, (c + 1) * num)
            count = min(int((labels[image] == c).sum()), num)
            expected = torch.full((num,), -1, device=device)
            expected[:count] = c
            assert torch.equal(drawn_labels[image, part], expected)
            values, negated = drawn[image, :, part]
            assert torch.equal(values, -negated)
            assert not values[count:].any()
            assert len(values[:count].unique()) == count
            own = features[image, 0][labels[image] == c]
            assert torch.isin(values[:count], own).all()


@pytest.mark.parametrize("backend", ALL)
def test_samples_are_uniform_and_in_random_order(backend, device):
    """Inclusion and order of 7 of 40 pixels, and of all orders of 3, over many images at once."""
    images, pixels, num = 4000, 40, 7
    labels = torch.zeros(images, 1, pixels, dtype=torch.int64, device=device)
    features = torch.arange(1.0, pixels + 1, device=device).expand(images, 1, 1, pixels)
    generator = torch.Generator(device).manual_seed(3)
    drawn, _ = pk.sample_reference(features, labels, 1, num, generator=generator, backend=backend)
    places = drawn[:, 0].long().cpu().numpy() - 1
    for column in range(num):
        counts = np.bincount(places[:, column], minlength=pixels)
        assert stats.chisquare(counts).pvalue > 1e-4
    # neighbouring draws are independent: every ordered pair is as likely
    pairs = np.bincount(places[:, 0] * pixels + places[:, 1], minlength=pixels**2)
    pairs = pairs.reshape(pixels, pixels)[~np.eye(pixels, dtype=bool)]
    assert stats.chisquare(pairs).pvalue > 1e-4
    orders, _ = pk.sample_reference(
        features[..., :3], labels[..., :3], 1, 3, generator=generator, backend=backend
    )
    codes = (orders[:, 0] * torch.tensor([16.0, 4.0, 1.0], device=device)).sum(1)
    found, counts = np.unique(codes.cpu().numpy(), return_counts=True)
    assert len(found) == 6
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("backend", ALL)
def test_classes_and_images_are_drawn_independently(backend, device):
    labels = torch.arange(2, device=device).repeat_interleave(30).expand(3000, 1, 60)
    features = torch.arange(60.0, device=device).expand(3000, 1, 1, 60)
    drawn, _ = pk.sample_reference(features, labels, 2, 1, backend=backend)
    first, second = drawn[:, 0].long().cpu().numpy().T
    table = np.bincount(first * 30 + second - 30, minlength=900)
    assert stats.chisquare(table).pvalue > 1e-4
    follows = np.bincount(first[:-1] * 30 + first[1:], minlength=900)
    assert stats.chisquare(follows).pvalue > 1e-4


@pytest.mark.parametrize("backend", ALL)
def test_the_generator_decides(backend, device):
    features, labels = picture(device)

    def draw(seed):
        generator = torch.Generator(device).manual_seed(seed)
        return pk.sample_reference(features, labels, 3, 20, generator=generator, backend=backend)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_ranks_of_large_classes_are_distinct():
    counts = torch.tensor([[0, 1, 2, 255, 256, 257, 100_000, 2**31 - 1]])
    ranks = torch.ops.pixelkernels.sample_ranks(counts, torch.tensor([2**62 + 5]), 5000)
    for count, row in zip(counts[0].tolist(), ranks[0], strict=True):
        drawn = min(count, 5000)
        assert (row[drawn:] == -1).all()
        assert ((row[:drawn] >= 0) & (row[:drawn] < count)).all()
        assert len(row[:drawn].unique()) == drawn


@pytest.mark.parametrize("backend", ALL)
def test_the_gradient_goes_to_the_pixels_drawn(backend, device):
    features, labels = picture(device)
    features.requires_grad_()
    drawn, drawn_labels = pk.sample_reference(features, labels, 3, 20, backend=backend)
    (gradient,) = torch.autograd.grad(drawn.square().sum() / 2, features)
    taken = gradient[:, 0] != 0
    assert torch.equal(gradient[:, 0][taken], features[:, 0][taken])
    # pixel 0 names itself 0, which squares to nothing
    first = int((labels[0, 0, 0] == 2).item())
    assert taken.sum() + first == (drawn_labels >= 0).sum()


@pytest.mark.parametrize("backend", ALL)
def test_empty_images_have_no_samples(backend, device):
    features = torch.zeros(2, 3, 0, 5, device=device)
    labels = torch.zeros(2, 0, 5, dtype=torch.uint8, device=device)
    drawn, drawn_labels = pk.sample_reference(features, labels, 2, 4, backend=backend)
    assert not drawn.any()
    assert (drawn_labels == -1).all()
    none, _ = pk.sample_reference(features[:0], labels[:0], 2, 4, backend=backend)
    assert none.shape == (0, 3, 8)
