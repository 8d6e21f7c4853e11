"""What holds for regions alone: mining, absent regions, NaN, and digits far from 0."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.regions import ops
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees
from tests.helpers import INTERPRETED, Sample, backends, first_quick, sampled

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")


def inputs(shape, device="cpu"):
    """Features and labels of two images: random ones, some outside the range, and runs of one."""
    regions, channels, height, width = shape
    labels = testing.random_labels(2, height, width, low=-1, high=regions + 1)
    labels[1, : height // 2] = 1
    return testing.features(2, channels, height, width, device=device), labels.to(device)


@sampled("cpu", "triton", "cuda", when=lambda op, case: "mined" in case.unstable)
def test_mining_is_exact_on_exact_values(sample, backend, device):
    # small integers and class counts of a power of two keep means and scores exact, ties included
    generator = torch.Generator().manual_seed(0)
    f = torch.randint(-2, 3, (3, 4, 16, 24), generator=generator).float()
    labels = torch.full((3, 16, 24), 2)
    order = torch.randperm(16 * 24, generator=generator)
    for image, (background, foreground) in enumerate(((64, 64), (256, 32), (16, 128))):
        labels[image].view(-1)[order[:background]] = 0
        labels[image].view(-1)[order[background : background + foreground]] = 1
    call = sample.call(device=device)
    if call.arguments.get("normalize"):
        pytest.skip("unit vectors are not exact")
    call = call.replaced(features=f.to(device), mask=labels.to(device))
    oracle = call.double().results("eager")
    for name, x in call.results(backend).items():
        torch.testing.assert_close(x.double(), oracle[name], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", ["region_stats", "discriminative_loss"])
def test_more_regions_than_a_program_holds(name, backend, device):
    op = OPS[name]
    sample = Sample(op, op.quick_cases[-1])
    call = sample.call({**op.sizes.tiny, "B": 1, "C": 1, "H": 13, "W": 21, "R": 300}, device)
    assert_agrees(call, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("regions", [1, 3, 7, 40])
def test_few_channels(regions, dtype):
    for channels in (0, 1, 2, 3):
        dims = {"B": 2, "C": channels, "H": 33, "W": 35, "R": regions}
        assert_agrees(Sample(OPS["region_stats"], "").call(dims, dtype=dtype), "cpu")


# their rows and the static variables of a block are just above what it has without opting in
@pytest.mark.parametrize("channels", [1536, 3071, 6142, 12285])
@pytest.mark.parametrize("backend", backends("cpu", "cuda"))
def test_means_of_many_channels_push_each_other(channels, backend, device):
    call = Sample(OPS["discriminative_loss"], "cluster").call(
        {"B": 1, "C": channels, "H": 2, "W": 5, "R": 3}, device
    )
    assert_agrees(call, backend)


@pytest.mark.parametrize("backend", ALL)
def test_absent_regions_are_zero_and_leave_the_losses(backend, device):
    f, labels = inputs((4, 3, 9, 11), device)
    stats = pk.region_stats(f, labels * 2, 9, backend=backend)
    absent = stats.count == 0
    assert absent[:, 1::2].all()
    assert (stats.mean[absent] == 0).all()
    assert (stats.variance[absent] == 0).all()
    for loss in (pk.cas_loss, pk.discriminative_loss):
        sparse = loss(f, labels * 2, 9, backend=backend)
        torch.testing.assert_close(sparse, loss(f, labels, 5, backend=backend))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_reaches_only_what_its_pixel_enters(bad, backend, device):
    f, labels = inputs((4, 10, 20, 30), device)
    labels[0, 3, 4], labels[0, 8, 8] = 2, -1
    clean = pk.region_stats(f, labels, 4, backend=backend)
    f[0, 1, 3, 4] = bad
    f[0, :, 8, 8] = bad
    f.requires_grad_()
    stats = pk.region_stats(f, labels, 4, backend=backend)
    touched = torch.zeros_like(clean.mean, dtype=torch.bool)
    touched[0, 2, 1] = True
    assert torch.equal(~stats.mean.isfinite(), touched)
    assert torch.equal(~stats.variance.isfinite(), touched.any(2))
    assert torch.equal(stats.mean[~touched], clean.mean[~touched])
    loss = stats.mean.square().sum((0, 2)) + stats.variance.sum(0)
    (gradient,) = torch.autograd.grad(loss.sum(), f)
    in_region = (labels == 2)[:, None] & (torch.arange(2, device=device) == 0)[:, None, None, None]
    assert gradient[~in_region.expand_as(gradient)].isfinite().all()
    assert (gradient[0, :, 8, 8] == 0).all()


@pytest.mark.parametrize("backend", ALL)
def test_nan_of_weight_zero_stays_in_its_distance(backend, device):
    f, _ = inputs((2, 6, 20, 22), device)
    w = testing.weights(2, 20, 22, device=device)
    w[:, 5:9] = 0
    f[:, :, 6] = torch.nan
    distance = pk.background_distance(f, w, backend=backend)
    row = torch.arange(20, device=device)[:, None].expand(20, 22)
    assert torch.equal(distance.isnan().any(0), row == 6)


@pytest.mark.parametrize("backend", COMPILED)
def test_unused_distance_has_no_gradient_even_if_it_is_nan(backend, device):
    f, _ = inputs((2, 6, 20, 22), device)
    w = testing.weights(2, 20, 22, device=device)
    w[:, 5:9] = 0
    f[:, :, 6] = torch.nan
    f.requires_grad_(), w.requires_grad_()
    distance = pk.background_distance(f, w, backend=backend)
    gradients = torch.autograd.grad(distance[:, 10:].sum(), (f, w))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[1][:, 6] == 0).all()
    assert (gradients[1][:, 5] != 0).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("eps", [0.0, 5e-4])
def test_gradient_in_a_weight_of_zero_is_the_derivative(eps, backend, device):
    f, _ = inputs((2, 5, 12, 14), device)
    w = testing.weights(2, 12, 14, device=device)
    w[:, ::2] = 0
    w[1] = 0
    w.requires_grad_()
    cotangent = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], device=device)
    pooled = pk.masked_average_pool(f, w, eps=eps, backend=backend)
    (gradient,) = torch.autograd.grad((pooled * cotangent).sum(), w)
    pulls = torch.einsum("bchw,c->bhw", f - pooled.detach()[..., None, None], cotangent)
    divisor = w.detach().sum((1, 2), keepdim=True) + eps
    expected = torch.where(divisor == 0, 0, pulls / divisor)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
def test_gradcheck_with_weights_of_zero(backend):
    f = testing.features(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    w = testing.weights(2, 4, 5, dtype=torch.float64)
    w[:, 1:3] = 0
    w.requires_grad_()
    # the operators of the oracle, since the others refuse the negative weights of a difference
    # quotient
    for op, option in (
        (ops.weighted_mean, 0.0),
        (ops.weighted_mean, 1e-2),
        (ops.background_distance, False),
        (ops.background_distance, True),
    ):

        def run(backend, f, w, op=op, option=option):
            return op(backend, f, w, option)[0]

        assert torch.autograd.gradcheck(partial(run, "eager"), (f, w))
        value = run("eager", f, w)
        cotangent = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
        expected = torch.autograd.grad(value, (f, w), cotangent)
        found = torch.autograd.grad(run(backend, f, w), (f, w), cotangent)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ALL)
def test_gradient_in_a_weight_of_zero_is_zero_if_a_feature_is_not_finite(backend, device):
    f, _ = inputs((2, 6, 20, 22), device)
    w = testing.weights(2, 20, 22, device=device)
    w[:, 5:9] = 0
    clean = pk.masked_average_pool(f, w, backend=backend)
    f[0, 1, 6], f[1, 2, 6, 3] = torch.nan, torch.inf
    f.requires_grad_(), w.requires_grad_()
    pooled = pk.masked_average_pool(f, w, backend=backend)
    assert torch.equal(pooled, clean)
    # also where the cotangent of that feature is 0
    gradients = torch.autograd.grad(pooled[:, 0].sum(), (f, w))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[1][0, 6] == 0).all()
    assert gradients[1][1, 6, 3] == 0
    assert (gradients[1][:, 5] != 0).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("norm", [1, 2])
def test_background_label_is_left_out_of_everything(norm, backend, device):
    f, labels = inputs((4, 5, 12, 14), device)
    options = {"norm": norm, "backend": backend}
    without = torch.where(labels == 1, -1, labels)
    torch.testing.assert_close(
        pk.discriminative_loss(f, labels, 4, ignore_index=1, **options),
        pk.discriminative_loss(f, without, 4, **options),
    )
    # in the dtype of the labels this number would be 0
    far = pk.discriminative_loss(f, labels.int(), 4, ignore_index=-(2**63), **options)
    assert torch.equal(far, pk.discriminative_loss(f, labels, 4, **options))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", first_quick(*testing.LAYOUTS, when=INTERPRETED))
def test_nearly_constant_regions_keep_their_digits(layout, backend, device):
    labels = testing.coherent_labels(1, 32, 50, 4).to(device)
    level = labels[:, None] * 1e4 + 1e4
    flat = testing.LAYOUTS[layout]((level + 1 / 3).expand(1, 9, 32, 50).float())
    assert (pk.region_stats(flat, labels, 4, backend=backend).variance == 0).all()
    # steps of 1/8 are exact at 4e4, so the true variance is known to the last digit
    steps = testing.random_labels(1, 9, 32, 50, high=9).to(device) / 8
    f = testing.LAYOUTS[layout]((level + steps).float())
    actual = pk.region_stats(f, labels, 4, backend=backend).variance
    oracle = pk.region_stats(f.double(), labels, 4, backend="eager").variance
    torch.testing.assert_close(actual.double(), oracle, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", backends("triton"))
def test_a_far_first_pixel_costs_no_digits(backend, device):
    f, labels = inputs((2, 3, 30, 40), device)
    for region in range(2):
        first = (labels[1] == region).flatten().nonzero()[0]
        f[1].flatten(1)[:, first] = 1e4
    call = Sample(OPS["region_stats"], "").call(device=device)
    assert_agrees(call.replaced(features=f, labels=labels, num_regions=2), backend)


@pytest.mark.parametrize("op", [pk.masked_average_pool, pk.background_distance])
def test_negative_weights_raise_inside_a_compiled_graph(op):
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    weights = torch.ones(2, 45, 51)
    weights[1, -1, -1] = -2  # in the last, incomplete block
    with pytest.raises(ValueError, match=r"^weights: expected no negative value, got -2$"):
        compiled(torch.zeros(2, 3, 45, 51), weights)


@pytest.mark.slow
@pytest.mark.parametrize("backend", COMPILED)
def test_compiles_with_inductor(backend, device):
    torch._dynamo.reset()
    call = Sample(OPS["region_stats"], "").call(device=device, layout="channels_last")
    compiled = call.through(torch.compile(pk.region_stats, fullgraph=True))
    expected = call.results(backend)
    for name, x in compiled.results(backend).items():
        torch.testing.assert_close(x, expected[name])


def test_compact_labels_refuses_meta_tensors():
    # how many labels there are is a value
    with pytest.raises(ValueError, match=r"^labels: .*meta"):
        pk.compact_labels(torch.zeros(1, 2, 3, dtype=torch.int64, device="meta"))
