"""Planted errors that Triton's interpreter lets pass, and its checks find."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import INTERPRETED

triton = pytest.importorskip("triton")
tl = triton.language
pytestmark = pytest.mark.skipif(not INTERPRETED, reason="the checks are of Triton's interpreter")
BLOCK = 16


@triton.jit
def overlapping_stores(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * (BLOCK - 1) + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))


@triton.jit
def load_from_a_neighbour(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))
    tl.debug_barrier()
    other = tl.load(out + (i + BLOCK) % (2 * BLOCK))
    tl.store(x + i, other)


@triton.jit
def store_to_a_neighbour(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + (i + BLOCK) % (2 * BLOCK), tl.load(x + i))


@triton.jit
def lanes_that_disagree(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i // 2, i.to(tl.float32))


@triton.jit
def load_without_a_barrier(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))
    tl.store(x + i, tl.load(out + i))


@triton.jit
def load_before_the_tensor(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i - 1))


@triton.jit
def load_of_new_memory(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(out + i))


@triton.jit
def correct(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))
    tl.debug_barrier()
    tl.store(x + i, tl.load(out + tl.program_id(0) * BLOCK + BLOCK - 1 - tl.arange(0, BLOCK)))


MESSAGES = {
    overlapping_stores: "stores what another program stores",
    load_from_a_neighbour: "loads what another program stores|stores what another program loads",
    store_to_a_neighbour: "stores what another program loads|loads what another program stores",
    lanes_that_disagree: "stores different values to one address",
    load_without_a_barrier: "loads what it stored, without a barrier",
    load_before_the_tensor: "an address outside of all tensors",
    load_of_new_memory: "loads what nothing stored",
}


def run(kernel):
    kernel[(2,)](torch.rand(2 * BLOCK), torch.empty(2 * BLOCK), BLOCK=BLOCK)


@pytest.mark.parametrize("backend", ["triton"])
@pytest.mark.parametrize("kernel", MESSAGES, ids=lambda kernel: kernel.__name__)
def test_error_is_found(kernel, backend):
    with pytest.raises(AssertionError, match=MESSAGES[kernel]):
        run(kernel)


@pytest.mark.parametrize("backend", ["triton"])
def test_correct_kernel_passes(backend):
    run(correct)
