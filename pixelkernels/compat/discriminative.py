"""The discriminative loss with the conventions of torch-em, nyoki-mtl and Wizaron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pixelkernels._core import validation as check
from pixelkernels.regions import compact_labels, discriminative_loss

PACKAGE = "torch_em"


class ContrastiveLoss(nn.Module):
    """torch-em's (loss/contrastive.py), of embeddings [B, E, H, W] and labels [B, 1, H, W], or of
    volumes [B, E, D, H, W] and [B, 1, D, H, W]. Returns: [1].

    Ids need not be consecutive. Pixels of `ignore_label` have no part in any term. `impl` names the
    original's implementations, which differ in memory alone, and has no effect.
    """

    implementations = (None, "scatter", "expand")

    def __init__(
        self,
        delta_var: float,
        delta_dist: float,
        norm: str | int = "fro",
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.001,
        ignore_label: int | None = None,
        impl: str | None = None,
    ) -> None:
        super().__init__()
        order_of(norm)
        check.option("impl", impl, self.implementations)
        # torch-em stores these with a checkpoint, to create the object again
        self.init_kwargs = {
            "delta_var": delta_var, "delta_dist": delta_dist, "norm": norm, "alpha": alpha,
            "beta": beta, "gamma": gamma, "ignore_label": ignore_label, "impl": impl,
        }  # fmt: skip
        self.delta_var, self.delta_dist, self.norm = delta_var, delta_dist, norm
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.ignore_label = ignore_label

    def forward(self, input_: Tensor, target: Tensor) -> Tensor:
        expected = [len(input_), 1, *input_.shape[2:]]
        if input_.dim() not in (4, 5) or list(target.shape) != expected:
            raise ValueError(
                "input_, target: expected [B, E, H, W] or [B, E, D, H, W] and [B, 1, ...], got"
                f" {list(input_.shape)} and {list(target.shape)}"
            )
        ids = target[:, 0].flatten(1, -2)
        labels, count = compact_labels(ids, ignore_index=self.ignore_label)
        loss = discriminative_loss(
            input_.flatten(2, -2), labels, max(count, 1),
            delta_var=self.delta_var, delta_dist=self.delta_dist,
            weights=(self.alpha, self.beta, self.gamma), norm=order_of(self.norm),
        )  # fmt: skip
        return loss[None]


def nyoki_loss(
    input: Tensor,
    target: Tensor,
    n_clusters: Sequence[int],
    delta_var: float = 0.5,
    delta_dist: float = 1.5,
    norm: Literal[1, 2] = 2,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 0.001,
) -> Tensor:
    """nyoki-mtl's DiscriminativeLoss: the distance term has half the paper's weight.

    Args:
        input: [B, E, H, W].
        target: one-hot masks [B, n, H, W], of which image b uses the first n_clusters[b]. A pixel
            without a mask belongs to no cluster. Masks must not overlap.
    """
    labels = _labels(target, n_clusters)
    return discriminative_loss(
        input, labels, target.shape[1], delta_var=delta_var, delta_dist=delta_dist,
        weights=(alpha, beta / 2, gamma), norm=norm,
    )  # fmt: skip


def wizaron_loss(
    input: Tensor,
    target: Tensor,
    n_clusters: Sequence[int],
    delta_var: float,
    delta_dist: float,
    norm: Literal[1, 2],
    scale_var: float = 1.0,
    scale_dist: float = 1.0,
    scale_reg: float = 0.001,
) -> Tensor:
    """Wizaron's DiscriminativeLoss: as nyoki's, but with the paper's distance term, and a variance
    term that is the mean over the pixels of all clusters.
    """
    labels = _labels(target, n_clusters)
    return discriminative_loss(
        input, labels, target.shape[1], delta_var=delta_var, delta_dist=delta_dist,
        weights=(scale_var, scale_dist, scale_reg), norm=norm, pixel_weighting="pixel",
    )  # fmt: skip


def order_of(norm: str | int) -> Literal[1, 2]:
    """1 or 2, for the norm of a vector as `torch.norm` names it."""
    if norm not in ("fro", 1, 2):
        raise ValueError(f"norm: expected 'fro', 1 or 2, got {norm!r}")
    return 1 if norm == 1 else 2


def _labels(target: Tensor, n_clusters: Sequence[int]) -> Tensor:
    """Labels of one-hot masks, -1 where there is no mask."""
    order = torch.arange(target.shape[1], device=target.device)
    counts = torch.as_tensor(n_clusters, device=target.device)
    masks = (target > 0) & (order < counts[:, None])[..., None, None]
    return torch.where(masks.any(1), masks.int().argmax(1), -1)


REPLACES = {"loss.contrastive:ContrastiveLoss": ContrastiveLoss}
