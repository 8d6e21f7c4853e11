"""What runs under Triton's interpreter, on CPU tensors: test_triton_interpreter.py runs this file.

Every program instance costs milliseconds, so shapes are small; they still have several tiles per
block, blocks per image, and chunks of channels.
"""

from __future__ import annotations

import os

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.regions_cases import (
    MINED,
    SMOOTH,
    WEIGHTED,
    discriminative_l1,
    mean_and_variance,
    normalized,
)

# regions, channels, height, width, and how pixels get their labels
MASK = (2, 16, 24, 23, "runs")
MANY_CHANNELS = (5, 70, 11, 19, "runs")
SHAPES = (MASK, (20, 3, 13, 21, "random"), MANY_CHANNELS)
LAYOUTS = tuple(testing.LAYOUTS)
LABELS = (torch.int64, torch.int32, torch.int16, torch.int8)


def inputs(shape, dtype=torch.float32, layout="contiguous", seed=0):
    regions, channels, height, width, kind = shape
    f = testing.features(2, channels, height, width, dtype=dtype, layout=layout, seed=seed)
    labels = testing.coherent_labels(2, height, width, regions, seed)
    if kind == "random":
        labels = testing.random_labels(2, height, width, low=-1, high=regions + 1, seed=seed)
    labels[0, 0, :5] = -1
    return f, labels, regions, testing.weights(2, height, width)


def value_and_gradients(case, f, labels, regions, w, backend="triton"):
    f = f.detach().requires_grad_()
    leaves = [f]
    if case in WEIGHTED:
        w = w.detach().requires_grad_()
        leaves.append(w)
    out = case(f, labels, regions, w, backend)
    cotangent = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent.view(out.shape))]


def check(case, f, labels, regions, w):
    actual = value_and_gradients(case, f, labels, regions, w)
    plain = value_and_gradients(case, f, labels.long(), regions, w, "eager")
    oracle = value_and_gradients(case, f.double(), labels.long(), regions, w.double(), "eager")
    for a, o, p in zip(actual, oracle, plain, strict=True):
        assert a.dtype == p.dtype
        # NumPy adds a tile's pixels one after the other, a GPU in a tree: twice the budget here
        testing.assert_within_budget((a.double() + o) / 2, o, p, case.__name__)


def test_runs_under_the_interpreter():
    assert os.environ.get("TRITON_INTERPRET") == "1"
    assert "triton" in pk.available_backends()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case.__name__)
def test_the_gradient_is_the_same_for_weights_without_one(case, shape):
    f, labels, regions, w = inputs(shape, layout=LAYOUTS[SHAPES.index(shape) % len(LAYOUTS)])
    _, expected, _ = value_and_gradients(case, f, labels, regions, w)
    leaf = f.detach().requires_grad_()
    out = case(leaf, labels, regions, w, "triton")
    cotangent = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype)
    (gradient,) = torch.autograd.grad(out, leaf, cotangent.view(out.shape))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_matches_the_oracle(case, shape):
    # layouts and label dtypes take turns, so that each case meets several
    turn = SHAPES.index(shape) + SMOOTH.index(case)
    f, labels, regions, w = inputs(shape, layout=LAYOUTS[turn % len(LAYOUTS)])
    check(case, f, labels.to(LABELS[turn // len(LAYOUTS) % len(LABELS)]), regions, w)


@pytest.mark.parametrize("case", [mean_and_variance, discriminative_l1], ids=lambda c: c.__name__)
def test_many_regions(case):
    f, labels, regions, w = inputs((300, 1, 13, 21, "runs"))
    check(case, f[:1], labels[:1], regions, w[:1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_float16_matches_the_oracle(case, layout):
    check(case, *inputs((3, 5, 7, 19, "runs"), torch.float16, layout))


@pytest.mark.parametrize("case", [mean_and_variance, normalized], ids=lambda case: case.__name__)
def test_more_channels_than_a_program_holds(case):
    check(case, *inputs((2, 150, 5, 9, "runs"), layout="channels_last"))


@pytest.mark.parametrize("norm", [1, 2])
def test_discriminative_with_more_channels_than_a_program_holds(norm):
    def case(f, labels, regions, w, backend):
        return pk.discriminative_loss(f, labels, regions, norm=norm, backend=backend)

    check(case, *inputs((3, 150, 5, 9, "runs")))


@pytest.mark.parametrize("case", MINED, ids=lambda case: case.__name__)
def test_mining_matches_the_oracle_on_exact_values(case):
    # small integers and powers of two of pixels keep means and scores exact, ties included
    generator = torch.Generator().manual_seed(0)
    f = torch.randint(-2, 3, (2, 4, 16, 24), generator=generator).float()
    labels = torch.full((2, 16, 24), 2)
    order = torch.randperm(16 * 24, generator=generator)
    for image, (background, foreground) in enumerate(((256, 32), (16, 128))):
        labels[image].view(-1)[order[:background]] = 0
        labels[image].view(-1)[order[background : background + foreground]] = 1
    actual = value_and_gradients(case, f, labels, 2, None)
    oracle = value_and_gradients(case, f.double(), labels, 2, None, "eager")
    for a, o in zip(actual, oracle, strict=True):
        torch.testing.assert_close(a.double(), o, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_unsigned_labels_agree_with_int64(dtype):
    f, labels, _, _ = inputs((2, 5, 13, 17, "runs"))
    labels = labels.clamp(min=0)
    expected = pk.region_stats(f, labels, 2, backend="triton")
    actual = pk.region_stats(f, labels.to(dtype), 2, backend="triton")
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_labels_outside_the_range_are_ignored():
    f, labels, regions, _ = inputs((5, 6, 9, 23, "random"))
    far = labels.clone()
    far[labels == -1] = -(2**62)
    far[labels == regions] = 2**33
    stats, expected = (pk.region_stats(f, x, regions, backend="triton") for x in (far, labels))
    assert all(torch.equal(a, e) for a, e in zip(stats, expected, strict=True))
    assert stats.count.sum() == ((labels >= 0) & (labels < regions)).sum()


@pytest.mark.parametrize("case", [*SMOOTH, *MINED], ids=lambda case: case.__name__)
@pytest.mark.parametrize("empty", ["all ignored", "no images", "no pixels"])
def test_nothing_to_compare_is_zero_with_zero_gradient(case, empty):
    f, labels, regions, w = inputs((3, 4, 6, 5, "runs"))
    if empty == "all ignored":
        labels, w = torch.full_like(labels, 7), torch.zeros_like(w)
    elif empty == "no images":
        f, labels, w = f[:0], labels[:0], w[:0]
    else:
        f, labels, w = f[:, :, :0], labels[:, :0], w[:, :0]
    out, *gradients = value_and_gradients(case, f, labels, regions, w)
    # the released MEnet layer counts every image: 4 - 0 each
    expected = 4.0 if case.__name__ == "released" and empty != "no images" else 0.0
    assert (out == expected).all()
    assert all((g == 0).all() for g in gradients)


def test_no_channels():
    f, labels, regions, w = inputs((3, 4, 6, 5, "runs"))
    count = pk.region_stats(f, labels, regions, backend="eager").count
    f = f[:, :0].requires_grad_()
    stats = pk.region_stats(f, labels, regions, backend="triton")
    assert torch.equal(stats.count, count)
    assert (stats.variance == 0).all()
    stats.variance.sum().backward()
    assert f.grad.shape == f.shape
    assert (pk.background_distance(f, w, backend="triton") == 0).all()
    assert pk.masked_average_pool(f, w, backend="triton").shape == (2, 0)
    assert pk.discriminative_loss(f, labels, regions, backend="triton") >= 0


def test_absent_regions_are_zero_and_leave_the_losses():
    f, labels, _, _ = inputs((4, 3, 9, 11, "runs"))
    stats = pk.region_stats(f, labels * 2, 9, backend="triton")
    absent = stats.count == 0
    assert absent[:, 1::2].all()
    assert (stats.mean[absent] == 0).all()
    assert (stats.variance[absent] == 0).all()
    for case in (pk.cas_loss, pk.discriminative_loss):
        sparse = case(f, labels * 2, 9, backend="triton")
        torch.testing.assert_close(sparse, case(f, labels, 5, backend="triton"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_reaches_only_what_its_pixel_enters(bad):
    f, labels, _, _ = inputs((4, 10, 20, 30, "runs"))
    labels[0, 3, 4], labels[0, 8, 8] = 2, -1
    clean = pk.region_stats(f, labels, 4, backend="triton")
    f[0, 1, 3, 4] = bad
    f[0, :, 8, 8] = bad
    f.requires_grad_()
    stats = pk.region_stats(f, labels, 4, backend="triton")
    touched = torch.zeros_like(clean.mean, dtype=torch.bool)
    touched[0, 2, 1] = True
    assert torch.equal(~stats.mean.isfinite(), touched)
    assert torch.equal(~stats.variance.isfinite(), touched.any(2))
    assert torch.equal(stats.mean[~touched], clean.mean[~touched])
    loss = stats.mean.square().sum((0, 2)) + stats.variance.sum(0)
    (gradient,) = torch.autograd.grad(loss.sum(), f)
    in_region = (labels == 2)[:, None] & (torch.arange(2) == 0)[:, None, None, None]
    assert gradient[~in_region.expand_as(gradient)].isfinite().all()
    assert (gradient[0, :, 8, 8] == 0).all()


@pytest.mark.parametrize("norm", [1, 2])
def test_background_label_is_left_out_of_everything(norm):
    f, labels, _, _ = inputs((4, 5, 12, 14, "runs"))
    options = {"norm": norm, "backend": "triton"}
    expected = pk.discriminative_loss(f, torch.where(labels == 1, -1, labels), 4, **options)
    in_background = (labels == 1)[:, None].expand_as(f)
    f[in_background] = torch.nan
    f.requires_grad_()
    loss = pk.discriminative_loss(f, labels, 4, background=1, **options)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, f)
    assert (gradient[in_background] == 0).all()
    assert gradient.isfinite().all()


def test_pixels_of_weight_zero_do_not_enter():
    f, _, _, w = inputs((2, 6, 20, 22, "runs"))
    w[:, 5:9] = 0
    clean = pk.masked_average_pool(f, w, backend="triton")
    f[:, :, 6] = torch.nan
    f.requires_grad_(), w.requires_grad_()
    pooled = pk.masked_average_pool(f, w, backend="triton")
    torch.testing.assert_close(pooled, clean)
    gradients = torch.autograd.grad(pooled.sum(), (f, w))
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[1][:, 5:9] == 0).all()
    distance = pk.background_distance(f, w, backend="triton")
    row = torch.arange(20)[:, None].expand(20, 22)
    assert torch.equal(distance.isnan().any(0), row == 6)
    # a distance that is not used has no gradient, NaN or not
    gradients = torch.autograd.grad(distance[:, 10:].sum(), (f, w))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nearly_constant_regions_keep_their_digits(layout):
    labels = testing.coherent_labels(1, 32, 50, 4)
    level = labels[:, None] * 1e4 + 1e4
    flat = testing.LAYOUTS[layout]((level + 1 / 3).expand(1, 9, 32, 50).float())
    assert (pk.region_stats(flat, labels, 4, backend="triton").variance == 0).all()
    # steps of 1/8 are exact at 4e4, so the true variance is known to the last digit
    steps = testing.random_labels(1, 9, 32, 50, high=9) / 8
    f = testing.LAYOUTS[layout]((level + steps).float())
    actual = pk.region_stats(f, labels, 4, backend="triton").variance
    oracle = pk.region_stats(f.double(), labels, 4, backend="eager").variance
    torch.testing.assert_close(actual.double(), oracle, rtol=1e-6, atol=0)


def test_a_far_first_pixel_costs_no_digits():
    f, labels, regions, w = inputs((2, 3, 30, 40, "runs"))
    for region in range(regions):
        first = (labels[1] == region).flatten().nonzero()[0]
        f[1].flatten(1)[:, first] = 1e4
    check(mean_and_variance, f, labels, regions, w)


@pytest.mark.parametrize("case", [*SMOOTH, *MINED], ids=lambda case: case.__name__)
def test_same_bits_on_every_run(case):
    arguments = inputs((6, 3, 20, 17, "runs"))
    first = value_and_gradients(case, *arguments)
    again = value_and_gradients(case, *arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.keeps_memory
@pytest.mark.parametrize("case", [*SMOOTH, MINED[0]], ids=lambda case: case.__name__)
def test_offsets_past_two_to_the_31(case):
    # pages of the allocation that no pixel lies in are never touched
    stride = 2**31
    storage = torch.empty(stride + 4096, dtype=torch.float16)
    f = storage.as_strided((1, 2, 8, 16), (stride, stride, 16, 1))
    f.copy_(testing.features(1, 2, 8, 16, dtype=torch.float16))
    labels = testing.random_labels(1, 8, 16, high=3)
    w = testing.weights(1, 8, 16)
    narrow = value_and_gradients(case, f.contiguous(), labels, 3, w)
    wide = value_and_gradients(case, f, labels, 3, w)
    for a, e in zip(wide, narrow, strict=True):
        torch.testing.assert_close(a, e)
