"""BAM's prior and prototypes (model/BAM.py)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .pfenet import priors, weighted_gap

PACKAGE = "model"


def prior(
    query_feat: Tensor,
    supp_feats: Sequence[Tensor],
    masks: Sequence[Tensor],
    weight_soft: Tensor,
) -> Tensor:
    """The weighted sum of the priors of all shots, [B, 1, h, w], as in BAM's forward before its
    resizing.

    Args:
        query_feat: high-level features [B, C, h, w].
        supp_feats: [B, C, h, w] for each shot, not masked.
        masks: [B, 1, H, W] for each shot, float; resized bilinearly with aligned corners.
        weight_soft: the weights of the shots [B, shots, 1, 1].
    """
    return (weight_soft * priors(query_feat, supp_feats, masks)).sum(1, True)


REPLACES = {"BAM:Weighted_GAP": weighted_gap}
