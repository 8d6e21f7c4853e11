"""The triplet hinge from torch's own triplet_margin_loss, and inputs for it."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch.nn.functional import triplet_margin_loss

import pixelkernels as pk
from pixelkernels import testing


def literal(features, anchor, positive, negative, margin=3.0, squared=False, eps=1e-6):
    """The hinges of the rows that are there, image by image: a list of [rows]."""
    images = []
    for pixels, *sets in zip(features.flatten(2).mT, anchor, positive, negative, strict=True):
        there = torch.stack(sets).amin(0) >= 0
        a, p, n = (pixels[index[there].long()] for index in sets)
        if squared:
            hinge = ((a - p).square().sum(1) - (a - n).square().sum(1) + margin).clamp(min=0)
        elif there.any():
            hinge = triplet_margin_loss(a, p, n, margin=margin, p=2, eps=eps, reduction="none")
        else:
            hinge = pixels.sum() * 0 + pixels.new_zeros(0)
        images.append(hinge)
    return images


def literal_mean(*arguments, **options):
    """Over the rows of an image, and over the images that have any."""
    means = [hinge.mean() for hinge in literal(*arguments, **options) if len(hinge)]
    return torch.stack(means).mean() if means else arguments[0].sum() * 0


def inputs(
    dtype=torch.float32, device="cpu", layout="contiguous", shape=(3, 21, 9, 13), rows=150, seed=0
):
    """Features and three sets: pixels recur, rows have a pixel twice, some rows are absent, and
    the last image has none."""
    features = testing.LAYOUTS[layout](testing.features(*shape, seed=seed).to(device, dtype))
    pixels = shape[2] * shape[3]
    sets = testing.random_labels(3, shape[0], rows, low=0, high=pixels, seed=seed + 1)
    sets[1, :, 3] = sets[0, :, 3]
    sets[2, :, 4] = sets[0, :, 4]
    sets[:, :, 5:20] = sets[:, :, 4:5]
    sets[0, :, ::7] = sets[1, :, 3::11] = -1
    sets[2, -1] = -1
    return features, *sets.to(device)


def hinges_and_gradient(features, sets, backend, **options):
    """The hinges [B, K], and their gradient for a cotangent that tells rows apart."""
    leaf = features.detach().requires_grad_()
    found = pk.triplet_hinge(leaf, *sets, reduction="none", backend=backend, **options)
    cotangent = torch.linspace(-1, 2, found.numel(), dtype=found.dtype, device=found.device)
    return found.detach(), *torch.autograd.grad(found, leaf, cotangent.view(found.shape))


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
