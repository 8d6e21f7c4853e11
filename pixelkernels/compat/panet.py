"""PANet's prototypes and distances (models/fewshot.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelkernels._core.numerics import wide
from pixelkernels.regions import masked_average_pool
from pixelkernels.similarity import matching_scores

PACKAGE = "models"


def getFeatures(self: Any, fts: Tensor, mask: Tensor) -> Tensor:
    """`FewShotSeg.getFeatures`: the mean [1, C] over the mask [1, H, W] of features [1, C, h, w]
    upsampled to its size, in the dtype of their product. Memory: the upsampled features are never
    stored.
    """
    dtype = torch.promote_types(fts.dtype, mask.dtype)
    return masked_average_pool(fts, mask.to(dtype), upsample="bilinear").to(dtype)


def calDist(self: Any, fts: Tensor, prototype: Tensor, scaler: float = 20) -> Tensor:
    """`FewShotSeg.calDist`: scaler * cosine of features [N, C, H, W] with a prototype [1, C], as
    [N, H, W] in the dtype of their product.
    """
    count = len(fts)
    query, points = with_bound_1e8(fts), with_bound_1e8(prototype).expand(count, -1)[..., None]
    labels = torch.zeros(count, 1, dtype=torch.int64, device=fts.device)
    scores = matching_scores(query, points, labels, 1, metric="cosine", scale=float(scaler))
    return scores[:, 0].to(torch.promote_types(fts.dtype, prototype.dtype))


def with_bound_1e8(x: Tensor) -> Tensor:
    """Vectors of the same direction, whose cosine has the lower bound of
    torch.nn.functional.cosine_similarity on the norms of `x`, 1e-8: the library's is 1e-12. It
    shows in the gradient of a zero vector."""
    return 1e-4 * wide(x)


REPLACES = {"fewshot:FewShotSeg.getFeatures": getFeatures, "fewshot:FewShotSeg.calDist": calDist}
