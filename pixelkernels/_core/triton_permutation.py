"""Random permutations in Triton whose values are computed independently of each other."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .triton import ceil_div, launch

# values per program
BLOCK = 128
WORD: tl.constexpr = tl.constexpr(0xFFFFFFFF)


@triton.jit
def key_number(seed, number):
    """The low 32 bits of output `number` of splitmix64."""
    z = seed + (number + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return (z ^ (z >> 31)) & WORD


@triton.jit
def hash32(key, value):
    """MurmurHash3's finaliser of `value * odd + key`, in the low halves of 64-bit words."""
    h = (value * 0x9E3779B1 + key) & WORD
    h ^= h >> 16
    h = (h * 0x85EBCA6B) & WORD
    h ^= h >> 13
    h = (h * 0xC2B2AE35) & WORD
    return h ^ (h >> 16)


@triton.jit
def permuted(x, seed, first_key, left_bits, right_bits):
    """A permutation of [0, 2^(left_bits + right_bits)): a Feistel network of eight rounds."""
    one = tl.full([], 1, tl.uint64)
    low = (one << right_bits) - 1
    high = (one << left_bits) - 1
    left = x >> right_bits
    right = x & low
    for i in range(0, 4):
        right ^= hash32(key_number(seed, first_key + 2 * i), left) & low
        left ^= hash32(key_number(seed, first_key + 2 * i + 1), right) & high
    return (left << right_bits) | right


@triton.jit(do_not_specialize=["num", "tiles"])
def _ranks_kernel(counts, seeds, ranks, num, sets, tiles, BLOCK: tl.constexpr):
    """One block of ranks of one set, for one seed; the number of the set selects its keys.

    The network permutes a power of two. Cycle walking restricts it to the set: a value outside is
    permuted again until it lies inside.
    """
    program = tl.program_id(0).to(tl.int64)
    slot = program // tiles
    which = slot % sets
    i = program % tiles * BLOCK + tl.arange(0, BLOCK)
    count = tl.load(counts + which)
    state = tl.load(seeds + slot // sets).to(tl.uint64)
    bits = tl.full([], 8, tl.int64)
    while (count - 1) >> bits > 0:
        bits += 1
    left_bits = (bits // 2).to(tl.uint64)
    right_bits = (bits - bits // 2).to(tl.uint64)
    inside = i < count
    x = tl.where(inside, i, 0).to(tl.uint64)
    outside = inside
    while tl.max(outside.to(tl.int32), axis=0) > 0:
        x = tl.where(outside, permuted(x, state, which * 8, left_bits, right_bits), x)
        outside = inside & (x.to(tl.int64) >= count)
    tl.store(ranks + slot * num + i, tl.where(inside, x.to(tl.int64), -1), mask=i < num)


def sample_ranks(counts: Tensor, seeds: Tensor, num: int) -> Tensor:
    """counts [...], seeds [S] -> [S, ..., num]: the first `num` values of a random permutation of
    [0, counts), then -1."""
    ranks = counts.new_empty((len(seeds), *counts.shape, num))
    if ranks.numel():
        tiles = ceil_div(num, BLOCK)
        launch(
            _ranks_kernel,
            len(seeds) * counts.numel() * tiles,
            counts,
            *(counts.contiguous(), seeds, ranks, num, counts.numel(), tiles),
            BLOCK=BLOCK,
        )
    return ranks
