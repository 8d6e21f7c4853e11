"""The modules of the similarity family: a function each, with its options or its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._core.modules import OptionsModule
from .api import TransferredLabels, label_transfer, pair_similarity_loss, prior_mask

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class LabelTransfer(OptionsModule):
    """`label_transfer` as a module: `LabelTransfer(**options)(query, reference, labels, L)`."""

    def forward(
        self, query: Tensor, reference: Tensor, labels: Tensor, num_classes: int
    ) -> TransferredLabels:
        return label_transfer(query, reference, labels, num_classes, **self.options)


class PriorMask(OptionsModule):
    """`prior_mask` as a module: `PriorMask(**options)(query, support, weights)`."""

    def forward(self, query: Tensor, support: Tensor, weights: Tensor) -> Tensor:
        return prior_mask(query, support, weights, **self.options)


class SiameseSimilarityLoss(nn.Module):
    """`pair_similarity_loss` with the state of its batch norm: `loss(x, y, x_labels, y_labels)`.

    Args:
        eps, momentum, group: as in `pair_similarity_loss`.
        affine: whether weight and bias are learned.
        track_running_stats: keep the running statistics, which normalise in evaluation; without
            them the batch's own do.

    The state_dict is that of `torch.nn.BatchNorm2d(1)`, so either loads the other's.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.group = eps, momentum, group
        self.weight = nn.Parameter(torch.ones(1)) if affine else None
        self.bias = nn.Parameter(torch.zeros(1)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", torch.zeros(1) if tracked else None)
        self.register_buffer("running_var", torch.ones(1) if tracked else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if tracked else None)

    def forward(self, x: Tensor, y: Tensor, x_labels: Tensor, y_labels: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return pair_similarity_loss(
            *(x, y, x_labels, y_labels),
            weight=self.weight,
            bias=self.bias,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training or self.running_mean is None,
            momentum=self.momentum,
            eps=self.eps,
            group=self.group,
        )

    def extra_repr(self) -> str:
        return (
            f"eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}, "
            f"track_running_stats={self.running_mean is not None}"
        )
