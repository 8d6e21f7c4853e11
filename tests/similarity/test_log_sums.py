"""The operators of mutual matches: log sums, their gradient, and best pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkernels.similarity import ops, reference
from pixelkernels.testing import LAYOUTS
from pixelkernels.testing.inputs import features
from tests.helpers import backends

ALL = pytest.mark.parametrize("backend", backends("eager", "cpu", "triton"))
COMPILED = pytest.mark.parametrize("backend", backends("cpu", "triton"))


@ALL
@pytest.mark.parametrize("masked", [False, True])
def test_log_sums_and_their_gradient(masked, backend, device):
    batch, channels, n, m = 2, 21, 40, 75
    a, b = (features(batch, channels, size, seed=size) for size in (n, m))
    masks = [None, None]
    if masked:
        masks = [torch.arange(size).expand(batch, -1) % 3 > 0 for size in (n, m)]
        masks[1] = masks[1] & torch.tensor([[True], [False]])  # no pair in the second image
        a, b = (x.where(mask[:, None], torch.nan) for x, mask in zip((a, b), masks, strict=True))

    def run(which, device, dtype):
        leaves = [x.to(device, dtype).requires_grad_() for x in (a, b)]
        given = [None if mask is None else mask.to(device).contiguous() for mask in masks]
        if which == "eager":
            sums = reference.log_sums(*leaves, *given, 0.3)
        else:
            sums = ops.log_sums(which, *leaves, *given, 0.3)
        weights = [torch.linspace(-1, 2, x.numel()).view_as(x).to(x) for x in sums]
        total = sum(
            (x.where(x.isfinite(), 0) * w).sum() for x, w in zip(sums, weights, strict=True)
        )
        return [x.detach().cpu() for x in (*sums, *torch.autograd.grad(total, leaves))]

    # the formula
    expected = run("eager", "cpu", torch.float64)
    kept = [torch.ones(batch, x.shape[2], dtype=torch.bool) for x in (a, b)]
    kept = [k if mask is None else mask for k, mask in zip(kept, masks, strict=True)]
    x, y = (
        np.nan_to_num(side.double().numpy()) * k[:, None].numpy()
        for side, k in zip((a, b), kept, strict=True)
    )
    e = np.exp(0.3 * np.einsum("bci,bcj->bij", x, y))
    e *= kept[0].numpy()[:, :, None] * kept[1].numpy()[:, None]
    with np.errstate(divide="ignore"):
        rows, columns = np.log(e.sum(2)), np.log(e.sum(1))
    rows[~kept[0].numpy()] = columns[~kept[1].numpy()] = 0
    np.testing.assert_allclose(expected[0], rows, rtol=1e-12)
    np.testing.assert_allclose(expected[1], columns, rtol=1e-12)
    found = run(backend, device, torch.float32)
    for one, right in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), right, rtol=3e-6, atol=3e-6)
    for gradient, mask in zip(found[2:], masks, strict=True):
        if mask is not None:
            assert (gradient.mT[~mask] == 0).all()


@COMPILED
def test_log_sums_of_large_similarities(backend, device):
    """They are relative to the largest term, which may come first or last."""
    a = torch.tensor([[[300.0, -300.0, 0.0]]], device=device)
    b = torch.linspace(-1, 1, 150, device=device)[None, None]
    rows, columns = ops.log_sums(backend, a, b, None, None, 1.0)
    expected = reference.log_sums(a.double(), b.double(), None, None, 1.0)
    for found, right in zip((rows, columns), expected, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-6, atol=1e-6)


@COMPILED
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_have_the_strides_of_the_features(layout, backend, device):
    a, b = (LAYOUTS[layout](features(2, 5, n)).to(device) for n in (20, 30))
    rows, columns = ops.log_sums(backend, a, b, None, None, 0.5)
    rows, columns = rows.float(), columns.float()
    found = ops.log_sums_backward(backend, a, b, None, None, rows, columns, rows, columns, 0.5)
    for gradient, x in zip(found, (a, b), strict=True):
        assert gradient.stride() == torch.empty_like(x).stride()
    plain = [x.contiguous() for x in (a, b)]
    expected = ops.log_sums_backward(backend, *plain, None, None, rows, columns, rows, columns, 0.5)
    for gradient, right in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, right)


@COMPILED
def test_operators_pass_opcheck(backend, device):
    a, b = (features(2, 5, n).to(device) for n in (7, 9))
    masks = [torch.arange(n, device=device).expand(2, -1).contiguous() > 1 for n in (7, 9)]
    suffix = "_triton" if backend == "triton" else ""
    best = getattr(torch.ops.pixelkernels, f"mutual_best{suffix}").default
    rows, columns = ops.log_sums(backend, a, b, *masks, 0.5)
    torch.library.opcheck(best, (a, b, *masks, rows.float(), columns.float(), 1.0))
    torch.library.opcheck(best, (a, b, None, None, None, None, 1.0))


@ALL
def test_best_pixels_without_any_on_the_other_side(backend, device):
    if backend == "eager":
        found = reference.mutual_best(*(torch.zeros(2, 3, n) for n in (4, 0)), None, None, 1, True)
        best_b, _, best_a = found
    else:
        a, b = (torch.zeros(2, 3, n, device=device) for n in (4, 0))
        rows, columns = ops.log_sums(backend, a, b, None, None, 1.0)
        assert (rows == -torch.inf).all()
        assert columns.shape == (2, 0)
        best_b, score, best_a = ops.mutual_best(backend, a, b, None, None, rows, columns, 2.0)
        assert (score == -torch.inf).all()
    assert (best_b == -1).all()
    assert best_b.shape == (2, 4)
    assert best_a.shape == (2, 0)


@COMPILED
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_the_first_of_equal_best_pixels(scale, backend, device):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-1, 2, (2, 3, n), generator=generator).float() for n in (70, 200))
    rows, columns = (torch.randint(3, (2, n), generator=generator).float() for n in (70, 200))
    mask_a, mask_b = (torch.rand(2, n, generator=generator) < 0.8 for n in (70, 200))
    s = torch.where(mask_a[:, :, None] & mask_b[:, None], scale * a.mT @ b, -torch.inf)
    tensors = [x.to(device) for x in (a, b, mask_a, mask_b, rows, columns)]
    best_b, similarity, best_a = ops.mutual_best(backend, *tensors, scale)
    value, first = (s - columns[:, None]).max(2)
    assert torch.equal(best_b.cpu(), torch.where(mask_a, first, -1))
    own = s.gather(2, first[..., None])[..., 0]
    assert torch.equal(similarity.cpu(), own.where(value > -torch.inf, -torch.inf))
    first = (s - rows[:, :, None]).max(1).indices
    assert torch.equal(best_a.cpu(), torch.where(mask_b, first, -1))
