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
    """A drop-in and the original code, each a call that returns a tensor or several.

    `tolerance` bounds the differences relative to the largest value; None: the original
    approximates, and the difference is only reported. The draws of a `random` case are not
    compared. The gradients in `leaf`, an input of both calls, are compared if it is given, and part
    of the timed calls with `training`. Or the calls return gradients as their last outputs.
    """

    project: str
    function: str
    ours_is: str  # in pixelkernels.compat
    differs: str
    sizes: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tolerance: float | None = 1e-4
    random: bool = False
    leaf: Tensor | None = None
    training: bool = False
    gradients: int = 0

    def differences(self) -> dict[str, float]:
        """The largest relative difference of values and of gradients, as far as compared."""
        if self.random:
            return {}
        ours, theirs = (self._outputs(call) for call in (self.ours, self.theirs))
        found = {}
        for kind in ours:
            pairs = zip(ours[kind], theirs[kind], strict=True)
            found[kind] = max(difference(*pair) for pair in pairs)
            if self.tolerance is not None and not found[kind] <= self.tolerance:
                raise SystemExit(f"{self.ours_is}: {kind} off by {found[kind]:.3g}")
        return found

    def timed(self) -> dict[str, Callable[[], Any]]:
        if not self.training:
            return {"ours": self.ours, "theirs": self.theirs}
        return {side: lambda c=call: with_gradient(c, self.leaf)
                for side, call in (("ours", self.ours), ("theirs", self.theirs))}  # fmt: skip

    def _outputs(self, call: Callable[[], Any]) -> dict[str, list[Tensor]]:
        if self.leaf is not None:
            values, gradient = with_gradient(call, self.leaf)
            return {"values": values, "gradients": [gradient]}
        outputs = as_list(call())
        count = len(outputs) - self.gradients
        found = {"values": outputs[:count], "gradients": outputs[count:]}
        return {kind: tensors for kind, tensors in found.items() if tensors}


def as_list(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def with_gradient(call: Callable[[], Any], leaf: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """The outputs and the gradient in `leaf` of their sum, each entry with its own factor."""
    assert leaf is not None
    leaf.requires_grad_(True)
    values = as_list(call())
    learned = [x for x in values if x.requires_grad]
    factors = [torch.linspace(0.5, 1.5, x.numel()).view_as(x) for x in learned]
    gradient = torch.autograd.grad(learned, leaf, factors)[0]
    leaf.requires_grad_(False)
    return [x.detach() for x in values], gradient


def difference(ours: Tensor, expected: Tensor) -> float:
    """Relative to the largest expected value. Sentinels of absent objects count as 1e9."""
    largest = expected.double().abs().clamp(max=1e9).max().clamp(min=torch.finfo().tiny)
    return float((ours.double() - expected.double()).abs().max() / largest)


def blobs(count: int, height: int, width: int, seed: int) -> Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, height, width))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 12, 12)) > 0)
