"""spoco's contrastive loss (spoco/losses.py), also in pytorch-3dunet and PlantSeg."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixelkernels.regions import compact_labels, discriminative_loss, region_stats

from .discriminative import order_of

PACKAGE = "spoco"


class ContrastiveLoss(nn.Module):
    """spoco's `ContrastiveLoss`, of embeddings [N, E, H, W] and instance ids [N, H, W], or of
    volumes [N, E, D, H, W] and [N, D, H, W].

    The pull and push terms of an image skip id 0, which the regulariser includes, in two cases:
    `zero_label_push` is set and the image has id 0; or `ignore_label` is set and the original ids
    of the image include it. With `ignore_label` the target is [N, 2, ...]: ids from 0, and original
    ids.

    Args:
        delta_var, delta_dist, norm, alpha, beta, gamma: as in the original.

    Ids need not be consecutive. The pull and push terms of an image with id 0 alone are 0. The
    additional terms of `SpocoContrastiveLoss` have weight 0 in the original and are left out.
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
            skips = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        else:
            ids, original = (x.flatten(1, -2) for x in target.unbind(1))
            skips = (original == self.ignore_label).flatten(1).any(1)
        zero = ids == 0
        if self.zero_label_push:
            skips |= zero.flatten(1).any(1)
        labels, count = compact_labels(ids)
        kept = torch.where(zero & skips[:, None, None], -1, labels)
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
