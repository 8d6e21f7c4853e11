"""The triplet family on every backend: against torch's triplet_margin_loss, and against chance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from scipy import stats

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import backends
from tests.triplet_cases import drawn, hinges_and_gradient, inputs, literal, literal_mean

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")


@settings(deadline=None, max_examples=80)
@given(drawn())
def test_cpu_and_eager_are_the_formula(case):
    (features, *sets), options = case
    leaf = features.requires_grad_()
    expected = literal(leaf, *sets, **options)
    loss = literal_mean(leaf, *sets, **options)
    (gradient,) = torch.autograd.grad(loss, leaf)
    there = torch.stack(sets).amin(0) >= 0
    for backend in ("eager", "cpu"):
        found = pk.triplet_hinge(leaf, *sets, reduction="none", backend=backend, **options)
        assert (found[~there] == 0).all()
        for rows, image, wanted in zip(there, found, expected, strict=True):
            torch.testing.assert_close(image[rows], wanted, rtol=1e-11, atol=1e-11)
        mean = pk.triplet_hinge(leaf, *sets, backend=backend, **options)
        torch.testing.assert_close(mean, loss, rtol=1e-11, atol=1e-11)
        total = pk.triplet_hinge(leaf, *sets, reduction="sum", backend=backend, **options)
        torch.testing.assert_close(total, found.sum(), rtol=1e-11, atol=1e-11)
        (mine,) = torch.autograd.grad(mean, leaf)
        torch.testing.assert_close(mine, gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_matches_the_oracle_in_every_dtype_and_layout(dtype, layout, squared, backend, device):
    if backend == "triton" and dtype == torch.float64:
        return
    features, *sets = inputs(dtype, device, layout)
    options = {"margin": 1.5, "squared": squared}
    actual = hinges_and_gradient(features, sets, backend, **options)
    oracle = hinges_and_gradient(features.double(), sets, "eager", **options)
    plain = hinges_and_gradient(features, sets, "eager", **options)
    for a, o, p, name in zip(actual, oracle, plain, ("hinge", "gradient"), strict=True):
        assert a.dtype == p.dtype
        testing.assert_within_budget(a, o, p, name)
    if layout != "cropped":
        assert actual[1].stride() == features.stride()


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_larger_than_the_caches(dtype, layout):
    # planes and pixels that begin anywhere in a cache line
    features, *sets = inputs(dtype, layout=layout, shape=(2, 21, 641, 707), rows=3000)
    assert features.nbytes > 32 << 20
    _, actual = hinges_and_gradient(features, sets, "cpu")
    _, oracle = hinges_and_gradient(features.double(), sets, "eager")
    _, plain = hinges_and_gradient(features, sets, "eager")
    testing.assert_within_budget(actual, oracle, plain, "gradient")
    assert torch.equal(actual == 0, oracle == 0)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("channels", [0, 1, 7, 64, 200])
@pytest.mark.parametrize("rows", [0, 1, 700])
def test_sizes(channels, rows, backend, device):
    features, *sets = inputs(device=device, shape=(2, channels, 11, 17), rows=max(rows, 150))
    sets = [index[:, :rows] for index in sets]
    actual = hinges_and_gradient(features, sets, backend)
    oracle = hinges_and_gradient(features.double(), sets, "eager")
    for a, o in zip(actual, oracle, strict=True):
        torch.testing.assert_close(a.double(), o, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_indices_of_every_dtype(dtype, backend, device):
    features, *sets = inputs(device=device)
    sets = [index.clamp(min=0) for index in sets]
    expected = pk.triplet_hinge(features, *sets, backend=backend)
    narrow = [index.to(dtype) for index in sets]
    assert torch.equal(pk.triplet_hinge(features, *narrow, backend=backend), expected)


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
@pytest.mark.parametrize("squared", [False, True])
def test_gradcheck(squared, backend, device):
    features, *sets = inputs(torch.float64, device, shape=(2, 3, 5, 6), rows=30)
    sets = [index.clamp(max=29) for index in sets]

    def loss(f):
        return pk.triplet_hinge(f, *sets, squared=squared, margin=0.7, eps=1e-3, backend=backend)

    assert torch.autograd.gradcheck(loss, features.requires_grad_())
    mask = testing.random_labels(2, 5, 6, high=2)

    def whole(f):
        torch.manual_seed(0)
        return pk.is_triplet_loss(f, mask, num_samples=7, squared=squared, backend=backend)

    assert torch.autograd.gradcheck(whole, features)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_the_same_pixel_twice_has_a_finite_gradient(eps, backend, device):
    features = testing.features(1, 5, 3, 4, device=device).requires_grad_()
    one = torch.tensor([[7]], device=device)
    loss = pk.triplet_hinge(features, one, one, one, eps=eps, backend=backend)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss == 3
    assert (gradient == 0).all()


@pytest.mark.parametrize("backend", ALL)
def test_the_gradient_at_the_kink_is_that_of_torch(backend, device):
    """d(a, p) = 1, d(a, n) = 3 and margin 2: the hinge is exactly 0, and active."""
    values = torch.tensor([[0.0, 1, 3]], device=device)[None, :, None].requires_grad_()
    sets = [torch.tensor([[i]], device=device) for i in range(3)]
    loss = pk.triplet_hinge(values, *sets, margin=2.0, eps=0.0, backend=backend)
    expected = literal_mean(values, *sets, margin=2.0, eps=0.0)
    assert loss == expected == 0
    found, wanted = (torch.autograd.grad(x, values)[0] for x in (loss, expected))
    torch.testing.assert_close(found, wanted)
    assert wanted.abs().sum() > 0


@pytest.mark.parametrize("backend", ALL)
def test_without_rows_it_is_zero_with_zero_gradient(backend, device):
    features, *sets = inputs(device=device)
    features.requires_grad_()
    absent = [index.clamp(max=-1) for index in sets]
    for empty in (absent, [index[:, :0] for index in sets]):
        loss = pk.triplet_hinge(features, *empty, backend=backend)
        assert loss == 0
        assert (torch.autograd.grad(loss, features)[0] == 0).all()
    for mask in (torch.zeros, torch.ones):
        whole = mask(3, 9, 13, dtype=torch.bool, device=device)
        loss = pk.is_triplet_loss(features, whole, backend=backend)
        assert loss == 0
        assert (torch.autograd.grad(loss, features)[0] == 0).all()
    none = features[:0]
    loss = pk.is_triplet_loss(none, torch.zeros(0, 9, 13, device=device).long(), backend=backend)
    assert loss == 0


@pytest.mark.parametrize("backend", ALL)
def test_absent_rows_read_nothing(backend, device):
    features, *sets = inputs(device=device)
    used = torch.zeros(3, 9 * 13, dtype=torch.bool, device=device)
    there = torch.stack(sets).amin(0) >= 0
    for index in sets:
        used.scatter_(1, torch.where(there, index, index.new_tensor(5)), True)
    used[:, 5] = False
    for index in sets:
        for b in range(3):
            used[b, index[b, there[b]]] = True
    dirty = features.masked_fill(~used.view(3, 1, 9, 13), torch.nan)
    clean, found = (hinges_and_gradient(f, sets, backend) for f in (features, dirty))
    assert all(torch.equal(a, b) for a, b in zip(clean, found, strict=True))


def test_an_index_past_the_last_pixel_raises():
    features, *sets = inputs()
    sets[1][0, 1] = 9 * 13
    for backend in ("cpu", "eager"):
        with pytest.raises(ValueError, match="positive: expected pixels below 117, got 117"):
            pk.triplet_hinge(features, *sets, backend=backend)


# ---- sampling ----


def sample(mask, num_samples, seed, backend):
    generator = torch.Generator(mask.device).manual_seed(seed)
    return pk.sample_pixels(mask, num_samples, generator=generator, backend=backend)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("num_samples", [1, 20, 64, 65, 200])
def test_draws_are_distinct_pixels_of_the_mask(num_samples, backend, device):
    mask = testing.random_labels(5, 9, 13, high=2, seed=3).bool()
    mask[1], mask[2], mask[3] = False, True, False
    mask[3, 8, 12] = True
    for given_mask in (mask.to(device), mask.to(device).int() * 7):
        found = sample(given_mask, num_samples, 4, backend).cpu()
        assert found.shape == (5, num_samples)
        assert found.dtype == torch.int64
        for pixels, inside in zip(found, mask.flatten(1), strict=True):
            count = min(num_samples, int(inside.sum()))
            assert (pixels[count:] == -1).all()
            assert inside[pixels[:count]].all()
            assert len(pixels[:count].unique()) == count


@pytest.mark.parametrize("backend", ALL)
def test_masks_in_any_strides(backend, device):
    mask = testing.random_labels(2, 13, 9, high=2, seed=3).bool().to(device)
    expected = sample(mask.mT.contiguous(), 30, 1, backend)
    assert torch.equal(sample(mask.mT, 30, 1, backend), expected)


@pytest.mark.parametrize("backend", ALL)
def test_the_same_state_draws_the_same(backend, device):
    mask = testing.random_labels(2, 13, 9, high=2).bool().to(device)
    first, second, other = (sample(mask, 30, seed, backend) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    torch.manual_seed(5)
    first = [pk.sample_pixels(mask, 30, backend=backend) for _ in range(2)]
    torch.manual_seed(5)
    second = [pk.sample_pixels(mask, 30, backend=backend) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(*first)


@pytest.mark.parametrize("backend", ALL)
def test_draws_are_uniform_in_random_order_and_independent(backend, device):
    """12 of 30 pixels, in 4 images and 1500 calls, without a generator's help from call to call."""
    images, calls, count, num = 4, 1500, 30, 12
    mask = torch.zeros(images, 6, 10, dtype=torch.bool, device=device)
    mask[:, :, ::2] = True
    generator = torch.Generator(device).manual_seed(11)
    draws = [
        pk.sample_pixels(mask, num, generator=generator, backend=backend) for _ in range(calls)
    ]
    ranks = torch.stack(draws).cpu() // 2  # [calls, images, num], in 0 ... 29
    flat = ranks.flatten(0, 1)

    def p_value(counts):
        return stats.chisquare(counts.flatten().numpy()).pvalue

    # every pixel as often, at every place of the order as often
    at = torch.stack([torch.bincount(flat[:, i], minlength=count) for i in range(num)])
    assert p_value(at[0]) > 1e-4
    assert p_value(at[num - 1]) > 1e-4
    # inclusion without replacement varies less than chi-square's: only far too much is wrong
    included = at.sum(0).double()
    expected = flat.shape[0] * num / count
    spread = math.sqrt(expected * (1 - num / count))
    assert ((included - expected).abs() < 5 * spread).all()
    # of two drawn pixels the first is the smaller one half of the time
    smaller = (flat[:, 0] < flat[:, 1]).sum().item()
    assert stats.binomtest(smaller, len(flat)).pvalue > 1e-4
    # pairs of places, of images and of calls: no more alike than chance has it
    for a, b, space in (
        (ranks[:, 0, 0], ranks[:, 1, 0], count * count),
        (ranks[:-1, 0, 0], ranks[1:, 0, 0], count * count),
    ):
        together = torch.bincount(a * count + b, minlength=space)
        assert p_value(together) > 1e-4
    same = (ranks[:, 0, 0] == ranks[:, 2, 0]).sum().item()
    assert stats.binomtest(same, calls, 1 / count).pvalue > 1e-4


# ---- the whole loss ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("squared", [False, True])
def test_the_loss_is_its_composition(squared, backend, device):
    mask = testing.coherent_labels(3, 20, 30, 3).to(device) == 1
    mask[2] = True  # no background
    features = testing.features(3, 8, 20, 30, device=device).requires_grad_()
    options = {"squared": squared, "margin": 2.0, "backend": backend}
    generator = torch.Generator(device).manual_seed(3)
    loss = pk.is_triplet_loss(features, mask, num_samples=90, generator=generator, **options)
    generator.manual_seed(3)
    f1, f2, b1, b2 = (
        pk.sample_pixels(m, 90, generator=generator, backend=backend)
        for m in (mask, mask, ~mask, ~mask)
    )
    one, other = (
        pk.triplet_hinge(features, *sets, **options) for sets in ((f1, f2, b1), (b1, b2, f2))
    )
    assert torch.equal(loss, 0.5 * (one + other))
    found, expected = (torch.autograd.grad(x, features)[0] for x in (loss, 0.5 * (one + other)))
    torch.testing.assert_close(found, expected)
    oracle = [
        literal_mean(features, *sets, margin=2.0, squared=squared)
        for sets in ((f1, f2, b1), (b1, b2, f2))
    ]
    torch.testing.assert_close(loss, 0.5 * sum(oracle))


@pytest.mark.parametrize("backend", ALL)
def test_what_is_neither_0_nor_1_is_on_neither_side(backend, device):
    mask = torch.full((1, 4, 5), 2, device=device)
    mask[0, 0, 0], mask[0, 1, 1] = 1, 0
    x = testing.features(1, 3, 4, 5, device=device).requires_grad_()
    pk.is_triplet_loss(x, mask, margin=50.0, backend=backend).backward()
    assert (x.grad != 0).any(1)[0].nonzero().tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("backend", ALL)
def test_rows_are_as_many_as_the_smaller_side_has(backend, device):
    """All foreground pixels are 0, all of the background 1: each hinge is margin - sqrt(C)."""
    mask = torch.zeros(2, 8, 8, dtype=torch.int64, device=device)
    mask[0, :2], mask[1, 1, 1] = 1, 1
    features = (1 - mask)[:, None].expand(-1, 4, -1, -1).float().contiguous()
    loss = pk.is_triplet_loss(features, mask, num_samples=50, margin=5.0, eps=0.0, backend=backend)
    torch.testing.assert_close(loss.cpu(), torch.tensor(3.0))
