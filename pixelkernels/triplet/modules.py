"""The modules of the triplet family: a function each, with its options or its state."""

from __future__ import annotations

from torch import Tensor

from .._core.modules import OptionsModule
from .api import is_triplet_loss


class ISTripletLoss(OptionsModule):
    """`is_triplet_loss` as a module: `ISTripletLoss(**options)(features, mask)`."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return is_triplet_loss(features, mask, **self.options)
