"""The loss over all pairs: torch's batch norm and cross entropy of the list of pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import batch_norm, binary_cross_entropy_with_logits, softplus
from torch.utils._python_dispatch import TorchDispatchMode

import pixelkernels as pk
from pixelkernels.similarity.pair_loss import _pair_loss
from pixelkernels.testing.inputs import features, random_labels
from pixelkernels.testing.op import Call
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees
from tests.helpers import Sample, assert_same, backends, needs_gpu

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")
OP = OPS["pair_similarity_loss"]
# x and y have 15 and 18 pixels
DIMS = {"B": 2, "D": 7, "H": 3, "W": 5, "P": 2, "Q": 9}


def sample(case: str = "affine", device: str = "cpu", dims=DIMS, **how) -> Call:
    return Sample(OP, case).call(dims, device, **how)


def pairs(x, y, x_labels, y_labels):
    """The similarities of all valid pairs of all images, and whether their labels agree."""
    similarities, same = [], []
    for one, other, own, others in zip(x, y, x_labels, y_labels, strict=True):
        one, other, own, others = one.flatten(1), other.flatten(1), own.flatten(), others.flatten()
        similarities.append((one[:, own >= 0].T @ other[:, others >= 0]).flatten())
        same.append((own[own >= 0][:, None] == others[others >= 0]).flatten())
    return torch.cat(similarities), torch.cat(same)


def listed(
    x,
    y,
    x_labels,
    y_labels,
    *,
    weight,
    bias,
    running_mean=None,
    running_var=None,
    training=True,
    backend=None,  # to stand in for the function
    **options,
):
    """The loss by its definition."""
    s, same = pairs(x, y, x_labels, y_labels)
    state = running_mean, running_var
    z = batch_norm(s[None, None], *state, weight, bias, training, **options)[0, 0]
    return binary_cross_entropy_with_logits(z, same.to(z.dtype))


def tolerances(call: Call) -> dict[str, float]:
    """How far rounding may move each result: the rounding unit times the condition of the call.

    P pairs of N and M pixels of D channels. S^2 is the mean square of sum_c |x_ic y_jc| over the
    pairs, sigma = sqrt(var + eps), k = S / sigma; h = (s - mean) / sigma, H the largest |h|.

    - Rounding errors of a sum of n terms grow like sqrt(n): the errors of the similarities and of
      the moments of x and y are u times their terms, with u = eps sqrt(D + N + M + 64).
    - torch's batch norm adds up s over the pairs one by one: its mean errs by eps sqrt(P) S more.
    - var is the difference of mean(s^2) and mean(s)^2, neither larger than S^2. Its error, 2 u S^2,
      changes 1 / sigma by r = u k^2 relative to its size.
    - So h changes by e = (2 u + eps sqrt(P)) k + H r, and z = weight h + bias by |weight| e.
    - The loss is a mean over terms that are 1-Lipschitz in z; g = sigmoid(z) - t is 1/4-Lipschitz.
    - The gradient in bias is mean(g), the gradient in weight mean(g h).
    - The gradient in x_i is the sum of weight / (sigma P) (g - mean(g) - h mean(g h)) y_j over j,
      where |g| and |mean(g h)| are at most 1. Its part linear in s has terms as large as k.
    """
    given = call.arguments
    x, y, x_labels, y_labels = (given[name] for name in ("x", "y", "x_labels", "y_labels"))
    s, _ = pairs(x, y, x_labels, y_labels)
    terms, _ = pairs(x.abs(), y.abs(), x_labels, y_labels)
    training, momentum = given["training"], given["momentum"]
    mean, var = (
        (s.mean(), s.var(correction=0))
        if training
        else (given["running_mean"], given["running_var"])
    )
    sigma = float((var + given["eps"]).sqrt())
    h = ((s - mean) / sigma).abs()
    largest, average = float(h.max()), float(h.mean())
    size = float(terms.square().mean().sqrt())
    weight, bias = (abs(float(given[name])) for name in ("weight", "bias"))
    eps = torch.finfo(x.dtype).eps
    u = eps * (x.shape[1] + x.shape[2] + y.shape[2] + 64) ** 0.5
    k = size / sigma
    r = u * k**2 if training else 0.0
    by_mean = eps * len(s) ** 0.5
    e = (2 * u + by_mean) * k + largest * r
    g = weight * e / 4 + u
    gh = e + average * g + u * largest
    by_pair = 2 * g + largest * gh + e + (2 + largest) * r + u * (k + largest + 2)
    of_features = weight / (sigma * len(s)) * by_pair
    sums = (
        (other.abs() * (labels >= 0)[:, None]).sum(2).max()
        for other, labels in ((y, y_labels), (x, x_labels))
    )
    by_x, by_y = (of_features * float(largest_sum) for largest_sum in sums)
    # the unbiased variance is at most twice var
    moved_var = 4 * (u + by_mean / 2) * size**2 if training else 0.0
    return {
        "value": weight * e + u * (weight * average + bias + 1),
        "gradient in x": by_x,
        "gradient in y": by_y,
        "gradient in weight": gh,
        "gradient in bias": g,
        "running_mean": momentum * (u + by_mean) * size + u,
        "running_var": momentum * moved_var + 4 * u,
    }


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Small problems with at least two valid pairs, in float64."""
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    n, m = draw(st.integers(1, 120)), draw(st.integers(2, 250))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    size = draw(st.sampled_from((0.05, 1.0, 20.0)))
    shift = draw(st.sampled_from((0.0, 3.0)))
    x = size * torch.randn(batch, channels, n, generator=generator).double() + shift
    y = size * torch.randn(batch, channels, m, generator=generator).double() + shift
    least, classes = draw(st.sampled_from((-3, 0))), draw(st.integers(1, 6))
    x_labels = torch.randint(least, classes, (batch, n), generator=generator)
    y_labels = torch.randint(least, classes, (batch, m), generator=generator)
    x_labels[0, 0] = y_labels[0, 0] = y_labels[0, 1] = 0
    call = sample("running", dtype=torch.float64)
    return call.replaced(
        x=x,
        y=y,
        x_labels=x_labels,
        y_labels=y_labels,
        training=draw(st.booleans()),
        momentum=draw(st.sampled_from((0.0, 0.1, 1.0))),
        eps=draw(st.sampled_from((1e-5, 0.1))),
    )


@settings(max_examples=60, derandomize=True, deadline=None)
@given(calls())
def test_equals_batch_norm_and_cross_entropy_of_all_pairs(call):
    expected = call.through(listed).results()
    for backend in ("eager", "cpu"):
        found = call.results(backend)
        assert found.keys() == expected.keys()
        for name, tolerance in tolerances(call).items():
            error = float((found[name] - expected[name]).abs().max())
            assert error <= tolerance, (backend, name)
        if not call.arguments["training"]:
            assert_same({name: found[name] for name in call.buffers}, call.buffers)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(("channels", "dtype"), [(128, torch.float32), (300, torch.float16)])
def test_channels_of_several_tiles(channels, dtype, backend, device):
    call = sample(device=device, dims={**DIMS, "B": 1, "D": channels}, dtype=dtype)
    assert_agrees(call, backend)


@pytest.mark.parametrize("backend", ALL)
def test_labels_above_int32_are_told_apart(backend, device):
    call = sample(device=device)
    names = torch.tensor([0, 2**33, 2**33 + 1, 2**62, 5], device=device)
    far = {
        name: torch.where(call.arguments[name] < 0, -(2**40), names[call.arguments[name]])
        for name in ("x_labels", "y_labels")
    }
    renamed = call.replaced(**far)
    assert_same(renamed.outputs(backend), call.outputs(backend))
    assert_agrees(renamed, backend)


@pytest.mark.parametrize("backend", ALL)
def test_pairs_of_one_label(backend, device):
    call = sample(device=device)
    labels = {name: torch.zeros_like(call.arguments[name]) for name in ("x_labels", "y_labels")}
    assert_agrees(call.replaced(**labels), backend)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("invalid", ["x_labels", "y_labels"])
def test_without_valid_pairs_loss_and_gradient_are_zero(invalid, backend, device):
    call = sample("running", device)
    call = call.replaced(**{invalid: torch.full_like(call.arguments[invalid], -1)})
    found = call.results(backend)
    for name, buffer in call.buffers.items():
        assert torch.equal(found.pop(name), buffer)
    assert all((x == 0).all() for x in found.values())


@pytest.mark.parametrize("backend", ALL)
def test_without_channels_the_logits_are_the_bias(backend, device):
    call = sample(device=device, dims={**DIMS, "D": 0})
    _, same = pairs(**{name: call.arguments[name] for name in ("x", "y", "x_labels", "y_labels")})
    bias = call.arguments["bias"].double()
    expected = softplus(bias) - bias * same.double().mean()
    torch.testing.assert_close(call.outputs(backend)["value"].double(), expected[0])


@pytest.mark.parametrize("backend", ALL)
def test_an_image_without_valid_pixels_changes_nothing(backend, device):
    call = sample(device=device)
    x, x_labels = call.arguments["x"].clone(), call.arguments["x_labels"].clone()
    x[1], x_labels[1] = torch.nan, -1
    found = call.replaced(x=x, x_labels=x_labels).results(backend)
    alone = call.mapped(lambda t: t[:1]).results(backend)
    for name, expected in alone.items():
        first = found[name][:1] if expected.dim() == 4 else found[name]
        torch.testing.assert_close(first, expected)
    assert all((found[f"gradient in {name}"][1] == 0).all() for name in "xy")


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("offset", [10.0, 100.0])
def test_features_far_from_zero_keep_their_digits(offset, backend, device):
    """The mean similarity is up to thousands of times the standard deviation."""
    call = sample(device=device)
    call = call.replaced(**{name: call.arguments[name] + offset for name in "xy"})
    double = call.double()
    s, _ = pairs(*(double.arguments[name] for name in ("x", "y", "x_labels", "y_labels")))
    # a similarity is rounded to a share of about the mean, and then divided by the deviation
    tolerance = 1e-6 * float(s.mean() / s.std())
    found = call.results(backend)
    for name, expected in double.through(listed).results().items():
        scale = float(expected.abs().max())
        if name not in ("gradient in x", "gradient in y"):
            scale = max(scale, 1)
        assert (found[name] - expected).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("value", [0.728, 1.3])
def test_equal_similarities_have_no_slope(value, backend, device):
    """They differ by rounding alone, which a fit must not take for a spread."""
    call = sample(device=device)
    call = call.replaced(**{name: 0 * call.arguments[name] + value for name in "xy"}, eps=1.0)
    found = call.results(backend)
    for name, expected in call.double().through(listed).results().items():
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
def test_running_statistics_of_float64_are_in_float64(backend):
    arguments = sample(dtype=torch.float64).arguments
    given = [arguments[name] for name in ("x", "y", "x_labels", "y_labels")]
    state = torch.zeros(2, 1, dtype=torch.float64).unbind()
    pk.pair_similarity_loss(
        *given, running_mean=state[0], running_var=state[1], momentum=1.0, backend=backend
    )
    expected = torch.var_mean(pairs(*given)[0])
    torch.testing.assert_close((state[1][0], state[0][0]), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_confident_logits_keep_their_digits(size, backend, device):
    """A loss far below 1e-7 per pair is a sum of small terms, not a difference of large ones."""
    labels = torch.tensor([[0, 0, 1, 1]], device=device)
    x = torch.tensor([[1.0, 1, -1, -1], [0, 0, 0, 0]], device=device)[None] * size
    loss = pk.pair_similarity_loss(
        *(x, x, labels, labels),
        weight=torch.tensor([20.0 / size**2], device=device),
        running_mean=torch.zeros(1, device=device),
        running_var=torch.ones(1, device=device),
        training=False,
        eps=0.0,
        backend=backend,
    )
    expected = softplus(torch.tensor(-20.0, dtype=torch.float64))
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("backend", COMPILED)
def test_operators_without_gradient_pass_opcheck(backend, device):
    """tests/promises checks them with their gradient."""
    x, y, x_labels, y_labels = (
        sample(device=device).arguments[name] for name in ("x", "y", "x_labels", "y_labels")
    )
    labels = x_labels.flatten(1), y_labels.flatten(1)
    suffix = "_triton" if backend == "triton" else ""
    terms, loss = (
        getattr(torch.ops.pixelkernels, name + suffix).default
        for name in ("pair_terms", "pair_loss")
    )
    affine = torch.tensor([0.5, -0.1, 0.1, 0.02], device=device)
    torch.library.opcheck(terms, (x, y, *labels, affine, False))
    one = torch.tensor(0.5, device=device)
    torch.library.opcheck(loss, (x, y, *labels, one, one, None, None, 1e-5, False, None))


class Operators(TorchDispatchMode):
    """Counts the calls of operators, most of which are launches on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("side", "chosen"), [(5, "eager"), (300, "cpu")])
def test_few_pairs_are_stored(side, chosen):
    x, y = features(1, 128, side, 1), features(1, 128, 300, 1, seed=1)
    x_labels, y_labels = (random_labels(1, n, 1, high=3) for n in (side, 300))
    losses = {
        backend: pk.pair_similarity_loss(x, y, x_labels, y_labels, backend=backend)
        for backend in (None, "cpu", "eager")
    }
    assert losses[None] == losses[chosen]
    torch.testing.assert_close(losses["cpu"], losses["eager"])


def test_a_gpu_takes_the_pixels_of_an_image_in_few_chunks():
    def count(pixels):
        with FakeTensorMode():
            x = torch.empty(1, 128, 1, pixels, device="cuda:0")
            labels = torch.empty(1, pixels, dtype=torch.int64, device="cuda:0")
            one = torch.empty((), device="cuda:0")
            with Operators() as operators:
                _pair_loss("triton", x, x, labels, labels, one, one, None, None, 1e-5, True, None)
        return operators.count

    assert count(16384) == count(2048)
    assert count(25620) < 1.5 * count(2048)


# ---- the module ----


def case_of(call: Call):
    return [call.arguments[name] for name in ("x", "y", "x_labels", "y_labels")]


def test_state_dict_is_that_of_batch_norm():
    case = case_of(sample())
    norm = torch.nn.BatchNorm2d(1, momentum=0.3)
    loss = pk.SiameseSimilarityLoss(momentum=0.3)
    with torch.no_grad():
        norm.weight.fill_(1.4), norm.bias.fill_(-0.2)
    loss.load_state_dict(norm.state_dict())
    s, same = pairs(*case)

    def expected():
        z = norm(s[None, None, None])[0, 0, 0]
        return binary_cross_entropy_with_logits(z, same.float())

    torch.testing.assert_close(loss(*case), expected())
    assert norm.num_batches_tracked == 1
    for mine, theirs in zip(loss.state_dict().values(), norm.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    norm.load_state_dict(loss.state_dict())
    loss.eval(), norm.eval()
    torch.testing.assert_close(loss(*case), expected())
    loss(*case).backward()
    assert loss.weight.grad.shape == loss.bias.grad.shape == (1,)
    assert "momentum=0.3" in repr(loss)


def test_without_state_the_batch_is_always_its_own_norm():
    case = case_of(sample())
    loss = pk.SiameseSimilarityLoss(affine=False, track_running_stats=False)
    assert not loss.state_dict()
    assert torch.equal(loss(*case), pk.pair_similarity_loss(*case))
    assert torch.equal(loss.eval()(*case), pk.pair_similarity_loss(*case))


@pytest.mark.parametrize("backend", COMPILED)
def test_module_compiles_to_one_graph(backend, device):
    torch._dynamo.reset()
    x, y, *labels = case_of(sample(device=device))
    plain, compiled = (pk.SiameseSimilarityLoss().to(device) for _ in range(2))
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    with pk.use_backend(backend):
        for _ in range(2):
            leaves = [[t.detach().requires_grad_() for t in (x, y)] for _ in range(2)]
            losses = plain(*leaves[0], *labels), run(*leaves[1], *labels)
            for loss in losses:
                loss.backward()
            assert torch.equal(*losses)
            assert all(torch.equal(a.grad, b.grad) for a, b in zip(*leaves, strict=True))
    assert_same(plain.state_dict(), compiled.state_dict())


@needs_gpu
def test_memory_on_a_gpu_is_linear_in_the_pixels():
    dims = {"B": 1, "D": 128, "H": 120, "W": 213, "P": 116, "Q": 216}
    call = sample("", "cuda", dims, dtype=torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call.results("triton")
    extra = torch.cuda.max_memory_allocated() - before
    assert extra <= 8 * sum(call.arguments[name].nbytes for name in "xy")
