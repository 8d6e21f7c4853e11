"""The loss of given matches: LoFTR's coarse loss from the matrix of all confidences."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels.similarity import dual_softmax, reference
from pixelkernels.testing import LAYOUTS
from pixelkernels.testing.inputs import features
from tests.helpers import assert_same, backends, run_python

ALL = pytest.mark.parametrize("backend", backends("eager", "cpu", "triton"))
COMPILED = pytest.mark.parametrize("backend", backends("cpu", "triton"))
# in no order, and pixels that recur
MATCHES = torch.tensor(
    [[1, 3, 4], [0, 5, 7], [0, 0, 0], [0, 5, 2], [1, 11, 7], [1, 3, 4], [0, 2, 7], [1, 8, 13]]
)
SIZES = ((3, 4), (2, 7))


def images(dtype=torch.float32, device="cpu", channels=6):
    return [
        features(2, channels, *size, dtype=dtype, seed=seed).to(device)
        for seed, size in enumerate(SIZES)
    ]


def masks(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(2, *size, generator=generator) < 0.7).to(device) for size in SIZES]


def loftr(a, b, matches, temperature, alpha, gamma, mask_a=None, mask_b=None, weights=None):
    """The losses by their definition, through the matrix of all confidences: focal or, with alpha 1
    and gamma 0, the cross entropy of the positives."""
    s = a.flatten(2).mT @ b.flatten(2) / temperature
    if mask_a is not None:
        s = torch.where(mask_a.flatten(1)[:, :, None] & mask_b.flatten(1)[:, None], s, -1e9)
    p = (s.softmax(1) * s.softmax(2)).clamp(1e-6, 1 - 1e-6)
    batch, i, j = matches.unbind(1)
    p = p[batch, i, j]
    losses = -alpha * (1 - p).pow(gamma) * p.log()
    return losses if weights is None else losses * weights


def compare(found, expected, ours, theirs, tolerance=1e-5):
    """Values, and gradients in the leaves of both sides."""
    torch.testing.assert_close(found.double().cpu(), expected, rtol=tolerance, atol=tolerance)
    factors = torch.linspace(1, 2, expected.numel(), dtype=torch.float64).view(expected.shape)
    gradients = torch.autograd.grad(found, ours, factors.to(found))
    right = torch.autograd.grad(expected, theirs, factors)
    for one, other in zip(gradients, right, strict=True):
        largest = float(other.abs().max())
        torch.testing.assert_close(
            one.double().cpu(), other, rtol=0, atol=tolerance * max(largest, 1e-3)
        )


def leaves(tensors, dtype=None, device="cpu"):
    return [x.detach().to(device, dtype or x.dtype).requires_grad_() for x in tensors]


@ALL
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (1.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_of_loftr(alpha, gamma, reduction, backend, device):
    ours, theirs = leaves(images(), device=device), leaves(images(), torch.float64)
    found = pk.dual_softmax_loss(
        *ours, MATCHES.to(device), temperature=2.0, alpha=alpha, gamma=gamma, reduction=reduction,
        backend=backend,
    )  # fmt: skip
    losses = loftr(*theirs, MATCHES, 2.0, alpha, gamma)
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    compare(found, expected, ours, theirs)
    assert found.dtype == torch.float32


@ALL
def test_masks_weights_and_matches_that_are_left_out(backend, device):
    mask_a, mask_b = masks()
    kept = mask_a.flatten(1)[MATCHES[:, 0], MATCHES[:, 1]]
    kept &= mask_b.flatten(1)[MATCHES[:, 0], MATCHES[:, 2]]
    assert 2 <= kept.sum() < len(kept)
    outside = torch.tensor([[-1, -1, -1], [2, 0, 0], [0, 12, 0], [0, 0, 14], [1, -1, 3]])
    matches = torch.cat([outside, MATCHES])
    weights = torch.linspace(0, 1.5, len(matches))
    spoiled = [
        x.where(mask[:, None], torch.nan)
        for x, mask in zip(images(), (mask_a, mask_b), strict=True)
    ]
    ours, theirs = leaves(spoiled, device=device), leaves(images(), torch.float64)
    (w,), (v,) = leaves([weights], device=device), leaves([weights], torch.float64)
    options = {"temperature": 2.0, "mask_a": mask_a.to(device), "mask_b": mask_b.to(device)}
    found = pk.dual_softmax_loss(*ours, matches.to(device), **options, weights=w, backend=backend)
    own = v[len(outside) :][kept]
    losses = loftr(*theirs, MATCHES[kept], 2.0, 0.25, 2.0, mask_a, mask_b, own)
    compare(found, losses.mean(), (*ours, w), (*theirs, v))
    for gradient, mask in zip(torch.autograd.grad(
        pk.dual_softmax_loss(*ours, matches.to(device), **options, backend=backend), ours
    ), (mask_a, mask_b), strict=True):  # fmt: skip
        assert (gradient.cpu().movedim(1, -1)[~mask] == 0).all()
    losses = pk.dual_softmax_loss(
        *ours, matches.to(device), **options, reduction="none", backend=backend
    ).cpu()
    assert torch.equal(losses != 0, torch.cat([torch.zeros(len(outside)).bool(), kept]))


@ALL
def test_weights_may_be_bool(backend, device):
    a, b = images(device=device)
    weights = torch.arange(len(MATCHES), device=device) % 2 == 0
    found, expected = (
        pk.dual_softmax_loss(a, b, MATCHES.to(device), temperature=2.0, weights=w, backend=backend)
        for w in (weights, weights.double())
    )
    assert torch.equal(found, expected)


@ALL
def test_clamped_confidences_have_no_gradient(backend, device):
    """Far from each other, and nothing but each other."""
    a = torch.tensor([[[9.0, 0.0], [0.0, 9.0]]], device=device).requires_grad_()
    for matches, p in (([[0, 0, 1]], 1e-6), ([[0, 1, 1]], 1 - 1e-6)):
        matches = torch.tensor(matches, device=device)
        loss = pk.dual_softmax_loss(a, a.detach(), matches, backend=backend)
        expected = -0.25 * (1 - torch.tensor(p)) ** 2 * torch.tensor(p).log()
        torch.testing.assert_close(loss.cpu(), expected)
        assert (torch.autograd.grad(loss, a)[0] == 0).all()


@ALL
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("batch", "channels", "n", "m"), [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)]
)
def test_nothing_to_compute_from(batch, channels, n, m, reduction, backend, device):
    a, b = (torch.ones(batch, channels, size, device=device).requires_grad_() for size in (n, m))
    for matches in (torch.zeros(0, 3), torch.tensor([[1, 2, 3], [-1, -1, -1]])):
        loss = pk.dual_softmax_loss(
            a, b, matches.long().to(device), alpha=1.0, gamma=0.0, reduction=reduction,
            backend=backend,
        )  # fmt: skip
        assert loss.shape == (matches.shape[:1] if reduction == "none" else ())
        # without channels all pairs are alike
        alike = batch and n and m and len(matches)
        expected = torch.tensor(20.0).log() if alike else torch.tensor(0.0)
        torch.testing.assert_close(loss.sum().cpu(), expected)
        for gradient in torch.autograd.grad(loss.sum(), (a, b)):
            assert (gradient == 0).all()


@COMPILED
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_layouts_and_dtypes(dtype, backend, device):
    expected = None
    for layout in LAYOUTS.values():
        ours = leaves([layout(x) for x in images(dtype)], device=device)
        loss = pk.dual_softmax_loss(*ours, MATCHES.to(device), temperature=2.0, backend=backend)
        results = [loss.detach(), *torch.autograd.grad(loss, ours)]
        assert [x.dtype for x in results] == [torch.float32, dtype, dtype]
        expected = expected or results
        for found, right in zip(results, expected, strict=True):
            torch.testing.assert_close(found, right)


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
def test_gradient_is_that_of_finite_differences(backend):
    a, b = leaves(images(torch.float64))
    weights = torch.linspace(0.5, 1.5, len(MATCHES), dtype=torch.float64).requires_grad_()
    mask_a, mask_b = masks()

    def run(a, b, weights):
        return pk.dual_softmax_loss(
            a, b, MATCHES, temperature=3.0, mask_a=mask_a, mask_b=mask_b, weights=weights,
            reduction="none", backend=backend,
        )  # fmt: skip

    torch.autograd.gradcheck(run, (a, b, weights))


# ---- the operator of the matches, in PyTorch on every backend ----


def operator_case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    a, b = features(2, 5, 7, dtype=dtype), features(2, 5, 9, dtype=dtype, seed=1)
    rows, columns = features(2, 7, dtype=dtype, seed=2), features(2, 9, dtype=dtype, seed=3)
    at_a, at_b = (torch.randint(2 * n, (30,), generator=generator) for n in (7, 9))
    at_a[::5], at_b[::5] = 14, 18
    return leaves((a, b, rows, columns)), at_a, at_b


def test_gradient_of_the_matches_is_that_of_autograd():
    tensors, at_a, at_b = operator_case()
    expected = reference.log_dual_softmax(*tensors, at_a, at_b, 0.7)
    found = dual_softmax.log_dual_softmax("cpu", *tensors, at_a, at_b, 0.7)
    assert torch.equal(found, expected)
    assert (found[::5] == 0).all()
    weights = torch.linspace(-1, 2, 30, dtype=torch.float64)
    gradients = (torch.autograd.grad(x, tensors, weights) for x in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_operators_of_the_matches_pass_opcheck():
    tensors, at_a, at_b = operator_case(torch.float32)
    for suffix in ("", "_triton"):
        forward, backward = (
            getattr(torch.ops.pixelkernels, f"{name}{suffix}").default
            for name in ("log_dual_softmax", "log_dual_softmax_backward")
        )
        torch.library.opcheck(forward, (*tensors, at_a, at_b, 0.7))
        plain = [x.detach() for x in tensors[:2]]
        torch.library.opcheck(backward, (torch.ones(30), *plain, at_a, at_b, 0.7))


SUMS = """
import torch
from pixelkernels.similarity import dual_softmax
torch.manual_seed(0)
a, b = torch.randn(2, 1, 32, 40)
at = torch.randint(40, (20000,))
x = [t.clone().requires_grad_() for t in (a, b)]
rows = torch.zeros(1, 40)
found = dual_softmax.log_dual_softmax("cpu", *x, rows, rows, at, at.flip(0), 1.0)
gradients = torch.autograd.grad(found, x, torch.randn(20000))
print([int(g.view(torch.int32).long().sum()) for g in gradients])
"""


def test_sums_over_the_matches_of_a_pixel_are_the_same_on_every_run():
    """Without torch's deterministic algorithms, which the other tests turn on."""
    assert len({run_python(SUMS) for _ in range(3)}) == 1


# ---- arguments ----


def test_module_has_masks_and_weights_in_the_call():
    a, b = images()
    mask_a, mask_b = masks()
    weights = torch.linspace(0, 1, len(MATCHES))
    module = pk.DualSoftmaxLoss(temperature=2.0, gamma=1.0, backend="eager")
    given = {"mask_a": mask_a, "mask_b": mask_b, "weights": weights}
    expected = pk.dual_softmax_loss(
        a, b, MATCHES, temperature=2.0, gamma=1.0, **given, backend="eager"
    )
    assert torch.equal(module(a, b, MATCHES, **given), expected)
    assert torch.equal(module(a, b, MATCHES, mask_a, mask_b, weights), expected)
    assert repr(module) == "DualSoftmaxLoss(temperature=2.0, gamma=1.0, backend='eager')"
    with pytest.raises(ValueError, match=r"^gamma: expected at least 0"):
        pk.DualSoftmaxLoss(gamma=-1.0)
    with pytest.raises(ValueError, match=r"^reduction: expected one of"):
        pk.DualSoftmaxLoss(reduction="median")


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton"))
def test_module_compiles_to_one_graph(backend, device):
    torch._dynamo.reset()
    module = pk.DualSoftmaxLoss(temperature=2.0, backend=backend)
    run = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    mask_a, mask_b = masks(device)
    for count in (5, len(MATCHES)):
        results = []
        for loss in (module, run):
            ours = leaves(images(), device=device)
            value = loss(*ours, MATCHES[:count].to(device), mask_a, mask_b)
            results.append([value.detach(), *torch.autograd.grad(value, ours)])
        torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        (r"^matches: expected shape \[K, 3\], got \[8, 2\]", {"matches": MATCHES[:, :2]}),
        (r"^matches: expected an integer", {"matches": MATCHES.float()}),
        (r"^weights: expected shape \[8\] as matches, got \[7\]", {"weights": torch.ones(7)}),
        (r"^weights: expected no negative value, got -1", {"weights": -torch.ones(8)}),
        (r"^mask_a: expected shape \[2, 3, 4\] for a", {"mask_a": torch.ones(2, 3, 5).bool()}),
        (r"^mask_b: expected an integer or bool dtype", {"mask_b": torch.ones(2, 2, 7)}),
        (r"^temperature: expected a finite number above 0", {"temperature": 0}),
        (r"^b: expected \[2, 6\] images and channels as a", {"b": torch.ones(2, 5, 3)}),
    ],
)
def test_wrong_arguments_are_named(message, changed):
    a, b = images()
    given = {"a": a, "b": b, "matches": MATCHES, "backend": "eager", **changed}
    with pytest.raises((TypeError, ValueError), match=message):
        pk.dual_softmax_loss(**given)


@COMPILED
def test_the_same_bits_on_every_run(backend, device):
    results = []
    for _ in range(2):
        ours = leaves(images(), device=device)
        loss = pk.dual_softmax_loss(*ours, MATCHES.to(device), temperature=2.0, backend=backend)
        a, b = torch.autograd.grad(loss, ours)
        results.append({"loss": loss.detach(), "a": a, "b": b})
    assert_same(*results)
