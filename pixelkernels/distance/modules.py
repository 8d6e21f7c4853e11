"""The modules of the distance family: a function each, with its options or its state."""

from __future__ import annotations

from torch import Tensor

from .._core.modules import OptionsModule
from .api import click_maps


class ClickMaps(OptionsModule):
    """`click_maps` as a module: `ClickMaps(**options)(points, labels, size)`."""

    def forward(self, points: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        return click_maps(points, labels, size, **self.options)
