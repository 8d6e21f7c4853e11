"""SCCAN's prior and prototypes (model/SCCAN.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import prior_mask

from ._cosine import with_bound_1e8
from .pfenet import weighted_gap

PACKAGE = "model"


def generate_prior(
    self: Any,
    query_feat_high: Tensor,
    final_supp_list: Sequence[Tensor],
    mask_list: Sequence[Tensor],
    fts_size: Sequence[int],
) -> Tensor:
    """`OneModel.generate_prior`: the mean of the support's mask, weighted by the softmax of the
    cosines with the unmasked support, scaled to [0, 1], averaged over the shots, and resized to
    fts_size.

    Args:
        query_feat_high: [B, C, h, w].
        final_supp_list: [B, C, h', w'] for each shot.
        mask_list: [B, 1, H, W] for each shot, float; resized bilinearly with aligned corners.

    Returns: [B, 1, *fts_size]. Each norm is at least 1e-8, where the original adds 1e-7 to the
    product of the norms: this shows only for feature vectors near 0.
    """
    prior = prior_mask(
        with_bound_1e8(query_feat_high),
        with_bound_1e8(torch.stack(list(final_supp_list), 1)),
        torch.cat(list(mask_list), 1),
        reduce="softmax",
    )[:, None]
    return F.interpolate(prior, size=tuple(fts_size), mode="bilinear", align_corners=True)


REPLACES = {"SCCAN:OneModel.generate_prior": generate_prior, "SCCAN:Weighted_GAP": weighted_gap}
