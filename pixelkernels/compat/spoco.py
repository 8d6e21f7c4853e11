"""spoco's contrastive loss (spoco/losses.py), also of pytorch-3dunet and PlantSeg."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixelkernels.regions import compact_labels, discriminative_loss, region_stats

from .discriminative import order_of

PACKAGE = "spoco"


class ContrastiveLoss(nn.Module):
    """spoco's `ContrastiveLoss`, of embeddings [N, E, H, W] and instance ids [N, H, W], or volumes
    [N, E, D, H, W] and [N, D, H, W].

    Label 0 is left out of the pull and push terms, but not of the regulariser, of each image that
    asks for it: with `zero_label_push`, where it has that label; with `ignore_label`, where the
    original ids have that one (the target is then [N, 2, ...], ids from 0 and original ids).

    Args:
        delta_var, delta_dist, norm, alpha, beta, gamma: as in the original.

    Ids need not be consecutive; an image of label 0 alone has a pull and push of 0. The terms of
    `SpocoContrastiveLoss`, which this one has with weight 0, are not here.
    """

    def __init__(
        self,
        delta_var: float,
        delta_dist: float,
        norm: str | int = "fro",
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.001,
        ignore_label: int | None = None,
        zero_label_push: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.delta_var, self.delta_dist = delta_var, delta_dist
        self.norm = order_of(norm)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.ignore_label, self.zero_label_push = ignore_label, zero_label_push

    def forward(self, input_: Tensor, target: Tensor) -> Tensor:
        features = input_.flatten(2, -2)
        if self.ignore_label is None:
            ids = target.flatten(1, -2)
            without = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        else:
            ids, original = (x.flatten(1, -2) for x in target.unbind(1))
            without = (original == self.ignore_label).flatten(1).any(1)
        nothing = ids == 0
        if self.zero_label_push:
            without |= nothing.flatten(1).any(1)
        labels, count = compact_labels(ids)
        kept = torch.where(nothing & without[:, None, None], -1, labels)
        images = (kept >= 0).flatten(1).any(1).sum()
        pull_and_push = discriminative_loss(
            features, kept, count, delta_var=self.delta_var, delta_dist=self.delta_dist,
            weights=(self.alpha, self.beta, 0.0), norm=self.norm,
        )  # fmt: skip
        stats = region_stats(features, labels, count)
        norms = torch.linalg.vector_norm(stats.mean, self.norm, dim=2).sum(1)
        regulariser = (norms / (stats.count > 0).sum(1)).mean()
        return pull_and_push * images / len(ids) + self.gamma * regulariser


REPLACES = {"losses:ContrastiveLoss": ContrastiveLoss}
