"""The CPU kernels take subnormal numbers as 0, and leave the mode of the threads as it was."""

import subprocess
import sys

import pytest
import torch

import pixelkernels as pk
from pixelkernels.testing.arguments import Features, How
from pixelkernels.testing.samples import OPS

# less than the smallest normal number
TINY = {torch.float32: 1e-40, torch.float64: 1e-310}
# returns features as they are, and multiplies them by torch's arithmetic
COPIES = {"sample_reference", "sample_anchors", "boundary_loss"}
TAKING_FEATURES = [
    (name, case)
    for name, op in OPS.items()
    if name not in COPIES and any(isinstance(kind, Features) for kind in op.arguments.values())
    for case in op.quick_cases
]


@pytest.mark.parametrize("dtype", TINY, ids=str)
@pytest.mark.parametrize(("name", "case"), TAKING_FEATURES)
def test_subnormal_features_count_as_zero(name, case, dtype):
    call = OPS[name].call(case, How(OPS[name].sizes.tiny, dtype))
    tiny, zero = (
        call.replaced(**{n: x * size for n, x in call.named(Features).items()}).outputs("cpu")
        for size in (TINY[dtype], 0)
    )
    for title, value in tiny.items():
        torch.testing.assert_close(value, zero[title], rtol=0, atol=0, equal_nan=True)


def is_kept(threads):
    """Whether torch's own arithmetic keeps subnormal numbers, on all of its threads."""
    many = torch.full((threads * 2**16,), 1e-40)
    return bool((many * 1.0 != 0).all())


@pytest.mark.parametrize("flushed", [False, True])
def test_mode_is_restored(flushed):
    if not torch.set_flush_denormal(flushed):
        pytest.skip("torch cannot set the mode on this machine")
    try:
        before = is_kept(1)
        features = torch.randn(4, 16, 96, 96, requires_grad=True)
        labels = torch.randint(0, 5, (4, 96, 96))
        pk.discriminative_loss(features, labels, 5, backend="cpu").backward()
        pk.click_maps(torch.rand(1, 3, 2), torch.ones(1, 3, dtype=torch.int64), (64, 64))
        assert is_kept(1) == before == (not flushed)
        assert flushed or is_kept(torch.get_num_threads())
    finally:
        torch.set_flush_denormal(False)


def test_threads_that_a_kernel_starts_keep_subnormal_numbers():
    # in a process of its own, whose first loop over threads is inside one on the calling thread
    program = """
import torch
import pixelkernels as pk
features, pixels = torch.randn(1, 3, 8, 8), torch.zeros(1, 4, dtype=torch.int64)
pk.triplet_hinge(features, pixels, pixels, pixels, margin=1.0)
assert (torch.full((2**18,), 1e-40) * 1.0 != 0).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_underflow_of_a_click_map_is_zero():
    points, labels = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.int64)
    maps = pk.click_maps(points, labels, (1, 64), encoding="gaussian", radius=2.0, backend="cpu")
    smallest = torch.finfo(torch.float32).tiny
    exact = torch.exp(-torch.arange(64.0, dtype=torch.float64).square() / (2 * 2.0**2))
    torch.testing.assert_close(
        maps[0, 0, 0].double(), exact.where(exact >= smallest, 0), rtol=1e-5, atol=2 * smallest
    )
    assert not ((maps > 0) & (maps < smallest)).any()
