"""The modules of the regions family: a function each, with its options or its state."""

from __future__ import annotations

from torch import Tensor

from .._core.modules import OptionsModule
from .api import cas_loss, discriminative_loss, metric_expression_loss


class CASLoss(OptionsModule):
    """`cas_loss` as a module: `CASLoss(**options)(descriptors, labels, num_regions)`."""

    def forward(self, descriptors: Tensor, labels: Tensor, num_regions: int) -> Tensor:
        return cas_loss(descriptors, labels, num_regions, **self.options)


class MetricExpressionLoss(OptionsModule):
    """`metric_expression_loss` as a module: `MetricExpressionLoss(**options)(features, mask)`."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return metric_expression_loss(features, mask, **self.options)


class DiscriminativeLoss(OptionsModule):
    """`discriminative_loss` as a module: `DiscriminativeLoss(**options)(features, labels, R)`."""

    def forward(self, features: Tensor, labels: Tensor, num_regions: int) -> Tensor:
        return discriminative_loss(features, labels, num_regions, **self.options)
