"""pytorch-metric-learning's supervised contrastive loss (losses/supcon_loss.py)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelkernels._core import validation as check
from pixelkernels.similarity.contrast import check_rows, contrast_losses

PACKAGE = "pytorch_metric_learning"
# no label: every row takes part
NONE = -(2**63)
# the options that have one value here: None, or an object of this class
DEFAULTS = {
    "distance": "CosineSimilarity",
    "reducer": "AvgNonZeroReducer",
    "embedding_regularizer": "NoneType",
    "collect_stats": "NoneType",
}


class SupConLoss(nn.Module):
    """pytorch-metric-learning's `SupConLoss`, of embeddings [N, D] and integer labels [N], and
    optionally of references `ref_emb` [M, D] with `ref_labels` [M].

    The embeddings are normalised. Without references they are compared with one another, but not
    with themselves, and `ref_labels` is ignored. References are compared with all embeddings unless
    `ref_labels` is the very tensor `labels`, or None, which means the labels for the first N
    references and leaves out the others: then embedding i is not compared with reference i.

    Args:
        temperature: > 0.
        kwargs: `distance` and `reducer` as in the original, but only None or the defaults,
            `CosineSimilarity()` and `AvgNonZeroReducer()`. No `embedding_regularizer` and no
            `collect_stats`.

    Returns: the mean of the losses above 0, those of embeddings without a positive being 0. 0 if no
    pair has equal labels, or none has different ones, or there is one pair of each. float32 for
    embeddings of 16 bits. `indices_tuple`, the pairs of a miner or of `CrossBatchMemory`, raises
    ValueError.
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__()
        self.temperature = check.positive("temperature", temperature)
        for name, value in kwargs.items():
            check_option(name, value)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        if indices_tuple is not None:
            raise ValueError("indices_tuple: expected None, which compares all pairs")
        if labels is None:
            raise ValueError("labels: expected a tensor, got None")
        check_rows("embeddings", embeddings)
        labels = check.tensor("labels", labels).to(embeddings.device)
        check.labels("labels", labels, "embeddings", embeddings)
        anchors = F.normalize(embeddings, dim=1)
        bank, bank_labels, diagonal = anchors, labels, True
        if ref_emb is not None:
            check_rows("ref_emb", ref_emb)
            if ref_emb.shape[1] != embeddings.shape[1]:
                raise ValueError(
                    f"ref_emb: expected {embeddings.shape[1]} channels as embeddings, got"
                    f" {ref_emb.shape[1]}"
                )
            if ref_labels is None:
                if len(ref_emb) < len(labels):
                    raise ValueError(
                        f"ref_emb: expected at least {len(labels)} rows without ref_labels, got"
                        f" {len(ref_emb)}"
                    )
                ref_emb, ref_labels = ref_emb[: len(labels)], labels
            bank_labels = check.tensor("ref_labels", ref_labels).to(ref_emb.device)
            check.labels("ref_labels", bank_labels, "ref_emb", ref_emb)
            diagonal = bank_labels is labels
            anchors, bank = check.same_kind(
                "ref_emb", F.normalize(ref_emb, dim=1), "embeddings", anchors
            )
        losses, positives = contrast_losses(
            anchors, labels, bank, bank_labels, self.temperature, "all", NONE,
            0 if diagonal else None, None,
        )  # fmt: skip
        same = positives.sum()
        different = len(labels) * len(bank_labels) - same - len(labels) * diagonal
        enough = (same > 0) & (different > 0) & (same + different > 2)
        counted = losses > 0
        mean = torch.where(counted, losses, 0).sum() / counted.sum().clamp(min=1)
        return torch.where(enough, mean, 0)


def check_option(name: str, value: Any) -> None:
    """Raise for what the original would do and this does not."""
    if name == "embedding_reg_weight":  # of the regularizer, which is None
        return
    if name not in DEFAULTS:
        raise TypeError(f"{name}: SupConLoss has no such argument")
    if value is None or value is False:
        return
    fits = type(value).__name__ == DEFAULTS[name]
    if not fits or (name == "distance" and (value.p, value.power) != (2, 1)):
        raise ValueError(f"{name}: expected None or the original's default, got {value!r}")


REPLACES = {"losses.supcon_loss:SupConLoss": SupConLoss}
