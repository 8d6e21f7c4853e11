"""One drop-in of `pixelkernels.compat` beside a statement of what it stands in for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Two calls with one result, and how far apart the two may be, relative to the largest value
    (None: theirs is random, or an approximation).
    """

    project: str
    function: str
    ours_is: str  # in pixelkernels.compat
    differs: str
    sizes: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tolerance: float | None = 1e-4

    def check(self) -> None:
        if self.tolerance is None:
            return
        sides = [call() for call in (self.ours, self.theirs)]
        pairs = zip(*(s if isinstance(s, tuple) else (s,) for s in sides), strict=True)
        for ours, expected in pairs:
            error = (ours.double() - expected.double()).abs().max()
            most = self.tolerance * expected.double().abs().clamp(max=1e9).max()
            if not error <= most:
                raise SystemExit(f"{self.ours_is}: off by {error:.3g}, {most:.3g} allowed")


def blobs(count: int, height: int, width: int, seed: int) -> Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, height, width))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 12, 12)) > 0)


def trained(loss: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """The loss and its gradient."""

    def call() -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        value = loss(leaf)
        return value, torch.autograd.grad(value, leaf)[0]

    return call
