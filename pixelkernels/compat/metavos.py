"""MetaVOS's label transfer (src/label_transfer.py), by the authors of the label-transfer paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PACKAGE = "src"
# a block of so many scores stays in the cache
BLOCK = 1 << 21


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

    The score of a class is the mean of the sigmoids over its points (avg_k_max=None), or over the
    avg_k_max largest. Scores are divided by their sum over the classes and resized to the labels
    (bilinear); the label is the class with the largest.

    Args:
        scores: [1, 1, K, h * w], before the sigmoid, sorted by class.
        labels_1: [1, H, W], of any dtype; the classes are its values >= 0, in ascending order.
        images_2, flow_2: for the CRF, ignored.
        emb_size: (dimensions, h, w).
        picked_points: the points of each class. A class without points gets no pixel; the original
            gives NaN everywhere.
        crf_niter: must be 0: the CRF is in pydensecrf.

    Returns: labels int64 [H, W] and the first class's scores [H, W], as NumPy arrays.
    `pixelkernels.label_transfer` takes the embeddings and needs no K x h * w scores.
    """
    if crf_niter > 0:
        raise ValueError(f"crf_niter: expected 0, the CRF is pydensecrf's, got {crf_niter}")
    _, height, width = emb_size
    flat = labels_1.flatten()
    if flat.is_floating_point():
        classes = flat[flat >= 0].unique().long()
    else:
        # negative labels are counted in bin 0, which is dropped
        classes = flat.long().clamp(min=-1).add_(1).bincount()[1:].nonzero()[:, 0]
    counts = [len(points) for points in picked_points[: len(classes)]]
    rows = scores[0, 0, : sum(counts)].detach()
    of_class = rows.split(counts)
    if avg_k_max is None:
        means = torch.block_diag(*(rows.new_full((1, n), 1 / max(n, 1)) for n in counts))
        step = max(BLOCK // max(rows.shape[1], 1), 1)
        mean = rows.new_zeros(len(counts), rows.shape[1])
        buffer = rows.new_empty(min(step, len(rows)), rows.shape[1])
        for some, block in zip(means.split(step, 1), rows.split(step), strict=True):
            mean.addmm_(some, torch.sigmoid(block, out=buffer[: len(block)]))
    else:
        # the sigmoid is monotonic, so it can follow topk
        ks = [min(avg_k_max, n) for n in counts]
        best = [x.topk(k, 0, sorted=False).values for x, k in zip(of_class, ks, strict=True)]
        mean = torch.stack([x.sigmoid().sum(0) / max(len(x), 1) for x in best])
    mean /= mean.sum(0)
    resized = F.interpolate(
        mean.view(1, len(classes), height, width), labels_1.shape[1:], mode="bilinear"
    )[0]
    # the indices of max(0) are the argmax, twenty times as fast
    return classes.take(resized.max(0).indices).cpu().numpy(), resized[0].cpu().numpy()


REPLACES = {"label_transfer:label_transfer": label_transfer}
