"""The loss over all pairs on every backend: against torch's batch norm and cross entropy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import backends, needs_gpu
from tests.pair_cases import (
    NAMES,
    check,
    drawn,
    inputs,
    literal,
    loss_of,
    pairs,
    value_and_gradients,
)
from tests.promises import peak_extra_bytes

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")


@settings(deadline=None, max_examples=60)
@given(drawn())
def test_cpu_and_eager_are_the_formula(case):
    expected = value_and_gradients(*case, literal)
    # the variance is a difference of the mean square and the squared mean
    s, _ = pairs(*case)
    tolerance = 1e-12 * float(1 + s.mean().square() / s.var().clamp(min=1e-5))
    for backend in ("eager", "cpu"):
        found = value_and_gradients(*case, loss_of(backend))
        for name, a, b in zip(NAMES, found, expected, strict=True):
            # gradients of batch norm are what is left of larger terms
            scale = max(float(b.abs().max()), 1e-3 if name in ("x", "y") else 1.0)
            assert (a - b).abs().max() <= tolerance * scale, (backend, name)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_matches_the_oracle_in_every_dtype_and_layout(dtype, layout, backend, device):
    if backend == "triton" and dtype == torch.float64:
        return
    check(inputs(dtype, device, layout), backend)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("channels", [1, 16, 70, 128, 300])
def test_channels_that_fit_a_tile_or_not(channels, backend, device):
    check(inputs(device=device, shape=(2, channels, 24, 30)), backend)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_labels_of_every_dtype(label_dtype, backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    check((x, y, *(t.abs().to(label_dtype) for t in (x_labels, y_labels))), backend)


@pytest.mark.parametrize("backend", ALL)
def test_labels_are_any_numbers(backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    names = torch.tensor([0, 2**33, 2**33 + 1, 2**62, 5, 6], device=device)
    named = [torch.where(t < 0, -(2**40), names[t]) for t in (x_labels, y_labels)]
    expected = loss_of(backend)(x, y, x_labels, y_labels, None, None)
    assert torch.equal(loss_of(backend)(x, y, *named, None, None), expected)


@pytest.mark.parametrize("backend", COMPILED)
def test_gradcheck(backend, device):
    if backend == "triton":
        return
    x, y, x_labels, y_labels = inputs(torch.float64, device, shape=(2, 3, 5, 4))
    affine = [torch.tensor([v], dtype=torch.float64) for v in (0.7, 0.2)]
    leaves = [t.requires_grad_() for t in (x, y, *affine)]
    running = [torch.tensor([v], dtype=torch.float64) for v in (0.3, 2.0)]

    def training(x, y, weight, bias):
        return loss_of(backend)(x, y, x_labels, y_labels, weight, bias)

    def evaluation(x, y, weight, bias):
        options = {"running_mean": running[0], "running_var": running[1], "training": False}
        return loss_of(backend, **options)(x, y, x_labels, y_labels, weight, bias)

    assert torch.autograd.gradcheck(training, leaves)
    assert torch.autograd.gradcheck(evaluation, leaves)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("valid", ["neither", "x only", "y only"])
def test_without_valid_pairs_it_is_zero_with_zero_gradient(valid, backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    if valid != "x only":
        x_labels.fill_(-1)
    if valid != "y only":
        y_labels.fill_(-1)
    running = [torch.tensor([v], device=device) for v in (0.3, 2.0)]
    options = {"running_mean": running[0], "running_var": running[1]}
    found = value_and_gradients(x, y, x_labels, y_labels, loss_of(backend, **options))
    assert all((t == 0).all() for t in found)
    assert [r.item() for r in running] == [torch.tensor(0.3).item(), 2.0]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("empty", ["images", "x", "y", "channels"])
def test_empty_inputs(empty, backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    if empty == "images":
        x, y, x_labels, y_labels = (t[:0] for t in (x, y, x_labels, y_labels))
    if empty == "x":
        x, x_labels = x[:, :, :0], x_labels[:, :0]
    if empty == "y":
        y, y_labels = y[..., :0], y_labels[..., :0]
    if empty == "channels":
        x, y = x[:, :0], y[:, :0]
    loss, grad_x, grad_y, *_ = value_and_gradients(x, y, x_labels, y_labels, loss_of(backend))
    assert grad_x.shape == x.shape
    assert grad_y.shape == y.shape
    if empty == "channels":  # all similarities are 0, and all logits the bias
        expected = literal(*(t.double() for t in (x, y)), x_labels, y_labels, None, None)
        softplus = torch.nn.functional.softplus(torch.tensor(-0.4, dtype=torch.float64))
        assert expected.isfinite()
        _, same = pairs(x, y, x_labels, y_labels)
        torch.testing.assert_close(loss.double().cpu(), softplus + 0.4 * same.double().mean().cpu())
    else:
        assert loss == 0


@pytest.mark.parametrize("backend", ALL)
def test_one_class_only(backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    check((x, y, torch.zeros_like(x_labels), torch.zeros_like(y_labels)), backend)


@pytest.mark.parametrize("backend", ALL)
def test_an_image_without_valid_pixels_counts_for_nothing(backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    x_labels[1] = -1
    x[1] = torch.nan
    found = value_and_gradients(x, y, x_labels, y_labels, loss_of(backend))
    alone = value_and_gradients(*(t[:1] for t in (x, y, x_labels, y_labels)), loss_of(backend))
    for a, b in zip(found, alone, strict=True):
        torch.testing.assert_close(a[:1] if a.dim() > 1 else a, b)
    assert (found[1][1] == 0).all()
    assert (found[2][1] == 0).all()


@pytest.mark.parametrize("backend", ALL)
def test_invalid_pixels_are_never_read(backend, device):
    x, y, x_labels, y_labels = inputs(device=device)
    clean = value_and_gradients(x, y, x_labels, y_labels, loss_of(backend))
    x, y = (
        t.masked_fill((own < 0)[:, None], torch.nan) for t, own in ((x, x_labels), (y, y_labels))
    )
    dirty = value_and_gradients(x, y, x_labels, y_labels, loss_of(backend))
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("offset", [10.0, 100.0])
def test_variance_of_features_far_from_zero(offset, backend, device):
    """Similarities whose mean is thousands of times their spread."""
    x, y, x_labels, y_labels = inputs(torch.float64, "cpu")
    x, y = ((t + offset).float().to(device) for t in (x, y))
    labels = x_labels.to(device), y_labels.to(device)
    double = value_and_gradients(x.double(), y.double(), *labels, literal)
    # what rounding the similarities costs is the mean's share in the spread
    s, _ = pairs(x.double(), y.double(), *labels)
    tolerance = 1e-6 * float(s.mean() / s.std())
    found = value_and_gradients(x, y, *labels, loss_of(backend))
    for name, a, b in zip(NAMES, found, double, strict=True):
        scale = max(float(b.abs().max()), 1.0 if name in ("loss", "weight", "bias") else 0)
        assert (a - b).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_confident_logits_keep_their_digits(size, backend, device):
    """Losses far below 1e-7 per pair are sums of small terms, not differences of large ones."""
    labels = torch.tensor([[0, 0, 1, 1]], device=device)
    x = torch.tensor([[1.0, 1, -1, -1], [0, 0, 0, 0]], device=device)[None] * size
    running = {"running_mean": torch.zeros(1, device=device)}
    running["running_var"] = torch.ones(1, device=device)
    call = loss_of(backend, training=False, eps=0.0, **running)
    weight = torch.tensor([20.0 / size**2], device=device)
    loss = call(x, x, labels, labels, weight, torch.zeros(1, device=device))
    expected = torch.nn.functional.softplus(torch.tensor(-20.0, dtype=torch.float64))
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=2e-6, atol=0)


# ---- the statistics ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_are_those_of_batch_norm(momentum, backend, device):
    case = inputs(device=device)
    running = [torch.tensor([v], device=device) for v in (0.3, 2.0)]
    expected = [r.double() for r in running]
    for _ in range(3):
        options = {"running_mean": running[0], "running_var": running[1], "momentum": momentum}
        loss_of(backend, **options)(*case, None, None)
        double = [t.double() if t.is_floating_point() else t for t in case]
        literal(*double, None, None, *expected, momentum=momentum)
    for found, wanted in zip(running, expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ALL)
def test_evaluation_uses_the_running_statistics_and_leaves_them(backend, device):
    case = inputs(torch.float32, device)
    mean, var = torch.tensor([0.5], device=device), torch.tensor([3.0], device=device)
    options = {"running_mean": mean, "running_var": var, "training": False, "eps": 0.1}
    found = value_and_gradients(*case, loss_of(backend, **options))

    def expected(x, y, x_labels, y_labels, weight, bias):
        return literal(
            x, y, x_labels, y_labels, weight, bias, mean.double(), var.double(), False, eps=0.1
        )

    double = [t.double() if t.is_floating_point() else t for t in case]
    for a, b in zip(found, value_and_gradients(*double, expected), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    assert (mean.item(), var.item()) == (0.5, 3.0)


def test_state_dict_is_that_of_batch_norm():
    case = inputs()
    norm = torch.nn.BatchNorm2d(1, momentum=0.3)
    loss = pk.SiameseSimilarityLoss(momentum=0.3)
    with torch.no_grad():
        norm.weight.fill_(1.4), norm.bias.fill_(-0.2)
    loss.load_state_dict(norm.state_dict())
    s, same = pairs(*case)
    z = norm(s[None, None, None])[0, 0, 0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, same.float())
    torch.testing.assert_close(loss(*case), expected)
    norm.load_state_dict(loss.state_dict())
    assert norm.num_batches_tracked == 1
    for mine, theirs in zip(loss.state_dict().values(), norm.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    loss.eval(), norm.eval()
    z = norm(s[None, None, None])[0, 0, 0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, same.float())
    torch.testing.assert_close(loss(*case), expected)
    loss(*case).backward()
    assert loss.weight.grad.shape == loss.bias.grad.shape == (1,)
    assert "momentum=0.3" in repr(loss)


def test_without_state_the_batch_is_always_its_own_norm():
    case = inputs()
    loss = pk.SiameseSimilarityLoss(affine=False, track_running_stats=False)
    assert not loss.state_dict()
    assert torch.equal(loss(*case), pk.pair_similarity_loss(*case))
    assert torch.equal(loss.eval()(*case), pk.pair_similarity_loss(*case))


@pytest.mark.parametrize("backend", COMPILED)
def test_the_module_compiles_whole(backend, device):
    torch._dynamo.reset()
    case = inputs(device=device)
    plain, compiled = (pk.SiameseSimilarityLoss().to(device) for _ in range(2))
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    with pk.use_backend(backend):
        for _ in range(2):
            leaves = [[t.detach().requires_grad_() for t in case[:2]] for _ in range(2)]
            losses = plain(*leaves[0], *case[2:]), run(*leaves[1], *case[2:])
            for loss in losses:
                loss.backward()
            assert torch.equal(*losses)
            assert all(torch.equal(a.grad, b.grad) for a, b in zip(*leaves, strict=True))
    for a, b in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# ---- promises ----


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_opcheck(layout, backend, device):
    suffix = "_triton" if backend == "triton" else ""
    terms, loss = (
        getattr(torch.ops.pixelkernels, name + suffix).default
        for name in ("pair_terms", "pair_loss")
    )
    x, y, x_labels, y_labels = inputs(device=device, layout=layout)
    labels = x_labels.flatten(1), y_labels.flatten(1)
    one = torch.tensor(0.5, device=device)
    affine = torch.tensor([0.5, -0.1, 0.1, 0.02], device=device)
    for gradient in (False, True):
        torch.library.opcheck(terms, (x, y, *labels, affine, gradient))
    leaves = x.requires_grad_(), y.requires_grad_()
    learned = [torch.tensor(v, device=device, requires_grad=True) for v in (1.5, 0.5)]
    for running in ((None, None), (one, one)):
        torch.library.opcheck(loss, (*leaves, *labels, *learned, *running, 1e-5, True, None))


@pytest.mark.keeps_memory
def test_memory_is_linear_in_the_pixels():
    """102 480 pixels on either side: the matrix of all pairs would take 42 GB."""
    x, y = (testing.features(1, 32, 240, 427, seed=seed).requires_grad_() for seed in range(2))
    labels = [testing.coherent_labels(1, 240, 427, 5, seed=seed) for seed in range(2)]
    pk.pair_similarity_loss(x[..., :9], y[..., :9], *(t[..., :9] for t in labels)).backward()
    x.grad = y.grad = None
    extra = peak_extra_bytes(
        lambda: pk.pair_similarity_loss(x, y, *labels).backward(), warm_up=False
    )
    assert extra <= 4 * (x.nbytes + y.nbytes) + (32 << 20)


@pytest.mark.keeps_memory
def test_memory_at_a_quarter_of_the_pixels_is_below_100_megabytes():
    x, y = (testing.features(1, 128, 120, 213 + 1, seed=seed)[..., :213] for seed in range(2))
    labels = testing.coherent_labels(1, 120, 213, 5)
    leaves = x.requires_grad_(), y.requires_grad_()
    extra = peak_extra_bytes(
        lambda: torch.autograd.grad(pk.pair_similarity_loss(*leaves, labels, labels), leaves)
    )
    assert extra <= 100e6


@needs_gpu
@pytest.mark.parametrize("backend", backends("triton"))
def test_memory_on_a_device(backend, device):
    x, y, x_labels, y_labels = inputs(torch.bfloat16, device, shape=(1, 128, 120, 213))
    leaves = x.requires_grad_(), y.requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pk.pair_similarity_loss(*leaves, x_labels, y_labels, backend=backend).backward()
    assert torch.cuda.max_memory_allocated() - before <= 8 * (x.nbytes + y.nbytes)


X, Y = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 7)
L, M = torch.zeros(2, 4, 5, dtype=torch.int64), torch.zeros(2, 7, dtype=torch.int64)
ONE = torch.ones(1)
BAD_CALLS = {
    "x list": (TypeError, "x:", lambda: pk.pair_similarity_loss([1], Y, L, M)),
    "y dtype": (TypeError, "y:.*float64", lambda: pk.pair_similarity_loss(X, Y.double(), L, M)),
    "y channels": (
        ValueError,
        r"y:.*\[2, 3\].*\[2, 2\]",
        lambda: pk.pair_similarity_loss(X, Y[:, 1:], L, M),
    ),
    "x_labels float": (
        TypeError,
        "x_labels.*float32",
        lambda: pk.pair_similarity_loss(X, Y, L.float(), M),
    ),
    "y_labels size": (
        ValueError,
        r"y_labels.*\[2, 7\]",
        lambda: pk.pair_similarity_loss(X, Y, L, M[:, 1:]),
    ),
    "weight size": (
        ValueError,
        r"weight.*\[2\]",
        lambda: pk.pair_similarity_loss(X, Y, L, M, weight=torch.ones(2)),
    ),
    "bias number": (TypeError, "bias", lambda: pk.pair_similarity_loss(X, Y, L, M, bias=0.5)),
    "bias device": (
        ValueError,
        "bias.*device",
        lambda: pk.pair_similarity_loss(X, Y, L, M, bias=ONE.to("meta")),
    ),
    "half the statistics": (
        ValueError,
        "running_mean and running_var",
        lambda: pk.pair_similarity_loss(X, Y, L, M, running_mean=ONE),
    ),
    "evaluation": (
        ValueError,
        "running_mean.*training=False",
        lambda: pk.pair_similarity_loss(X, Y, L, M, training=False),
    ),
    "eps": (ValueError, "eps.*-1", lambda: pk.pair_similarity_loss(X, Y, L, M, eps=-1)),
    "momentum": (TypeError, "momentum", lambda: pk.pair_similarity_loss(X, Y, L, M, momentum=None)),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()
