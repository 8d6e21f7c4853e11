"""What users write or call today for the triplet family, independent of the library.

Images have as many pixels of either kind as are drawn: nothing here looks after those that have
not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import triplet_margin_loss

MARGIN = 3.0


def draw_by_permutation(mask: Tensor, num_samples: int) -> tuple[Tensor]:
    """Image by image."""
    drawn = []
    for image in mask.flatten(1):
        place = image.nonzero()[:, 0]
        drawn.append(place[torch.randperm(len(place), device=mask.device)[:num_samples]])
    return (torch.stack(drawn),)


def draw_by_keys(mask: Tensor, num_samples: int) -> tuple[Tensor]:
    """All images at once: the pixels with the largest random numbers, in their order."""
    keys = torch.rand(mask.flatten(1).shape, device=mask.device)
    keys = torch.where(mask.flatten(1), keys, -1.0)
    return (keys.topk(num_samples, dim=1).indices,)


def _vectors(features: Tensor, *sets: Tensor) -> tuple[Tensor, ...]:
    """The pixels of every set, [B * K, C] each, by one gather."""
    index = torch.cat(sets, 1)
    index = index[:, None].expand(-1, features.shape[1], -1)
    vectors = features.flatten(2).gather(2, index).mT
    return tuple(part.flatten(0, 1) for part in vectors.split(sets[0].shape[1], 1))


def hinge(features: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor]:
    vectors = _vectors(features, anchor, positive, negative)
    return (triplet_margin_loss(*vectors, margin=MARGIN),)


def hinge_by_image(
    features: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor]:
    losses = [
        triplet_margin_loss(*(pixels[:, i].T for i in sets), margin=MARGIN)
        for pixels, *sets in zip(features.flatten(2), anchor, positive, negative, strict=True)
    ]
    return (torch.stack(losses).mean(),)


def hinge_metric_learning(
    features: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor]:
    """pytorch-metric-learning, told which triplets: it takes all distances between the pixels."""
    from pytorch_metric_learning import distances, losses, reducers

    loss: Any = losses.TripletMarginLoss(
        margin=MARGIN,
        distance=distances.LpDistance(normalize_embeddings=False),
        reducer=reducers.MeanReducer(),
    )
    total = []
    rows = torch.arange(anchor.shape[1], device=features.device)
    places = tuple(rows + i * len(rows) for i in range(3))
    kinds = torch.zeros(3 * len(rows), dtype=torch.int64, device=features.device)
    for pixels, *sets in zip(features.flatten(2), anchor, positive, negative, strict=True):
        total.append(loss(pixels[:, torch.cat(sets)].T, kinds, places))
    return (torch.stack(total).mean(),)


def loss_by_permutation(features: Tensor, mask: Tensor, num_samples: int) -> tuple[Tensor]:
    sets = [draw_by_permutation(m, num_samples)[0] for m in (mask, mask, ~mask, ~mask)]
    return _both_hinges(features, *sets)


def loss_by_keys(features: Tensor, mask: Tensor, num_samples: int) -> tuple[Tensor]:
    sets = [draw_by_keys(m, num_samples)[0] for m in (mask, mask, ~mask, ~mask)]
    return _both_hinges(features, *sets)


def _both_hinges(features: Tensor, *sets: Tensor) -> tuple[Tensor]:
    f1, f2, b1, b2 = _vectors(features, *sets)
    foreground = triplet_margin_loss(f1, f2, b1, margin=MARGIN)
    return (0.5 * (foreground + triplet_margin_loss(b1, b2, f2, margin=MARGIN)),)
