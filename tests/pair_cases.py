"""The loss over all pairs, literally: torch's batch norm and cross entropy of the list of pairs."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch.nn.functional import batch_norm, binary_cross_entropy_with_logits

import pixelkernels as pk
from pixelkernels import testing

NAMES = ("loss", "x", "y", "weight", "bias")


def pairs(x, y, x_labels, y_labels):
    """The similarities of all valid pairs of all images, and whether their labels agree."""
    similarities, same = [], []
    for one, other, own, others in zip(x, y, x_labels, y_labels, strict=True):
        one, other, own, others = one.flatten(1), other.flatten(1), own.flatten(), others.flatten()
        similarities.append((one[:, own >= 0].T @ other[:, others >= 0]).flatten())
        same.append((own[own >= 0][:, None] == others[others >= 0]).flatten())
    return torch.cat(similarities), torch.cat(same)


def literal(x, y, x_labels, y_labels, weight, bias, mean=None, var=None, training=True, **options):
    s, same = pairs(x, y, x_labels, y_labels)
    z = batch_norm(s[None, None], mean, var, weight, bias, training, **options)[0, 0]
    return binary_cross_entropy_with_logits(z, same.to(z.dtype))


def inputs(dtype=torch.float32, device="cpu", layout="contiguous", shape=(2, 19, 9, 11), seed=0):
    """x, y of another size and their labels: some pixels invalid, some labels on one side only."""
    batch, channels, height, width = shape
    x = testing.features(*shape, seed=seed)
    y = testing.features(batch, channels, height - 4, width + 3, seed=seed + 1)
    x_labels = testing.random_labels(batch, height, width, low=-1, high=4, seed=seed + 2)
    y_labels = testing.random_labels(batch, height - 4, width + 3, low=-2, high=3, seed=seed + 3)
    x, y = (testing.LAYOUTS[layout](t.to(device, dtype)) for t in (x, y))
    return x, y, x_labels.to(device), y_labels.to(device)


def value_and_gradients(x, y, x_labels, y_labels, call, weight=1.3, bias=-0.4):
    """The loss and its gradients in x, y, weight and bias."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    affine = [torch.tensor([v], dtype=wide, device=x.device) for v in (weight, bias)]
    leaves = [t.detach().requires_grad_() for t in (x, y, *affine)]
    loss = call(*leaves[:2], x_labels, y_labels, *leaves[2:])
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def loss_of(backend, **options):
    def call(x, y, x_labels, y_labels, weight, bias):
        return pk.pair_similarity_loss(
            x, y, x_labels, y_labels, weight=weight, bias=bias, backend=backend, **options
        )

    return call


def check(case, backend, **options):
    call = loss_of(backend, **options)
    double = [t.double() if t.is_floating_point() else t for t in case]
    actual = value_and_gradients(*case, call)
    oracle = value_and_gradients(*double, literal)
    plain = value_and_gradients(*case, loss_of("eager", **options))
    for a, o, p, name in zip(actual, oracle, plain, NAMES, strict=True):
        assert a.dtype == p.dtype
        # the gradient in the bias is a sum of terms that cancel
        testing.assert_within_budget(a, o, p, name, scale=1.0 if name == "bias" else 0.0)


@st.composite
def drawn(draw: st.DrawFn):
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
    return x, y, x_labels, y_labels
