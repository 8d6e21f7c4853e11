"""The regions family on every backend against its float64 reference, and what every op promises."""

from __future__ import annotations

import itertools

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import backends
from tests.regions_cases import MINED, NORMALIZED, SMOOTH, WEIGHTED, mean_and_variance, normalized

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# regions, channels, height, width
SHAPES = ((2, 1, 5, 7), (20, 3, 16, 9), (2, 16, 24, 23), (300, 21, 20, 33), (5, 70, 30, 31))
COMPILED = backends("cpu", "triton", "cuda")


def inputs(shape, dtype, layout, device="cpu", seed=0):
    regions, channels, height, width = shape
    f = testing.features(
        2, channels, height, width, dtype=dtype, device=device, layout=layout, seed=seed
    )
    labels = testing.random_labels(2, height, width, low=-1, high=regions + 1, seed=seed)
    labels[1, : height // 2] = 1  # runs of one label as well as single pixels
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    w = testing.weights(2, height, width, device=device, dtype=wide)
    return f, labels.to(device), regions, w


def value_and_gradients(case, f, labels, regions, w, backend, function=None):
    """The result of a case and its gradients in the features and, if they enter, weights."""
    f = f.detach().requires_grad_()
    leaves = [f]
    if case in WEIGHTED:
        w = w.detach().requires_grad_()
        leaves.append(w)
    out = (function or case)(f, labels, regions, w, backend)
    cotangent = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype, device=out.device)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent.view(out.shape))]


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_matches_the_oracle(case, dtype, backend, device):
    if dtype == torch.float64 and backend != "cpu":
        with pytest.raises(pk.BackendUnavailable, match="float64"):
            case(*inputs(SHAPES[0], dtype, "contiguous", device), backend)
        return
    for shape, layout in itertools.product(SHAPES, testing.LAYOUTS):
        if shape[1] == 1 and case in NORMALIZED:
            continue  # unit vectors of one channel are constants: the gradient is 0, and rounding
        f, labels, regions, w = inputs(shape, dtype, layout, device)
        actual = value_and_gradients(case, f, labels, regions, w, backend)
        plain = value_and_gradients(case, f, labels, regions, w, "eager")
        oracle = value_and_gradients(case, f.double(), labels, regions, w.double(), "eager")
        for name, a, o, p in zip(
            ("value", "gradient", "weights"), actual, oracle, plain, strict=False
        ):
            assert a.dtype == p.dtype
            # a loss is a difference of variances and distances, which grow with the channels
            scale = shape[1] if name == "value" and a.dim() == 0 else 0
            testing.assert_within_budget(a, o, p, f"{case.__name__} {name} {shape} {layout}", scale)


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda dtype: str(dtype)[6:])
def test_large_gradients(case, dtype):
    # as large as those whose memory is kept; planes that begin anywhere in a cache line
    f, labels, regions, w = inputs((2, 21, 301, 353), dtype, "contiguous", "cpu")
    assert f.nbytes > 8 << 20
    _, *actual = value_and_gradients(case, f, labels, regions, w, "cpu")
    _, *plain = value_and_gradients(case, f, labels, regions, w, "eager")
    _, *oracle = value_and_gradients(case, f.double(), labels, regions, w.double(), "eager")
    for a, o, p in zip(actual, oracle, plain, strict=True):
        testing.assert_within_budget(a, o, p, case.__name__)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case.__name__)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda dtype: str(dtype)[6:])
def test_the_gradient_is_the_same_for_weights_without_one(case, dtype, backend, device):
    for shape, layout in itertools.product(SHAPES, testing.LAYOUTS):
        f, labels, regions, w = inputs(shape, dtype, layout, device)
        w[0, 0] = 0
        f[0, :, 0, 0], f[0, :, 0, 1] = torch.nan, torch.inf  # where the weight is 0
        gradients = []
        for wants in (True, False):
            leaf = f.detach().requires_grad_()
            out = case(leaf, labels, regions, w.detach().requires_grad_(wants), backend)
            cotangent = torch.linspace(0.5, 1.5, out.numel(), device=device).view(out.shape)
            gradients += torch.autograd.grad(out, leaf, cotangent)
        assert gradients[0].stride() == gradients[1].stride()
        torch.testing.assert_close(*gradients, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("case", MINED, ids=lambda case: case.__name__)
def test_mining_matches_the_oracle_on_exact_values(case, backend, device):
    # small integers and equal class counts of a power of two keep means and scores exact, ties
    # included
    generator = torch.Generator().manual_seed(0)
    f = torch.randint(-2, 3, (3, 4, 16, 24), generator=generator).float()
    labels = torch.full((3, 16, 24), 2)
    order = torch.randperm(16 * 24, generator=generator)
    for image, (background, foreground) in enumerate(((64, 64), (256, 32), (16, 128))):
        labels[image].view(-1)[order[:background]] = 0
        labels[image].view(-1)[order[background : background + foreground]] = 1
    actual = value_and_gradients(case, f.to(device), labels.to(device), 2, None, backend)
    oracle = value_and_gradients(case, f.double(), labels, 2, None, "eager")
    for a, o in zip(actual, oracle, strict=True):
        torch.testing.assert_close(a.cpu().double(), o, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", ["cpu", "eager"])
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_gradcheck(case, backend):
    f, labels, regions, w = inputs((3, 2, 4, 3), torch.float64, "contiguous", seed=3)
    f.requires_grad_()
    if case in WEIGHTED:
        # a weight of exactly 0 has gradient 0 by definition, which differences do not show
        w = w.clamp(min=0.1).requires_grad_()
        torch.autograd.gradcheck(lambda f, w: case(f, labels, regions, w, backend), (f, w))
    else:
        torch.autograd.gradcheck(lambda f: case(f, labels, regions, w, backend), (f,))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("case", [*SMOOTH, *MINED], ids=lambda case: case.__name__)
def test_compiles_whole_with_dynamic_shapes(case, backend, device):
    torch._dynamo.reset()
    # aot_eager traces, fakes and differentiates as inductor does, and saves its minutes of C++
    # compilation
    compiled = torch.compile(case, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((5, 4, 12, 10), (5, 4, 14, 9)):
        f, labels, regions, w = inputs(shape, torch.float32, "contiguous", device)
        actual = value_and_gradients(case, f, labels, regions, w, backend, compiled)
        expected = value_and_gradients(case, f, labels, regions, w, backend)
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("case", [*SMOOTH, *MINED], ids=lambda case: case.__name__)
def test_same_bits_on_every_run_and_thread_count(case, backend, device):
    f, labels, regions, w = inputs((20, 19, 70, 130), torch.float32, "contiguous", device)
    threads = torch.get_num_threads()
    first = value_and_gradients(case, f, labels, regions, w, backend)
    try:
        for count in (1, threads, threads + 1):
            torch.set_num_threads(count)
            again = value_and_gradients(case, f, labels, regions, w, backend)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.bool]
)
def test_label_dtypes_agree_with_int64(dtype, backend, device):
    f, labels, _, _ = inputs((2, 5, 13, 17), torch.float32, "contiguous", device)
    labels = labels.clamp(0, 1) if dtype == torch.bool else labels.clamp(min=0)
    expected = pk.region_stats(f, labels, 2, backend=backend)
    actual = pk.region_stats(f, labels.to(dtype), 2, backend=backend)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_labels_outside_the_range_are_ignored(backend, device):
    f, labels, regions, _ = inputs((5, 6, 19, 23), torch.float32, "contiguous", device)
    far = labels.clone()
    far[labels == -1] = -(2**62)
    far[labels == regions] = 2**33
    stats, expected = (pk.region_stats(f, x, regions, backend=backend) for x in (far, labels))
    assert all(torch.equal(a, e) for a, e in zip(stats, expected, strict=True))
    assert stats.count.sum() == ((labels >= 0) & (labels < regions)).sum()


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
@pytest.mark.parametrize("case", [*SMOOTH, *MINED], ids=lambda case: case.__name__)
@pytest.mark.parametrize("empty", ["all ignored", "no images", "no pixels"])
def test_nothing_to_compare_is_zero_with_zero_gradient(case, empty, backend, device):
    f, labels, regions, w = inputs((3, 4, 6, 5), torch.float32, "contiguous", device)
    if empty == "all ignored":
        labels, w = torch.full_like(labels, 7), torch.zeros_like(w)
    elif empty == "no images":
        f, labels, w = f[:0], labels[:0], w[:0]
    else:
        f, labels, w = f[:, :, :0], labels[:, :0], w[:, :0]
    out, *gradients = value_and_gradients(case, f, labels, regions, w, backend)
    # the released MEnet layer counts every image: 4 - 0 each
    expected = 4.0 if case.__name__ == "released" and empty != "no images" else 0.0
    assert (out == expected).all()
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_absent_regions_are_zero_and_leave_the_losses(backend, device):
    f, labels, _, _ = inputs((4, 3, 9, 11), torch.float32, "contiguous", device)
    stats = pk.region_stats(f, labels * 2, 9, backend=backend)
    absent = stats.count == 0
    assert absent[:, 1::2].all()
    assert (stats.mean[absent] == 0).all()
    assert (stats.variance[absent] == 0).all()
    for case in (pk.cas_loss, pk.discriminative_loss):
        sparse = case(f, labels * 2, 9, backend=backend)
        torch.testing.assert_close(sparse, case(f, labels, 5, backend=backend))


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_nan_reaches_only_what_its_pixel_enters(backend, device):
    f, labels, _, _ = inputs((4, 10, 40, 50), torch.float32, "contiguous", device)
    labels[0, 3, 4], labels[0, 8, 8] = 2, -1
    clean = pk.region_stats(f, labels, 4, backend=backend)
    f[0, 1, 3, 4] = torch.nan
    f[0, :, 8, 8] = torch.nan
    f.requires_grad_()
    stats = pk.region_stats(f, labels, 4, backend=backend)
    touched = torch.zeros_like(clean.mean, dtype=torch.bool)
    touched[0, 2, 1] = True
    assert torch.equal(stats.mean.isnan(), touched)
    assert torch.equal(stats.variance.isnan(), touched.any(2))
    torch.testing.assert_close(stats.mean[~touched], clean.mean[~touched])
    loss = stats.mean.square().sum((0, 2)) + stats.variance.sum(0)
    (gradient,) = torch.autograd.grad(loss.sum(), f)
    in_region = (labels == 2)[:, None] & (torch.arange(2, device=device) == 0)[:, None, None, None]
    assert not gradient[~in_region.expand_as(gradient)].isnan().any()
    assert (gradient[0, :, 8, 8] == 0).all()


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_pixels_of_weight_zero_do_not_enter(backend, device):
    f, _, _, w = inputs((2, 6, 20, 22), torch.float32, "contiguous", device)
    w[:, 5:9] = 0
    clean = pk.masked_average_pool(f, w, backend=backend)
    f[:, :, 6] = torch.nan
    f.requires_grad_(), w.requires_grad_()
    pooled = pk.masked_average_pool(f, w, backend=backend)
    torch.testing.assert_close(pooled, clean)
    gradients = torch.autograd.grad(pooled.sum(), (f, w))
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[1][:, 5:9] == 0).all()
    distance = pk.background_distance(f, w, backend=backend)
    assert torch.equal(
        distance.isnan().any(0), (torch.arange(20, device=device) == 6)[:, None].expand(20, 22)
    )


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_background_label_is_left_out_of_everything(backend, device):
    f, labels, _, _ = inputs((4, 5, 12, 14), torch.float32, "contiguous", device)
    expected = pk.discriminative_loss(f, torch.where(labels == 1, -1, labels), 4, backend=backend)
    far = pk.discriminative_loss(f, labels.int(), 4, background=-(2**63), backend=backend)
    # which in the labels' dtype would be 0
    assert torch.equal(far, pk.discriminative_loss(f, labels, 4, backend=backend))
    f[(labels == 1)[:, None].expand_as(f)] = torch.nan
    f.requires_grad_()
    loss = pk.discriminative_loss(f, labels, 4, background=1, backend=backend)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, f)
    assert (gradient[(labels == 1)[:, None].expand_as(f)] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", testing.LAYOUTS)
def test_nearly_constant_regions_keep_their_digits(layout, backend, device):
    labels = testing.coherent_labels(1, 64, 200, 4).to(device)
    level = labels[:, None] * 1e4 + 1e4
    flat = testing.LAYOUTS[layout](level.expand(1, 9, 64, 200).float())
    assert (pk.region_stats(flat, labels, 4, backend=backend).variance == 0).all()
    # steps of 1/8 are exact at 4e4, so the true variance is known to the last digit
    steps = testing.random_labels(1, 9, 64, 200, high=9).to(device) / 8
    f = testing.LAYOUTS[layout]((level + steps).float())
    actual = pk.region_stats(f, labels, 4, backend=backend).variance
    oracle = pk.region_stats(f.double(), labels, 4, backend="eager").variance
    torch.testing.assert_close(actual.double(), oracle, rtol=1e-6, atol=0)


@pytest.mark.keeps_memory
@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_offsets_past_two_to_the_31(backend, device):
    # pages of the allocation that no pixel lies in are never touched on the CPU
    stride = 2**31
    storage = torch.empty(stride + 4096, dtype=torch.float16, device=device)
    f = storage.as_strided((1, 2, 16, 16), (stride, stride, 16, 1))
    f.copy_(testing.features(1, 2, 16, 16, dtype=torch.float16, device=device))
    labels = testing.random_labels(1, 16, 16, high=3).to(device)
    for case in (mean_and_variance, normalized):
        narrow = value_and_gradients(case, f.contiguous(), labels, 3, None, backend)
        wide = value_and_gradients(case, f, labels, 3, None, backend)
        for a, e in zip(wide, narrow, strict=True):
            torch.testing.assert_close(a, e)


def test_shapes_past_two_to_the_31_on_meta():
    f = torch.empty(8, 64, 2048, 2049, device="meta", dtype=torch.bfloat16)
    labels = torch.empty(8, 2048, 2049, device="meta", dtype=torch.uint8)
    for name in ("region_stats", "region_stats_triton"):
        op = getattr(torch.ops.pixelkernels, name)
        count, mean, variance = op(f, labels, 100, False)
        assert count.shape == variance.shape == (8, 100)
        assert mean.shape == (8, 100, 64)
        backward = getattr(torch.ops.pixelkernels, name.replace("stats", "stats_backward"))
        assert backward(mean, variance, f, labels, count, mean, False).shape == f.shape


@pytest.mark.parametrize("backend", COMPILED)
def test_compiles_with_inductor(backend, device):
    torch._dynamo.reset()
    f, labels, regions, w = inputs((5, 4, 12, 10), torch.float32, "channels_last", device)
    compiled = torch.compile(mean_and_variance, fullgraph=True)
    actual = value_and_gradients(mean_and_variance, f, labels, regions, w, backend, compiled)
    expected = value_and_gradients(mean_and_variance, f, labels, regions, w, backend)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)
