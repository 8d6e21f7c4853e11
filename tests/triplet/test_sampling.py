"""Sampled pixels: distinct, of the mask, and uniform."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import INTERPRETED, backends, not_interpreted

ALL = backends("eager", "cpu", "triton")


def sample(mask, num_samples, seed, backend):
    generator = torch.Generator(mask.device).manual_seed(seed)
    return pk.sample_pixels(mask, num_samples, generator=generator, backend=backend)


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("num_samples", [1, 20, 64, 65, 200])
def test_draws_are_distinct_pixels_of_the_mask(num_samples, backend, device):
    mask = testing.random_labels(5, 9, 13, high=2, seed=3).bool()
    mask[1], mask[2], mask[3] = False, True, False
    mask[3, 8, 12] = True
    for given_mask in (mask.to(device), mask.to(device).int() * 7):
        found = sample(given_mask, num_samples, 4, backend).cpu()
        assert found.shape == (5, num_samples)
        assert found.dtype == torch.int64
        for pixels, inside in zip(found, mask.flatten(1), strict=True):
            count = min(num_samples, int(inside.sum()))
            assert (pixels[count:] == -1).all()
            assert inside[pixels[:count]].all()
            assert len(pixels[:count].unique()) == count


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_one_state_of_the_generator_gives_one_draw(backend, device):
    mask = testing.random_labels(2, 13, 9, high=2).bool().to(device)
    first, second, other = (sample(mask, 30, seed, backend) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    torch.manual_seed(5)
    first = [pk.sample_pixels(mask, 30, backend=backend) for _ in range(2)]
    torch.manual_seed(5)
    second = [pk.sample_pixels(mask, 30, backend=backend) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(*first)


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_draws_are_uniform_in_random_order_and_independent(backend, device):
    """12 of 30 pixels, in 4 images and 1500 calls that share one generator."""
    images, calls, count, num = 4, 1500, 30, 12
    mask = torch.zeros(images, 6, 10, dtype=torch.bool, device=device)
    mask[:, :, ::2] = True
    generator = torch.Generator(device).manual_seed(11)
    draws = [
        pk.sample_pixels(mask, num, generator=generator, backend=backend) for _ in range(calls)
    ]
    ranks = torch.stack(draws).cpu() // 2  # [calls, images, num], in 0 ... 29
    flat = ranks.flatten(0, 1)

    def p_value(counts):
        return stats.chisquare(counts.flatten().numpy()).pvalue

    # every pixel as often, at every place of the order as often
    at = torch.stack([torch.bincount(flat[:, i], minlength=count) for i in range(num)])
    assert p_value(at[0]) > 1e-4
    assert p_value(at[num - 1]) > 1e-4
    # inclusion without replacement varies less than chi-square's: only far too much is wrong
    included = at.sum(0).double()
    expected = flat.shape[0] * num / count
    spread = math.sqrt(expected * (1 - num / count))
    assert ((included - expected).abs() < 5 * spread).all()
    # of two drawn pixels the first is the smaller one half of the time
    smaller = (flat[:, 0] < flat[:, 1]).sum().item()
    assert stats.binomtest(smaller, len(flat)).pvalue > 1e-4
    # pairs of places, of images and of calls: no more alike than chance has it
    for a, b, space in (
        (ranks[:, 0, 0], ranks[:, 1, 0], count * count),
        (ranks[:-1, 0, 0], ranks[1:, 0, 0], count * count),
    ):
        together = torch.bincount(a * count + b, minlength=space)
        assert p_value(together) > 1e-4
    same = (ranks[:, 0, 0] == ranks[:, 2, 0]).sum().item()
    assert stats.binomtest(same, calls, 1 / count).pvalue > 1e-4


@pytest.mark.skipif(not INTERPRETED, reason="a generator of a GPU draws other numbers")
@pytest.mark.parametrize("backend", backends("triton"))
@pytest.mark.parametrize("num_samples", [1, 40, 400])
def test_triton_draws_as_the_cpu(num_samples, backend):
    mask = testing.random_labels(2, 23, 29, high=2, seed=3).bool()
    mask[1] = False
    for given_mask in (mask, mask[:0], mask[:, :0]):
        found, expected = (sample(given_mask, num_samples, 5, name) for name in (backend, "cpu"))
        assert torch.equal(found, expected)


def test_generator_of_another_device_is_refused():
    mask = torch.ones(1, 2, 3, dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match=r"^generator: .*meta.*cpu"):
        pk.sample_pixels(mask, 3, generator=torch.Generator())
