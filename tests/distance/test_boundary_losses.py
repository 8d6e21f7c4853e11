"""The boundary loss and the Hausdorff loss against their formulas, and what they accept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pixelkernels as pk
from pixelkernels import testing
from tests.compat.originals import boundary_map, hausdorff, surface_loss
from tests.helpers import INTERPRETED, backends, first_quick

ALL = backends("eager", "cpu", "triton", "cuda")
ON_CPU = backends("cpu", "eager")
# the interpreter takes a millisecond a pixel
SPACES = [(3, 5), (2, 2, 3)] if INTERPRETED else [(11, 14), (1, 9), (6, 7, 8)]
LOSSES = (pk.boundary_loss, pk.hausdorff_loss)


def scene(*space, classes=3, batch=2, seed=0):
    """Probabilities, class labels and their masks; every class is in the second image."""
    *leading, width = space
    rows = int(np.prod(leading))
    labels = testing.coherent_labels(batch, rows, width, classes, seed)
    noise = testing.features(batch, classes, rows, width, dtype=torch.float64, seed=seed)
    logits = noise + 2 * one_hot(labels.roll(1, 2), classes)
    labels[1].view(-1)[:classes] = torch.arange(classes)
    shape = (batch, classes, *space)
    return (
        logits.softmax(1).view(shape),
        labels.view(batch, *space),
        one_hot(labels, classes).view(shape),
    )


def one_hot(labels, classes):
    return F.one_hot(labels, classes).movedim(-1, 1).double()


def phi(masks, sampling=None):
    """[B, C, *space]: 0 for a class that is everywhere, where the original is undefined."""
    maps = torch.zeros(masks.shape, dtype=torch.float64)
    for index in np.ndindex(*masks.shape[:2]):
        if not masks[index].all():
            maps[index] = torch.from_numpy(boundary_map(masks[index].bool().numpy(), sampling))
    return maps


def with_gradient(loss, x):
    x = x.detach().requires_grad_()
    value = loss(x)
    return value.detach().cpu(), torch.autograd.grad(value.sum(), x)[0].cpu()


def assert_near(found, expected, dtype):
    """Value and gradient; distances are float32, whatever the dtype."""
    for a, b in zip(found, expected, strict=True):
        limit = max(torch.finfo(dtype).eps, 1e-6) * b.abs().max().item()
        torch.testing.assert_close(a.double(), b, rtol=0, atol=4 * limit)


# ---- boundary_loss ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize(
    "classes", first_quick(None, [1], [2, 0], (1, 2), [0, 2, 2], when=INTERPRETED), ids=str
)
def test_boundary_loss_is_that_of_the_original(classes, space, backend, device):
    p, labels, masks = scene(*space)
    chosen = range(3) if classes is None else classes
    expected = with_gradient(lambda x: surface_loss(x, phi(masks), chosen), p)
    for target in (labels, masks.bool(), masks.byte())[: 1 if INTERPRETED else None]:
        found = with_gradient(
            lambda x, t=target: pk.boundary_loss(x, t.to(device), classes=classes, backend=backend),
            p.float().to(device),
        )
        assert_near(found, expected, torch.float32)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("sampling", [(1.5, 0.7), (3.0, 0.5, 1.0)])
def test_boundary_loss_with_sampling(sampling, backend, device):
    p, labels, masks = scene(*SPACES[0 if len(sampling) == 2 else -1])
    expected = with_gradient(lambda x: surface_loss(x, phi(masks, sampling), [1, 2]), p)
    found = with_gradient(
        lambda x: pk.boundary_loss(
            x, labels.to(device), classes=[1, 2], sampling=sampling, backend=backend
        ),
        p.float().to(device),
    )
    assert_near(found, expected, torch.float32)


def test_boundary_loss_of_a_perfect_prediction_is_the_least():
    _, labels, masks = scene(11, 14)
    least = pk.boundary_loss(masks, labels)
    assert least < 0
    for seed in range(5):
        other = scene(11, 14, seed=seed)[0]
        assert pk.boundary_loss(other, labels) > least


# ---- hausdorff_loss ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("alpha", first_quick(2.0, 1.0, 2.5, 0, when=INTERPRETED))
def test_hausdorff_loss_is_that_of_the_original(alpha, space, backend, device):
    q, labels, masks = scene(*space)
    for background in (False, True)[: 1 if INTERPRETED else None]:
        first = 0 if background else 1
        expected = with_gradient(
            lambda x, i=first: hausdorff(x[:, i:], masks[:, i:], alpha).mean(), q
        )
        targets = labels, masks.bool(), masks.byte(), masks.float()
        for target in targets[: 1 if INTERPRETED else None]:
            found = with_gradient(
                lambda x, t=target, b=background: pk.hausdorff_loss(
                    x, t.to(device), alpha=alpha, include_background=b, backend=backend
                ),
                q.float().to(device),
            )
            assert_near(found, expected, torch.float32)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_accumulate_in_float32_or_wider(loss, dtype, backend, device):
    if backend in ("triton", "cuda") and dtype == torch.float64:
        pytest.skip("GPU kernels have no float64; eager serves it there")
    p, labels, _ = scene(*SPACES[0])
    narrow = p.to(dtype)
    expected = with_gradient(lambda x: loss(x, labels, backend="eager"), narrow.double())
    value, gradient = with_gradient(
        lambda x: loss(x, labels.to(device), backend=backend), narrow.to(device)
    )
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    assert_near([value], expected[:1], torch.float32)
    assert_near([gradient], expected[1:], dtype)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("sampling", [(1.5, 0.7), (3.0, 0.5, 1.0)])
@pytest.mark.parametrize("alpha", first_quick(2.0, 1.5, when=INTERPRETED))
def test_hausdorff_loss_with_sampling(alpha, sampling, backend, device):
    q, labels, masks = scene(*SPACES[0 if len(sampling) == 2 else -1])
    expected = with_gradient(lambda x: hausdorff(x, masks, alpha, sampling).mean(), q)
    options = {"alpha": alpha, "include_background": True, "sampling": sampling}
    found = with_gradient(
        lambda x: pk.hausdorff_loss(x, labels.to(device), **options, backend=backend),
        q.float().to(device),
    )
    assert_near(found, expected, torch.float32)


def test_hausdorff_loss_of_soft_targets():
    q, _, masks = scene(6, 7)
    soft = 0.8 * masks + 0.1
    expected = hausdorff(q, soft)[:, 1:].mean()
    for dtype in (torch.float32, torch.float64):
        found = pk.hausdorff_loss(q.float(), soft.to(dtype).requires_grad_())
        assert not found.requires_grad  # a target has no gradient
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_hausdorff_loss_of_sides_that_squares_do_not_fit():
    q = torch.zeros(1, 1, 1, 40000)
    t = torch.zeros_like(q)
    q[..., 0], t[..., -1] = 1, 1
    found = pk.hausdorff_loss(q, t)
    expected = 2 * (39999**2 + 1) / 40000
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", ON_CPU)
def test_second_derivatives_of_the_hausdorff_loss(backend):
    q, labels, masks = scene(3, 4, classes=2)
    loss = hausdorff(q.requires_grad_(), masks)[:, 1:].mean().square()
    gradient = torch.autograd.grad(loss, q, create_graph=True)[0]
    expected = torch.autograd.grad(gradient.square().sum(), q)[0]
    x = q.detach().requires_grad_()
    loss = pk.hausdorff_loss(x, labels, backend=backend).square()
    first = torch.autograd.grad(loss, x, create_graph=True)[0]
    if backend == "eager":
        torch.testing.assert_close(torch.autograd.grad(first.square().sum(), x)[0], expected)
        return
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


# ---- both ----


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("loss", LOSSES)
def test_reductions(loss, backend):
    p, labels, masks = scene(6, 7, classes=4)
    p = p.float()
    parts = loss(p, labels, reduction="none", backend=backend)
    expected = phi(masks) * p if loss is pk.boundary_loss else hausdorff(p, masks)[..., None]
    expected = expected.flatten(2).mean(2).float()[:, loss is pk.hausdorff_loss :]
    torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss(p, labels, reduction="sum", backend=backend), parts.sum())
    torch.testing.assert_close(loss(p, labels, backend=backend), parts.mean())


def test_hausdorff_loss_of_a_batch():
    q, labels, _ = scene(6, 7, classes=4)
    parts = pk.hausdorff_loss(q, labels, reduction="none")
    whole = pk.hausdorff_loss(q, labels, reduction="none", batch=True)
    torch.testing.assert_close(whole, parts.mean(0))
    torch.testing.assert_close(
        pk.hausdorff_loss(q, labels, reduction="sum", batch=True), parts.mean(0).sum()
    )


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("space", [(5, 7), (2, 3, 4)], ids=str)
def test_images_without_a_boundary_count_as_zero(loss, space, backend, device):
    """SciPy, and so MONAI on the CPU, gives a full mask the distances to a pixel outside."""
    everywhere = torch.ones(1, 1, *space, device=device)
    for target in (everywhere, 0 * everywhere):
        for p in (0.9 * everywhere, 0.1 * everywhere):
            value, gradient = with_gradient(
                lambda x, t=target: loss(x, t.bool(), backend=backend), p
            )
            assert value == 0
            assert (gradient == 0).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(0, 2, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 2, 3, 0, 4)])
def test_nothing_to_average_is_zero(loss, shape, backend, device):
    p = torch.rand(shape, device=device, requires_grad=True)
    value = loss(p, p.detach() > 0.5, backend=backend)
    assert value == 0
    assert torch.autograd.grad(value, p)[0].shape == shape
    kept = shape[1] - (loss is pk.hausdorff_loss and shape[1] > 1)
    assert loss(p, p > 0.5, reduction="none", backend=backend).shape == (shape[0], kept)


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_outside_of_the_classes_belong_to_none(loss):
    p, labels, masks = scene(6, 7)
    for outside in (-1, 255):
        labels = labels.masked_fill(labels == 2, outside)
        expected = masks.clone().bool()
        expected[:, 2] = False
        assert torch.equal(loss(p, labels), loss(p, expected))


@pytest.mark.parametrize("loss", LOSSES)
def test_values_of_a_mask_are_nonzero_or_zero(loss):
    p, _, masks = scene(6, 7)
    assert torch.equal(loss(p, masks.byte() * 255), loss(p, masks.bool()))
    with pytest.raises(ValueError, match=r"^target: expected no negative value, got -1"):
        loss(p, -masks.long())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_losses_compile_to_one_graph(loss, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for space in ((6, 7), (3, 5, 4)):
        p, labels, masks = scene(*space)
        for target in (labels, masks.bool()):
            found = with_gradient(lambda x, t=target: compiled(x, t, backend="cpu"), p)
            expected = with_gradient(lambda x, t=target: loss(x, t, backend="cpu"), p)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize("loss", LOSSES)
def test_memory_layouts_change_no_value(loss):
    p, labels, masks = scene(6, 7)
    expected = loss(p, labels)
    for layout in testing.LAYOUTS.values():
        torch.testing.assert_close(loss(layout(p), layout(labels)), expected)
        torch.testing.assert_close(loss(layout(p), layout(masks.bool())), expected)


MISTAKES = {
    "labels for one channel": (
        ValueError,
        r"target: expected a mask of shape \[2, 1, 6, 7\] for one channel, got class labels",
        lambda loss, p, labels, masks: loss(p[:, :1], labels),
    ),
    "labels with a channel": (
        ValueError,
        r"target: expected shape .*; pass class labels as `target.squeeze\(1\)`",
        lambda loss, p, labels, masks: loss(p, labels[:, None]),
    ),
    "float labels": (
        TypeError,
        "target: expected an integer or bool dtype, got torch.float64",
        lambda loss, p, labels, masks: loss(p, labels.double()),
    ),
    "three dimensions": (
        ValueError,
        r"(probabilities|prediction): expected shape \[B, C, H, W\] or \[B, C, D, H, W\], got",
        lambda loss, p, labels, masks: loss(p[0], masks[0]),
    ),
    "sampling": (
        ValueError,
        "sampling: expected 2 numbers, got 3",
        lambda loss, p, labels, masks: loss(p, labels, sampling=(1, 1, 1)),
    ),
    "reduction": (
        ValueError,
        "reduction: expected one of 'mean', 'sum', 'none', got None",
        lambda loss, p, labels, masks: loss(p, labels, reduction=None),
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("error", "message", "call"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_name_the_argument(error, message, call, loss):
    with pytest.raises(error, match=f"^{message}"):
        call(loss, *scene(6, 7))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ([3], ValueError, "classes: expected numbers below C = 3, got 3"),
        ([-1], ValueError, "classes: expected at least 0, got -1"),
        ([], ValueError, "classes: expected at least one class, got none"),
        (1, TypeError, "classes: expected a list of ints, got int"),
        ([0.5], TypeError, "classes: expected an int, got float"),
        (torch.tensor([1]), TypeError, "classes: expected a list of ints, got Tensor"),
    ],
)
def test_classes_are_numbers_of_channels(classes, error, message):
    p, labels, _ = scene(6, 7)
    with pytest.raises(error, match=f"^{message}"):
        pk.boundary_loss(p, labels, classes=classes)
    if classes != [3]:
        with pytest.raises(error, match=f"^{message}"):
            pk.BoundaryLoss(classes=classes)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"alpha": -1}, ValueError, "alpha"),
        ({"alpha": float("inf")}, ValueError, "alpha"),
        ({"alpha": "2"}, TypeError, "alpha"),
        ({"include_background": 1}, TypeError, "include_background"),
        ({"batch": None}, TypeError, "batch"),
        ({"reduction": "max"}, ValueError, "reduction"),
    ],
)
def test_modules_refuse_wrong_options_when_they_are_made(options, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        pk.HausdorffLoss(**options)


def test_modules_are_their_functions():
    p, labels, _ = scene(6, 7)
    boundary = pk.BoundaryLoss(classes=[1, 2], reduction="sum")
    assert torch.equal(
        boundary(p, labels), pk.boundary_loss(p, labels, classes=[1, 2], reduction="sum")
    )
    assert repr(boundary) == "BoundaryLoss(classes=[1, 2], reduction='sum')"
    loss = pk.HausdorffLoss(alpha=1.0, batch=True)
    assert torch.equal(loss(p, labels), pk.hausdorff_loss(p, labels, alpha=1.0, batch=True))
    assert repr(loss) == "HausdorffLoss(alpha=1.0, batch=True)"


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_computes_in_float32(loss):
    p, labels, _ = scene(6, 7)
    p = p.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(p, labels)
    assert torch.equal(found, loss(p, labels))
