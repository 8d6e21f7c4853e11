"""PerSAM's location prior (persam.py and persam_f.py of Personalize-SAM)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixelkernels.regions import masked_average_pool
from pixelkernels.similarity import matching_scores

PACKAGE = "persam"


def target_embedding(ref_feat: Tensor, ref_mask: Tensor) -> Tensor:
    """The mean [1, C] of the reference's features [h, w, C] where the mask [h, w] is positive."""
    features = ref_feat.movedim(-1, 0)[None]
    return masked_average_pool(features, (ref_mask > 0).to(features.dtype)[None], eps=0.0)


def similarity(target_feat: Tensor, test_feat: Tensor) -> Tensor:
    """The cosine of the target [1, C] with the features [C, h, w], as [1, 1, h, w]."""
    labels = torch.zeros(1, 1, dtype=torch.int64, device=test_feat.device)
    return matching_scores(test_feat[None], target_feat[..., None], labels, 1, metric="cosine")


def point_selection(
    mask_sim: Tensor, topk: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pixels of a map [H, W] with the largest and the smallest values.

    Returns: (x, y) of the topk largest values [topk, 2] and their labels, all 1; the same for the
    smallest, with labels 0. Among equal values topk = 1 takes the first, more take torch.topk's, as
    the original always does.
    """
    if topk == 1:
        rows = [mask_sim.amax(1).argmax()[None], mask_sim.amin(1).argmin()[None]]
        columns = [mask_sim[rows[0]].argmax(1), mask_sim[rows[1]].argmin(1)]
    else:
        flat, width = mask_sim.flatten(), mask_sim.shape[1]
        pixels = [flat.topk(topk, largest=largest).indices for largest in (True, False)]
        rows, columns = [p // width for p in pixels], [p % width for p in pixels]
    points = zip(columns, rows, strict=True)
    best, worst = (torch.stack(point, 1).cpu().numpy() for point in points)
    return best, np.ones(topk, np.int64), worst, np.zeros(topk, np.int64)


REPLACES = {":point_selection": point_selection}
