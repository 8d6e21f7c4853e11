"""The oracle itself, against formulas written with NumPy loops and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pixelkernels as pk
from pixelkernels import testing

EAGER = {"backend": "eager"}


def image(seed: int, channels: int = 3, height: int = 6, width: int = 7, regions: int = 3):
    f = testing.features(1, channels, height, width, dtype=torch.float64, seed=seed)
    labels = testing.random_labels(1, height, width, low=-1, high=regions, seed=seed)
    return f, labels, f[0].numpy().reshape(channels, -1).T, labels[0].numpy().ravel()


def groups(pixels, labels, regions):
    return [pixels[labels == r] for r in range(regions) if (labels == r).any()]


@given(
    st.integers(0, 2**31),
    st.integers(1, 4),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_region_stats_is_scipys(seed, channels, size, regions):
    f, labels, pixels, flat = image(seed, channels, *size, regions)
    stats = pk.region_stats(f, labels, regions, **EAGER)
    for r in range(regions):
        inside = flat == r
        assert stats.count[0, r] == inside.sum()
        if not inside.any():
            continue
        means = [ndimage.mean(pixels[:, c], flat, r) for c in range(channels)]
        spread = sum(ndimage.variance(pixels[:, c], flat, r) for c in range(channels))
        np.testing.assert_allclose(stats.mean[0, r], means, atol=1e-12)
        np.testing.assert_allclose(stats.variance[0, r], spread, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_cas_is_equation_1(seed):
    f, labels, pixels, flat = image(seed)
    parts = groups(pixels, flat, 3)
    means = [p.mean(0) for p in parts]
    uniformer = sum(((p - m) ** 2).sum(1).mean() for p, m in zip(parts, means, strict=True))
    discriminator = sum(
        ((a - b) ** 2).sum() for i, a in enumerate(means) for j, b in enumerate(means) if i != j
    )
    loss = pk.cas_loss(f, labels, 3, alpha=0.2, **EAGER)
    np.testing.assert_allclose(loss, 0.2 * uniformer - 0.8 * discriminator, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_released_cas_is_the_weighted_two_region_form(seed):
    f, labels, pixels, flat = image(seed, regions=2)
    used = flat >= 0
    s, gt = pixels[used], flat[used][:, None].astype(float)
    w, w_rest = gt + 3e-5, 1 - gt + 3e-5
    mean, mean_rest = (w * s).sum(0) / w.sum(), (w_rest * s).sum(0) / w_rest.sum()
    uniformer = ((w * s - w * mean) ** 2).sum() / (w.sum() + 3e-5)
    discriminator = ((mean - mean_rest) ** 2).sum()
    loss = pk.cas_loss(f, labels, 2, variant="released", divisor=40, **EAGER)
    np.testing.assert_allclose(loss, (0.5 * uniformer - 0.5 * discriminator) / 40, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_metric_expression_is_equations_2_and_3(seed):
    f, mask, pixels, flat = image(seed, regions=2)
    sides = [pixels[flat == 0], pixels[flat == 1]]
    total = len(sides[0]) + len(sides[1])
    means, pairwise = 0.0, 0.0
    for own, other in (sides, sides[::-1]):
        for x in own:
            means += ((x - own.mean(0)) ** 2).sum() - ((x - other.mean(0)) ** 2).sum()
            pairwise += ((x - own) ** 2).sum(1).mean() - ((x - other) ** 2).sum(1).mean()
    np.testing.assert_allclose(
        pk.metric_expression_loss(f, mask, **EAGER), means / total, rtol=1e-12
    )
    gap = sides[1].mean(0) - sides[0].mean(0)
    np.testing.assert_allclose(means / total, -(gap**2).sum(), rtol=1e-12)
    loss = pk.metric_expression_loss(f, mask, form="pairwise", **EAGER)
    np.testing.assert_allclose(loss, pairwise / total, rtol=1e-12)


def test_normalization_keeps_zero_vectors():
    f = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 2.0]], dtype=torch.float64).view(1, 2, 1, 3)
    mask = torch.tensor([[[1, 1, 0]]])
    # means: half of (0.6, 0.8) and (0, 1)
    loss = pk.metric_expression_loss(f, mask, normalize=True, **EAGER)
    np.testing.assert_allclose(loss, -(0.3**2 + 0.6**2), rtol=1e-12)


def literal_mining(scores, flat):
    """The released layer's selection: sorted by (score, index), largest first, zeros demoted."""
    sides = {label: np.flatnonzero(flat == label) for label in (0, 1)}
    n = min(len(side) for side in sides.values())
    larger = 1 if len(sides[1]) > len(sides[0]) else 0
    ranked = sorted(
        ((-100.0 if scores[i] == 0 else scores[i], i) for i in sides[larger]), reverse=True
    )
    mined = {i for _, i in ranked[:n]} | (set(sides[1 - larger]) if n else set())
    return mined


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_hard_mining_is_the_literal_ranking(seed, pixels, ignored):
    generator = np.random.default_rng(seed)
    scores = generator.integers(-2, 3, pixels).astype(float)  # many ties and zeros
    scores[generator.random(pixels) < 0.1] = -200  # ranks below the demoted zeros
    flat = generator.integers(0, 2 + bool(ignored), pixels)
    mined = literal_mining(scores, flat)
    expected = [4 if side > 1 else 2 * side + (i in mined) for i, side in enumerate(flat)]
    for kernel in (pk.regions.reference.hard_pixels, torch.ops.pixelkernels.hard_pixels):
        for dtype in (torch.float64, torch.float32):
            out = kernel(torch.tensor(scores, dtype=dtype)[None], torch.tensor(flat)[None])
            assert out[0].tolist() == expected


def test_mined_loss_and_released_gradient_by_hand():
    # side 1 has one pixel, side 0 three; their terms t rank pixel 3 first
    f = torch.tensor([4.0, 0.0, 0.0, 3.0], dtype=torch.float64).view(1, 1, 1, 4).requires_grad_()
    mask = torch.tensor([[[1, 0, 0, 0]]])
    # means 4 and 1: t = (0 - 9, 1 - 16, 1 - 16, 4 - 1), mined pixels 0 and 3
    loss = pk.metric_expression_loss(f, mask, mining="hard", **EAGER)
    assert loss == (-9 + 3) / 2
    released = pk.metric_expression_loss(f, mask, grad="released", **EAGER)
    assert released == 4 - 9
    (gradient,) = torch.autograd.grad(released, f)
    # (other mean - own mean) / (C H W) at the mined pixels
    assert gradient.flatten().tolist() == [-3 / 4, 0, 0, 3 / 4]


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("pixel_weighting", ["cluster", "pixel"])
def test_discriminative_is_the_papers_three_terms(norm, pixel_weighting):
    f, labels, pixels, flat = image(4, regions=4)
    parts = groups(pixels, flat, 4)
    means = [p.mean(0) for p in parts]
    length = lambda v: np.linalg.norm(v, norm, axis=-1)  # noqa: E731
    hinges = [np.maximum(length(p - m) - 0.5, 0) ** 2 for p, m in zip(parts, means, strict=True)]
    pull = (
        np.mean([h.mean() for h in hinges])
        if pixel_weighting == "cluster"
        else np.concatenate(hinges).mean()
    )
    count = len(parts)
    push = sum(
        max(3 - length(a - b), 0) ** 2
        for i, a in enumerate(means)
        for j, b in enumerate(means)
        if i != j
    ) / (count * (count - 1))
    expected = pull + push + 1e-3 * np.mean([length(m) for m in means])
    options = {"norm": norm, "pixel_weighting": pixel_weighting}
    loss = pk.discriminative_loss(f, labels, 4, **options, **EAGER)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_one_cluster_has_no_push_term():
    f, labels, *_ = image(1)
    loss = pk.discriminative_loss(f, labels.clamp(max=0), 3, weights=(0, 1, 0), **EAGER)
    assert loss == 0


def test_background_distance_and_pool_by_hand():
    f = torch.tensor([[0.0, 3.0, 3.0], [0.0, 4.0, 0.0]], dtype=torch.float64).view(1, 2, 1, 3)
    w = torch.tensor([[[2.0, 0.0, 0.0]]], dtype=torch.float64)
    assert pk.background_distance(f, w, **EAGER).flatten().tolist() == [0, 5, 3]
    assert pk.background_distance(f, w, squared=True, **EAGER).flatten().tolist() == [0, 25, 9]
    minmax = pk.background_distance(f, w, normalize="minmax", **EAGER)
    np.testing.assert_allclose(minmax.flatten(), [0, 1, 0.6], atol=1e-8)
    pooled = pk.masked_average_pool(
        f, torch.tensor([[[1.0, 1.0, 2.0]]], dtype=torch.float64), **EAGER
    )
    np.testing.assert_allclose(pooled[0], np.array([9, 4]) / (4 + 1e-5), rtol=1e-12)


@pytest.mark.parametrize("size", [(33, 41), (12, 14), (6, 7), (5, 20)])
def test_upsampled_pool_is_pooling_the_upsampled_features(size):
    f, *_ = image(2)
    w = torch.rand(1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(f, size, mode="bilinear", align_corners=False)
    expected = (fine * w[:, None]).sum((2, 3)) / (w.sum() + 1e-5)
    torch.testing.assert_close(pk.masked_average_pool(f, w, upsample="bilinear", **EAGER), expected)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([(), (0,), (-7, 3), (2**40,)]))
@settings(max_examples=100, deadline=None)
def test_compact_labels_is_the_rank_among_the_distinct(backend, seed, pixels, ignore):
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 3, -7, 11, 255, 2**40], (2, 1, pixels))
    compact, regions = pk.compact_labels(torch.tensor(labels), ignore_index=ignore, backend=backend)
    counts = []
    for old, new in zip(labels, compact, strict=True):
        kept = [value for value in np.unique(old) if value not in ignore]
        counts.append(len(kept))
        expected = [kept.index(value) if value in kept else -1 for value in old.ravel()]
        assert new.flatten().tolist() == expected
    assert regions == max(*counts, 1)
