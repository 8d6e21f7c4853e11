"""Interactive segmentation: in each round a simulated user clicks on the largest error, and the
segmenter predicts from all clicks so far.

The segmenter has nothing to train: it compares pixels with clicks. Its features come from a network
that was trained on these very objects, so the IoU checks the loop and says nothing about
generalisation.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import pixelkernels as pk

from .scene import Scene, click_maps
from .steps import on_both_backends, require_equal

ROUNDS = 9

# the largest distance of an object's pixel from the positive clicks while there is no negative one
FARTHEST = 1.0


class Interaction(NamedTuple):
    """The result of N rounds on B photos."""

    points: Tensor  # [B, N, 2]
    labels: Tensor  # [B, N]: 1 or 0, and -1 where no error was left
    predictions: Tensor  # [B, N, H, W] bool: after each click
    iou: Tensor  # [B, N]: of prediction and object


@torch.no_grad()
def interact(features: Tensor, scene: Scene) -> Interaction:
    """Runs every round on both backends and continues with the accelerated results; raises
    Mismatch.
    """
    features = F.normalize(features)
    side = scene.mask.shape[-1]
    photos = torch.arange(len(scene.mask), device=scene.mask.device)
    prediction, not_clicked = torch.zeros_like(scene.mask), torch.ones_like(scene.mask)
    points: list[Tensor] = []
    labels: list[Tensor] = []
    predictions: list[Tensor] = []
    for _ in tqdm(range(ROUNDS), desc="clicking", unit="click"):
        eager, click = on_both_backends(
            partial(pk.next_click, prediction, scene.mask, not_clicked=not_clicked)
        )
        require_equal("next_click", eager, click)
        # an invalid click is at (0, 0), which stays free
        not_clicked[photos, click.points[:, 0], click.points[:, 1]] &= ~click.valid
        points.append(click.points)
        labels.append(torch.where(click.valid, click.labels, -1))
        clicks = torch.stack(points, 1), torch.stack(labels, 1)
        both = on_both_backends(partial(_maps, *clicks, side))
        require_equal("click_maps", *both)
        (maps,) = both[1]
        prediction = _predict(features, *clicks, maps)
        predictions.append(prediction)
    after_each = torch.stack(predictions, 1)
    return Interaction(*clicks, after_each, _iou(after_each, scene.mask[:, None]))


def _maps(points: Tensor, labels: Tensor, side: int) -> tuple[Tensor]:
    return (click_maps(points, labels, side),)


def _predict(features: Tensor, points: Tensor, labels: Tensor, maps: Tensor) -> Tensor:
    """[B, H, W]: True where a pixel's features and position are closer to those of a positive click
    than to those of any negative one.
    """
    photos = torch.arange(len(points), device=points.device)[:, None]
    at_clicks = features[photos, :, points[..., 0], points[..., 1]]
    gaps = torch.cdist(at_clicks, features.flatten(2).mT).unflatten(2, maps.shape[2:])
    positive, negative = (
        torch.where((labels == label)[..., None, None], gaps, torch.inf).amin(1) + maps[:, index]
        for index, label in enumerate((1, 0))
    )
    return positive < negative.clamp(max=FARTHEST)


def _iou(predictions: Tensor, objects: Tensor) -> Tensor:
    """[..., H, W] -> [...]; 1 where both are empty."""
    common = (predictions & objects).flatten(-2).sum(-1)
    union = (predictions | objects).flatten(-2).sum(-1)
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)
