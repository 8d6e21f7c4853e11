"""PFENet's prior and prototypes (model/PFENet.py; the same in BAM, HDMNet and SCCAN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixelkernels.regions import masked_average_pool
from pixelkernels.similarity import prior_mask

PACKAGE = "model"


def prior(query_feat: Tensor, supp_feats: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """The prior of all shots, [B, 1, h, w]: what PFENet's forward has before it resizes it.

    Args:
        query_feat: high-level features [B, C, h, w].
        supp_feats: of each shot, [B, C, h, w], not yet masked.
        masks: of each shot, [B, 1, H, W], float; resized with aligned corners.
    """
    found = prior_mask(query_feat, torch.stack(list(supp_feats), 1), torch.cat(list(masks), 1))
    return found[:, None]


def weighted_gap(supp_feat: Tensor, mask: Tensor) -> Tensor:
    """`Weighted_GAP`: sum f m / (sum m + 5e-4) of features [B, C, h, w] and mask [B, 1, h, w], as
    [B, C, 1, 1].
    """
    return masked_average_pool(supp_feat, mask[:, 0], eps=5e-4)[..., None, None]


REPLACES = {"PFENet:Weighted_GAP": weighted_gap}
