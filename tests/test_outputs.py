"""Memory of large CPU outputs is given out again once they are freed, and never before."""

from __future__ import annotations

import sys

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels._core.extension import _C
from pixelkernels.testing import memory

pytestmark = [
    pytest.mark.keeps_memory,
    pytest.mark.skipif(_C is None, reason="the library is not built"),
    pytest.mark.skipif(sys.platform != "linux", reason="outputs are malloc's there"),
    pytest.mark.skipif(torch.__version__ < (2, 11), reason="torch takes no foreign memory"),
]

SHAPE = (1, 4, 1024, 1024)
BYTES = 16 << 20


def gradient(seed=0):
    leaf = testing.features(*SHAPE, seed=seed).requires_grad_()
    labels = testing.coherent_labels(1, *SHAPE[2:], 3)
    return torch.autograd.grad(pk.region_stats(leaf, labels, 3).variance.sum(), leaf)[0]


def test_what_was_freed_last_is_given_out_again():
    first = gradient()
    place, expected = first.data_ptr(), first.clone()
    del first
    second = gradient()
    assert second.data_ptr() == place
    assert torch.equal(second, expected)


def test_what_is_in_use_is_not_given_out():
    found = [gradient(seed) for seed in range(6)]
    expected = [one.clone() for one in found]
    del found[::2]
    again = [gradient(seed) for seed in (0, 2, 4)]
    assert len({one.data_ptr() for one in (*found, *again)}) == 6
    for one, wanted in zip((*found, *again), (*expected[1::2], *expected[::2]), strict=True):
        assert torch.equal(one, wanted)


def test_no_more_than_four_are_kept_and_all_are_released():
    found = [gradient(seed) for seed in range(6)]
    del found
    before = memory._resident("VmRSS")
    _C.release_memory()
    released = before - memory._resident("VmRSS")
    assert 0.9 * BYTES <= released <= 4.1 * BYTES
