"""What holds for sampled references alone: which pixels are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.similarity import ops
from tests.helpers import INTERPRETED, backends, first_quick

ALL = backends("eager", "cpu", "triton")


def picture(device):
    """Features that name their pixel, and labels: class 3 is absent."""
    labels = testing.random_labels(2, 14, 17, low=-1, high=3).to(device)
    pixels = torch.arange(2.0 * 14 * 17, device=device).view(2, 1, 14, 17)
    return torch.cat([pixels, -pixels], 1), labels


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("num", first_quick(5, 1, 20, 300, when=INTERPRETED))
def test_samples_are_distinct_pixels_of_their_class(num, backend, device):
    features, labels = picture(device)
    drawn, drawn_labels = pk.sample_reference(features, labels, 4, num, backend=backend)
    assert drawn.shape == (2, 2, 4 * num)
    assert drawn_labels.dtype == torch.int64
    for image in range(2):
        for c in range(4):
            part = slice(c * num, (c + 1) * num)
            count = min(int((labels[image] == c).sum()), num)
            expected = torch.full((num,), -1, device=device)
            expected[:count] = c
            assert torch.equal(drawn_labels[image, part], expected)
            values, negated = drawn[image, :, part]
            assert torch.equal(values, -negated)
            assert not values[count:].any()
            assert len(values[:count].unique()) == count
            own = features[image, 0][labels[image] == c]
            assert torch.isin(values[:count], own).all()


def assert_uniform(counts):
    assert stats.chisquare(counts).pvalue > 1e-4


# Triton draws the same ranks as the CPU: test_ranks_are_those_of_the_definition
@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_samples_are_uniform_and_in_random_order(backend):
    """7 of 40 pixels, and all orders of 3, over many images at once."""
    images, pixels, num = 4000, 40, 7
    labels = torch.zeros(images, 1, pixels, dtype=torch.int64)
    features = torch.arange(1.0, pixels + 1).expand(images, 1, 1, pixels)
    options = {"generator": torch.Generator().manual_seed(3), "backend": backend}
    drawn, _ = pk.sample_reference(features, labels, 1, num, **options)
    drawn = drawn[:, 0].long().numpy() - 1
    for column in range(num):
        assert_uniform(np.bincount(drawn[:, column], minlength=pixels))
    # every ordered pair of neighbouring draws is as likely
    pairs = np.bincount(drawn[:, 0] * pixels + drawn[:, 1], minlength=pixels**2)
    assert_uniform(pairs.reshape(pixels, pixels)[~np.eye(pixels, dtype=bool)])
    orders, _ = pk.sample_reference(features[..., :3], labels[..., :3], 1, 3, **options)
    codes = (orders[:, 0] * torch.tensor([16.0, 4.0, 1.0])).sum(1)
    found, counts = np.unique(codes.numpy(), return_counts=True)
    assert len(found) == 6
    assert_uniform(counts)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_classes_and_images_are_drawn_independently(backend):
    labels = torch.arange(2).repeat_interleave(30).expand(3000, 1, 60)
    features = torch.arange(60.0).expand(3000, 1, 1, 60)
    generator = torch.Generator().manual_seed(4)
    drawn, _ = pk.sample_reference(features, labels, 2, 1, generator=generator, backend=backend)
    first, second = drawn[:, 0].long().numpy().T
    assert_uniform(np.bincount(first * 30 + second - 30, minlength=900))
    assert_uniform(np.bincount(first[:-1] * 30 + first[1:], minlength=900))


@pytest.mark.parametrize("backend", ALL)
def test_the_generator_decides(backend, device):
    features = torch.arange(512.0, device=device).view(1, 1, 16, 32)
    labels = (features[0] % 2).long()

    def draw(seed):
        generator = torch.Generator(device).manual_seed(seed)
        return pk.sample_reference(features, labels, 2, 20, generator=generator, backend=backend)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def ranks(counts, seed, num):
    """The first `num` values of a Feistel permutation of each [0, count), in Python's integers."""
    low, word = 2**32 - 1, 2**64 - 1

    def mix(key, value):
        h = (value * 0x9E3779B1 + key) & low
        h = ((h ^ h >> 16) * 0x85EBCA6B) & low
        h = ((h ^ h >> 13) * 0xC2B2AE35) & low
        return h ^ h >> 16

    def key(number):
        z = (seed + 0x9E3779B97F4A7C15 * (number + 1)) & word
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & word
        return (z ^ z >> 31) & low

    result = []
    for which, count in enumerate(counts):
        bits = max(8, (count - 1).bit_length())
        high, b = bits // 2, bits - bits // 2
        for i in range(num):
            x = i if i < count else -1
            while i < count:
                left, right = x >> b, x & (2**b - 1)
                for r in range(4):
                    right ^= mix(key(which * 8 + 2 * r), left) & (2**b - 1)
                    left ^= mix(key(which * 8 + 2 * r + 1), right) & (2**high - 1)
                x = left << b | right
                if x < count:
                    break
            result.append(x)
    return torch.tensor(result).view(len(counts), num)


@pytest.mark.parametrize("backend", backends("cpu", "triton"))
@pytest.mark.parametrize(
    ("counts", "seed", "num"),
    [
        ([[0, 9, 200, 255], [256, 257, 300, 2**31 - 1]], 0, 7),
        ([[0, 9, 200, 255], [256, 257, 300, 2**31 - 1]], 2**63 - 2, 7),
        ([[257]], 5, 260),
    ],
)
def test_ranks_are_those_of_the_definition(counts, seed, num, backend, device):
    counts = torch.tensor(counts, device=device)
    found = ops.sample_ranks(backend, counts, torch.tensor([seed], device=device), num)
    expected = ranks(counts.flatten().tolist(), seed, num)
    assert torch.equal(found.cpu(), expected.view(found.shape))


def test_ranks_are_distinct():
    counts = torch.tensor([[0, 1, 2, 255, 256, 257, 100_000, 2**31 - 1]])
    found = ops.sample_ranks("cpu", counts, torch.tensor([2**62 + 5]), 5000)
    for count, row in zip(counts[0].tolist(), found[0], strict=True):
        drawn = min(count, 5000)
        assert (row[drawn:] == -1).all()
        assert ((row[:drawn] >= 0) & (row[:drawn] < count)).all()
        assert len(row[:drawn].unique()) == drawn
