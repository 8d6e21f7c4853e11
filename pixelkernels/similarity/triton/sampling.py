"""sample_ranks: the first values of a random permutation of each set."""

from __future__ import annotations

from torch import Tensor

from ..._core import triton_permutation as permutation


def sample_ranks(counts: Tensor, seed: Tensor, num: int) -> Tensor:
    return permutation.sample_ranks(counts, seed, num)[0]
