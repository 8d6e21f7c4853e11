"""HDMNet's prior and prototypes (model/HDMNet.py)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import prior_mask

from .pfenet import weighted_gap

PACKAGE = "model"


def get_similarity(q: Tensor, s: Tensor, mask: Tensor) -> Tensor:
    """The largest cosine of each query position with the masked support: [B, 1, h, w], unscaled.

    Args:
        q, s: [B, C, h, w]. The original requires h = w.
        mask: [B, H, W] or [B, 1, H, W], 1 on the object; resized to the nearest.
    """
    mask = mask[:, None] if mask.dim() == 3 else mask
    small = F.interpolate((mask == 1).to(q.dtype), q.shape[-2:])
    return prior_mask(q, s, small[:, 0], normalize=None)[:, None]


REPLACES = {"HDMNet:get_similarity": get_similarity, "HDMNet:Weighted_GAP": weighted_gap}
