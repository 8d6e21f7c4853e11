"""PFENet's prior and prototypes (model/PFENet.py; the prototypes of BAM, HDMNet and SCCAN, too)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixelkernels.regions import masked_average_pool
from pixelkernels.similarity import prior_mask

PACKAGE = "model"


def prior(query_feat: Tensor, supp_feats: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """The prior of all shots, [B, 1, h, w], as in PFENet's forward before its resizing.

    Args:
        query_feat: high-level features [B, C, h, w].
        supp_feats: [B, C, h, w] for each shot, not masked.
        masks: [B, 1, H, W] for each shot, float; resized bilinearly with aligned corners.
    """
    return priors(query_feat, supp_feats, masks).mean(1, True)


def priors(query_feat: Tensor, supp_feats: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """The prior of each shot, [B, shots, h, w]."""
    shots = zip(supp_feats, masks, strict=True)
    return torch.stack([prior_mask(query_feat, x, mask[:, 0]) for x, mask in shots], 1)


def weighted_gap(supp_feat: Tensor, mask: Tensor) -> Tensor:
    """`Weighted_GAP`: sum f m / (sum m + 5e-4), [B, C, 1, 1], of features f [B, C, h, w] and a
    mask m [B, 1, h, w], in the dtype of f m.
    """
    pooled = masked_average_pool(supp_feat, mask[:, 0], eps=5e-4)
    return pooled.to(torch.promote_types(supp_feat.dtype, mask.dtype))[..., None, None]


REPLACES = {"PFENet:Weighted_GAP": weighted_gap}
