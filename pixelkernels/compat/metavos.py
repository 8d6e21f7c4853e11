"""MetaVOS's label transfer (src/label_transfer.py), of the authors of the label-transfer paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

PACKAGE = "src"
# so many scores at a time stay in a core's cache
BLOCK = 1 << 18


def label_transfer(
    scores: Tensor,
    labels_1: Tensor,
    images_2: Any,
    emb_size: Sequence[int],
    picked_points: Sequence[Sequence[Any]],
    flow_2: Any = None,
    avg_k_max: int | None = None,
    crf_niter: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels from the similarity of every pixel with picked points of each class.

    Per class the mean of the sigmoids over its points (avg_k_max=None), the largest (1), or the
    mean of the avg_k_max largest; divided by their sum over the classes, resized to the labels
    (bilinear), and the class with the largest.

    Args:
        scores: [1, 1, K, h * w], before the sigmoid, class by class.
        labels_1: [1, H, W]; its classes, negative ones aside, in ascending order.
        images_2, flow_2: of the CRF, not looked at.
        emb_size: (dimensions, h, w).
        picked_points: of each class, its points.
        crf_niter: must be 0; the CRF is pydensecrf's.

    Returns: labels int64 [H, W], and the first class's scores [H, W], on the host.
    `pixelkernels.label_transfer` starts from the embeddings and needs no K x h * w scores.
    """
    if crf_niter > 0:
        raise ValueError(f"crf_niter: expected 0, the CRF is pydensecrf's, got {crf_niter}")
    _, height, width = emb_size
    classes = labels_1[labels_1 >= 0].unique()
    counts = [len(points) for points in picked_points[: len(classes)]]
    ends = list(accumulate(counts))
    rows = scores[0, 0, : ends[-1]].detach()
    found = rows.new_empty(len(classes), height * width)
    step = max(BLOCK // max(ends[-1], 1), 1)
    for first in range(0, found.shape[1], step):
        block = rows[:, first : first + step]
        for i, of_class in enumerate(block.split(counts)):
            if avg_k_max is None:
                best = of_class.sigmoid().mean(0)
            elif avg_k_max == 1:
                best = of_class.amax(0).sigmoid()
            else:
                k = min(avg_k_max, counts[i])
                best = of_class.topk(k, dim=0, sorted=False).values.sigmoid().mean(0)
            found[i, first : first + step] = best
    found /= found.sum(0)
    resized = F.interpolate(
        found.view(1, len(classes), height, width), labels_1.shape[1:], mode="bilinear"
    )[0]
    return classes.long()[resized.argmax(0)].cpu().numpy(), resized[0].cpu().numpy()


REPLACES = {"label_transfer:label_transfer": label_transfer}
