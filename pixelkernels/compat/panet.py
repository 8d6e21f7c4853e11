"""PANet's prototypes and distances (models/fewshot.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelkernels.regions import masked_average_pool
from pixelkernels.similarity import matching_scores

PACKAGE = "models"


def getFeatures(self: Any, fts: Tensor, mask: Tensor) -> Tensor:
    """`FewShotSeg.getFeatures`: the mean [1, C] over the mask [1, H, W] of features [1, C, h, w]
    upsampled to its size. Memory: the upsampled features are never stored.
    """
    return masked_average_pool(fts, mask.to(fts.dtype), upsample="bilinear")


def calDist(self: Any, fts: Tensor, prototype: Tensor, scaler: float = 20) -> Tensor:
    """`FewShotSeg.calDist`: scaler * cosine of features [N, C, H, W] with a prototype [1, C], as
    [N, H, W].
    """
    count = len(fts)
    points = prototype.expand(count, -1)[..., None]
    labels = torch.zeros(count, 1, dtype=torch.int64, device=fts.device)
    return matching_scores(fts, points, labels, 1, metric="cosine", scale=float(scaler))[:, 0]


REPLACES = {"fewshot:FewShotSeg.getFeatures": getFeatures, "fewshot:FewShotSeg.calDist": calDist}
