"""A user and an interactive segmenter in turn: the user clicks on the largest error, the segmenter
predicts from all clicks so far.

The segmenter is a stand-in that has nothing to train: it compares pixels with clicks. Its features
come from a network that saw the objects, so its IoU measures the loop and no generalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import pixelkernels as pk

from . import clicks, comparison
from .scene import Scene
from .training import SIDES

ROUNDS = 9

# how unlike every positive click a pixel of the object may be while no negative click is near
FARTHEST = 1.0

Result = TypeVar("Result", bound="tuple[Tensor, ...]")


class Interaction(NamedTuple):
    """What happened in N rounds on B photos."""

    points: Tensor  # [B, N, 2]
    labels: Tensor  # [B, N]: 1 or 0, and -1 where no error was left
    predictions: Tensor  # [B, N, H, W] bool: after each click
    iou: Tensor  # [B, N]: of prediction and object


@torch.no_grad()
def interact(features: Tensor, scene: Scene) -> Interaction:
    """Both sides answer in every round, and the accelerated answer goes on; raises Mismatch."""
    features = F.normalize(features)
    side = scene.mask.shape[-1]
    photos = torch.arange(len(scene.mask), device=scene.mask.device)
    prediction, not_clicked = torch.zeros_like(scene.mask), torch.ones_like(scene.mask)
    points: list[Tensor] = []
    labels: list[Tensor] = []
    predictions: list[Tensor] = []
    for _ in tqdm(range(ROUNDS), desc="clicking", unit="click"):
        click = _on_both_sides(
            "next_click", partial(pk.next_click, prediction, scene.mask, not_clicked=not_clicked)
        )
        # where no click is valid, the pixel (0, 0) stays free
        not_clicked[photos, click.points[:, 0], click.points[:, 1]] &= ~click.valid
        points.append(click.points)
        labels.append(torch.where(click.valid, click.labels, -1))
        clicked = torch.stack(points, 1), torch.stack(labels, 1)
        (maps,) = _on_both_sides("click_maps", partial(_maps, *clicked, side))
        prediction = _predict(features, *clicked, maps)
        predictions.append(prediction)
    after_each = torch.stack(predictions, 1)
    return Interaction(*clicked, after_each, _iou(after_each, scene.mask[:, None]))


def _maps(points: Tensor, labels: Tensor, side: int) -> tuple[Tensor]:
    return (clicks.maps(points, labels, side),)


def _on_both_sides(name: str, call: Callable[[], Result]) -> Result:
    results = []
    for backend in SIDES.values():
        with pk.use_backend(backend):
            results.append(call())
    eager, accelerated = results
    comparison.hold_together(name, eager, accelerated)
    return accelerated


def _predict(features: Tensor, points: Tensor, labels: Tensor, maps: Tensor) -> Tensor:
    """[B, H, W]: True where a pixel is more like the positive clicks than like the negative ones,
    in its features and its place.
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
