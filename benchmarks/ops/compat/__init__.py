"""Cases that compare a drop-in of `pixelkernels.compat` with the code that it replaces."""

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
    """A drop-in and the original code.

    `tolerance` bounds their difference relative to the largest value; None: the original is random
    or an approximation.
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
    """A call of the loss and of its gradient in x."""

    def call() -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        value = loss(leaf)
        return value, torch.autograd.grad(value, leaf)[0]

    return call
