"""A user's script. Type checkers find the mistake in every line with the comment "wrong".

Nothing runs it: test_typing.py compares what mypy and pyright report with the marks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import pixelkernels as pk
from pixelkernels import numpy as arrays

x = torch.randn(2, 8, 16, 16)
labels = torch.randint(3, (2, 16, 16))

loss: Tensor = pk.cas_loss(x, labels, 3, alpha=0.3)
pk.cas_loss(x, labels)  # wrong: no number of regions
pk.cas_loss(x, labels, 3, variant="published")  # wrong: no such variant
pk.discriminative_loss(x, labels, 3, norm=3)  # wrong: 1 or 2
pk.discriminative_loss(x, labels, 3, reduction="pixel")  # wrong: an old name
pk.triplet_hinge(x, labels, labels, labels, reduction="avg")  # wrong: no such reduction
pk.metric_expression_loss(x, labels, mining="soft")  # wrong: None or "hard"
print(pk.next_click(labels, labels).point)  # wrong: points
pk.next_click(labels, labels, ignore_label=255)  # wrong: an old name
pk.click_maps(x, labels, 16)  # wrong: (height, width)
pk.click_maps(x, labels, [16, 16], encoding="gauss")  # wrong: gaussian
pk.simulate_clicks(labels, 2, 2, strategy="random")  # wrong: no such strategy
pk.matching_scores(x, x, labels, 3, metric="euclidean")  # wrong: sqeuclidean
print(pk.label_transfer(x, x, labels, 3).label)  # wrong: labels
pk.masked_average_pool(x, x[:, 0], upsample="nearest")  # wrong: None or "bilinear"

pk.CASLoss(3, alhpa=0.3)  # wrong: alpha
pk.CASLoss(variant="published")  # wrong: no such variant
pk.LabelTransfer(metric="euclidean")  # wrong: sqeuclidean
print(pk.LabelTransfer(metric="cosine")(x, x, labels, 3).score)  # wrong: scores
pk.ISTripletLoss(margin="3")  # wrong: a number
pk.ISTripletLoss()(x)  # wrong: no mask
pk.ClickMaps(encoding="disc")  # wrong: disk
pk.PriorMask(reduce="mean")  # wrong: max or softmax
pk.MetricExpressionLoss(mining=True)  # wrong: None or "hard"
pk.DiscriminativeLoss(weights=1.0)  # wrong: three numbers
pk.SiameseSimilarityLoss()(x, x, labels)  # wrong: labels of both
pk.mutual_matches(x, x, mode="softmax")  # wrong: dual_softmax
print(pk.mutual_matches(x, x).confidences)  # wrong: confidence
pk.DualSoftmaxLoss(reduction="median")  # wrong: no such reduction
pk.DualSoftmaxLoss()(x, x)  # wrong: no matches

mask = np.zeros((16, 16), bool)
squares: np.typing.NDArray[np.int32] = arrays.distance_transform(mask, squared=True)
distances: np.typing.NDArray[np.int32] = arrays.distance_transform(mask)  # wrong: float32
arrays.distance_transform(mask, squared=True, sampling=(1, 2))  # wrong: no sampling of squares
