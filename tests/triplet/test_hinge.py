"""The hinge against torch's triplet_margin_loss, and the loss against the hinges it is made of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import triplet_margin_loss

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees
from pixelkernels.triplet import ops
from tests.helpers import Sample, assert_same, backends, not_interpreted

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")
HINGE = Sample(OPS["triplet_hinge"], "rows")


def literal(features, anchor, positive, negative, margin=3.0, squared=False, eps=1e-6):
    """The hinges of the rows whose three pixels are present: a tensor per image."""
    images = []
    for pixels, *sets in zip(features.flatten(2).mT, anchor, positive, negative, strict=True):
        present = torch.stack(sets).amin(0) >= 0
        a, p, n = (pixels[index[present].long()] for index in sets)
        if squared:
            hinge = ((a - p).square().sum(1) - (a - n).square().sum(1) + margin).clamp(min=0)
        elif present.any():
            hinge = triplet_margin_loss(a, p, n, margin=margin, p=2, eps=eps, reduction="none")
        else:
            hinge = pixels.sum() * 0 + pixels.new_zeros(0)
        images.append(hinge)
    return images


def literal_mean(*arguments, **options):
    """The mean over the rows of an image, then over the images that have any."""
    means = [hinge.mean() for hinge in literal(*arguments, **options) if len(hinge)]
    return torch.stack(means).mean() if means else arguments[0].sum() * 0


@st.composite
def drawn(draw: st.DrawFn):
    """Small problems in float64: features and three sets, and options."""
    batch, channels = draw(st.integers(0, 3)), draw(st.integers(1, 20))
    size = (draw(st.integers(1, 6)), draw(st.integers(1, 30)))
    rows = draw(st.integers(0, 600))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    features = torch.randn(batch, channels, *size, generator=generator).double()
    least = draw(st.sampled_from((0, -2)))
    sets = torch.randint(least, size[0] * size[1], (3, batch, rows), generator=generator)
    options = {
        "margin": draw(st.sampled_from((0.1, 3.0, 50.0))),
        "squared": draw(st.booleans()),
        "eps": draw(st.sampled_from((0.0, 1e-6, 0.1))),
    }
    return (features, *sets), options


@settings(max_examples=80)
@given(drawn())
def test_hinge_is_the_formula(case):
    (features, *sets), options = case
    leaf = features.requires_grad_()
    expected = literal(leaf, *sets, **options)
    loss = literal_mean(leaf, *sets, **options)
    (gradient,) = torch.autograd.grad(loss, leaf)
    present = torch.stack(sets).amin(0) >= 0
    for backend in ("eager", "cpu"):
        found = pk.triplet_hinge(leaf, *sets, reduction="none", backend=backend, **options)
        assert (found[~present] == 0).all()
        for rows, image, wanted in zip(present, found, expected, strict=True):
            torch.testing.assert_close(image[rows], wanted, rtol=1e-11, atol=1e-11)
        mean = pk.triplet_hinge(leaf, *sets, backend=backend, **options)
        torch.testing.assert_close(mean, loss, rtol=1e-11, atol=1e-11)
        total = pk.triplet_hinge(leaf, *sets, reduction="sum", backend=backend, **options)
        torch.testing.assert_close(total, found.sum(), rtol=1e-11, atol=1e-11)
        (mine,) = torch.autograd.grad(mean, leaf)
        torch.testing.assert_close(mine, gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_gradient_of_a_pixel_to_itself_is_zero(eps, backend, device):
    features = testing.features(1, 5, 3, 4, device=device).requires_grad_()
    one = torch.tensor([[7]], device=device)
    loss = pk.triplet_hinge(features, one, one, one, eps=eps, backend=backend)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss == 3
    assert (gradient == 0).all()


@pytest.mark.parametrize("backend", ALL)
def test_gradient_at_the_kink_is_that_of_torch(backend, device):
    """d(a, p) = 1, d(a, n) = 3 and margin 2: the hinge is exactly 0, and active."""
    values = torch.tensor([[0.0, 1, 3]], device=device)[None, :, None].requires_grad_()
    sets = [torch.tensor([[i]], device=device) for i in range(3)]
    loss = pk.triplet_hinge(values, *sets, margin=2.0, eps=0.0, backend=backend)
    expected = literal_mean(values, *sets, margin=2.0, eps=0.0)
    assert loss == expected == 0
    found, wanted = (torch.autograd.grad(x, values)[0] for x in (loss, expected))
    torch.testing.assert_close(found, wanted)
    assert wanted.abs().sum() > 0


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_image_without_both_sides_costs_nothing(backend, device):
    features = testing.features(3, 8, 9, 13, device=device).requires_grad_()
    for mask in (torch.zeros, torch.ones):
        whole = mask(3, 9, 13, dtype=torch.bool, device=device)
        loss = pk.is_triplet_loss(features, whole, backend=backend)
        assert loss == 0
        assert (torch.autograd.grad(loss, features)[0] == 0).all()


@pytest.mark.parametrize("backend", COMPILED)
def test_a_pixel_may_be_in_every_row(backend, device):
    call = HINGE.call(device=device)
    assert_agrees(call.replaced(anchor=torch.full_like(call.arguments["anchor"], 7)), backend)


@pytest.mark.slow
@pytest.mark.keeps_memory
@pytest.mark.parametrize("backend", backends("triton"))
def test_keys_and_offsets_of_a_batch_past_int32(backend, device):
    """Two images of 2^30 pixels, of which all in a row have one value, against the 50 used."""
    side, used = 2**15, 50
    rows = testing.features(1, 1, side, 1, dtype=torch.float16, device=device)
    large = rows.expand(2, 1, side, side).requires_grad_()
    generator = torch.Generator().manual_seed(3)
    at = torch.randint(side**2, (2, used), generator=generator).to(device)
    small = rows[0, 0, :, 0][at // side][:, None, None].requires_grad_()
    sets = torch.randint(used, (3, 2, 40), generator=generator).to(device)
    gradients = []
    for features, pixels in ((large, [at.gather(1, index) for index in sets]), (small, sets)):
        loss = pk.triplet_hinge(features, *pixels, backend=backend)
        gradients.append(torch.autograd.grad(loss, features)[0].flatten(2))
    found, expected = gradients
    assert torch.equal(found[:, 0].gather(1, at), expected[:, 0])
    assert found.count_nonzero() == expected.count_nonzero() > 0


def test_an_index_past_the_last_pixel_raises():
    features, sets = testing.features(3, 21, 9, 13), torch.zeros(3, 3, 150, dtype=torch.int64)
    sets[1][0, 1] = 9 * 13
    for backend in ("cpu", "eager"):
        with pytest.raises(ValueError, match="positive: expected pixels below 117, got 117"):
            pk.triplet_hinge(features, *sets, backend=backend)


@pytest.mark.parametrize("backend", backends("triton"))
def test_an_index_past_the_last_pixel_is_absent_on_a_device(backend, device, monkeypatch):
    # under the interpreter the tensors are on the CPU, where such an index raises before a launch
    monkeypatch.setattr(ops, "check_pixels", lambda index, *_: index)
    call = HINGE.call(device=device)
    results = []
    for index in (call.first[0, 0].numel(), -1):
        anchor = call.arguments["anchor"].clone()
        anchor[:, 8] = index
        results.append(call.replaced(anchor=anchor).results(backend))
    assert_same(*results)


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("squared", [False, True])
def test_loss_is_the_mean_of_two_hinges(squared, backend, device):
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


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("ignore_index", [-1, 2, 255])
def test_pixels_of_the_ignored_index_are_in_no_set(ignore_index, backend, device):
    mask = torch.full((1, 4, 5), ignore_index, device=device)
    mask[0, 0, 0], mask[0, 1, 1] = 3, 0
    x = testing.features(1, 3, 4, 5, device=device).requires_grad_()
    options = {"margin": 50.0, "ignore_index": ignore_index}
    pk.is_triplet_loss(x, mask, **options, backend=backend).backward()
    assert (x.grad != 0).any(1)[0].nonzero().tolist() == [[0, 0], [1, 1]]


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_the_smaller_side_sets_the_number_of_rows(backend, device):
    """All foreground pixels are 0, all of the background 1: each hinge is margin - sqrt(C)."""
    mask = torch.zeros(2, 8, 8, dtype=torch.int64, device=device)
    mask[0, :2], mask[1, 1, 1] = 1, 1
    features = (1 - mask)[:, None].expand(-1, 4, -1, -1).float().contiguous()
    loss = pk.is_triplet_loss(features, mask, num_samples=50, margin=5.0, eps=0.0, backend=backend)
    torch.testing.assert_close(loss.cpu(), torch.tensor(3.0))


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
def test_more_samples_than_pixels_are_all_pixels(backend):
    features, mask = testing.features(2, 3, 4, 5), testing.random_labels(2, 4, 5, high=2)
    few, all_of_them = (
        pk.is_triplet_loss(
            features,
            mask,
            num_samples=n,
            generator=torch.Generator().manual_seed(3),
            backend=backend,
        )
        for n in (20, 2**62)
    )
    assert few > 0
    assert torch.equal(few, all_of_them)
