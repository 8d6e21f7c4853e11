"""Seeded inputs for the tests and the benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def _cropped(x: Tensor) -> Tensor:
    """A part of a larger tensor, whose other elements are NaN, or 1 where there is none."""
    *leading, height, width = x.shape
    other = torch.nan if x.is_floating_point() else 1
    whole = torch.full((*leading, height + 3, width + 5), other, dtype=x.dtype, device=x.device)
    whole[..., 1 : height + 1, 2 : width + 2] = x
    return whole[..., 1 : height + 1, 2 : width + 2]


# the same values in other strides, of tensors with two dimensions or more
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": _channels_last,
    "transposed": lambda x: x.mT.contiguous().mT,
    "cropped": _cropped,
}


def features(
    *shape: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    layout: str = "contiguous",
    seed: int = 0,
) -> Tensor:
    """Normal features, the same values in every dtype, device and layout."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    return LAYOUTS[layout](x.to(device, dtype))


def weights(
    *shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 1
) -> Tensor:
    """Weights in (0, 1), the first row of the first image exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(shape, dtype=torch.float64, generator=generator)
    w[:1, :1] = 0
    return w.to(device, dtype)


def random_labels(*shape: int, low: int = 0, high: int, seed: int = 0) -> Tensor:
    """A label of its own for every pixel."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def coherent_labels(batch: int, height: int, width: int, num_regions: int, seed: int = 0) -> Tensor:
    """Connected regions with straight borders, like a label map: the cells of random centres."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(height)[:, None, None]
    columns = torch.arange(width)[None, :, None]
    maps = []
    for _ in range(batch):
        centre = torch.rand(num_regions, 2, generator=generator) * torch.tensor([height, width])
        distance = (rows - centre[:, 0]).square() + (columns - centre[:, 1]).square()
        maps.append(distance.argmin(-1))
    return torch.stack(maps) if maps else torch.zeros(0, height, width, dtype=torch.int64)


@contextlib.contextmanager
def same_draws(backend: str = "cpu") -> Iterator[None]:
    """One backend draws the pixels of `is_triplet_loss` and `sample_reference`, whichever computes
    the rest: so losses that sample can be compared between backends.
    """
    # the modules, not the functions of the same names: both draw by a function `draw(backend, ...)`
    from ..similarity import sampling
    from ..triplet import hinge

    with contextlib.ExitStack() as patches:
        for module in (sampling, hinge):
            draw = module.draw

            def draw_alike(_: str, *arguments: Any, draw: Callable[..., Any] = draw) -> Any:
                return draw(backend, *arguments)

            patches.enter_context(mock.patch.object(module, "draw", draw_alike))
        yield
