"""SCCAN's prior and prototypes (model/SCCAN.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import prior_mask

from .panet import with_bound_1e8
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

    Returns: [B, 1, *fts_size]. In gradients each norm is at least 1e-8; the original adds 1e-7 to
    the product of the norms, which shows only for feature vectors near 0.
    """
    # the bound on the norms only shows in gradients
    query, *supports = (
        with_bound_1e8(x) if x.requires_grad else x for x in (query_feat_high, *final_supp_list)
    )
    shots = zip(supports, mask_list, strict=True)
    priors = [prior_mask(query, x, mask[:, 0], reduce="softmax") for x, mask in shots]
    prior = torch.stack(priors, 1).mean(1, True)
    return F.interpolate(prior, size=tuple(fts_size), mode="bilinear", align_corners=True)


REPLACES = {"SCCAN:OneModel.generate_prior": generate_prior, "SCCAN:Weighted_GAP": weighted_gap}
