"""Random numbers from a Generator, or from torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor


def integers(
    high: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    generator: Generator | None,
) -> Tensor:
    return torch.randint(high, shape, dtype=dtype, device=device, **_given(generator))


def uniform(shape: tuple[int, ...], device: torch.device, generator: Generator | None) -> Tensor:
    return torch.rand(shape, device=device, **_given(generator))


def seed(device: torch.device, generator: Generator | None) -> Tensor:
    """One number [1] that a kernel makes all of its numbers of."""
    return integers(2**63 - 1, (1,), torch.int64, device, generator)


def _given(generator: Generator | None) -> dict[str, Any]:
    # torch.compile traces no generator, not even None
    return {} if generator is None else {"generator": generator}
