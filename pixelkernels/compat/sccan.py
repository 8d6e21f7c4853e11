"""SCCAN's prior and prototypes (model/SCCAN.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import prior_mask

from .pfenet import weighted_gap

PACKAGE = "model"


def generate_prior(
    self: Any,
    query_feat_high: Tensor,
    final_supp_list: Sequence[Tensor],
    mask_list: Sequence[Tensor],
    fts_size: Sequence[int],
) -> Tensor:
    """`OneModel.generate_prior`: the support's mask, averaged by the softmax of the cosines with
    the unmasked support, scaled to [0, 1], resized to fts_size, and the mean over the shots.

    Args:
        query_feat_high: [B, C, h, w].
        final_supp_list: of each shot, [B, C, h', w'].
        mask_list: of each shot, [B, 1, H, W], float; resized with aligned corners.

    Returns: [B, 1, *fts_size]. Where a feature vector is all but 0 the original adds 1e-7 to the
    product of the norms, this does not.
    """
    found = prior_mask(
        query_feat_high,
        torch.stack(list(final_supp_list), 1),
        torch.cat(list(mask_list), 1),
        reduce="softmax",
    )[:, None]
    return F.interpolate(found, size=tuple(fts_size), mode="bilinear", align_corners=True)


REPLACES = {"SCCAN:OneModel.generate_prior": generate_prior, "SCCAN:Weighted_GAP": weighted_gap}
