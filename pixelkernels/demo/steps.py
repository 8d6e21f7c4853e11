"""The library's steps that the demo shows. A family joins by adding its lines to `STEPS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import pixelkernels as pk

from . import clicks
from .scene import Scene


def _as_they_are(features: Tensor) -> Tensor:
    return features


def _is_triplet_loss(features: Tensor, f1: Tensor, f2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """What `is_triplet_loss` is made of, on pixels that are drawn already."""
    return 0.5 * (pk.triplet_hinge(features, f1, f2, b1) + pk.triplet_hinge(features, b1, b2, f2))


@dataclass(frozen=True)
class Step:
    """A function of the library at work on a network's features, or on the photos' objects.

    Attributes:
        name: the function's public name.
        call: (features, scene) -> the results; for a loss, the one scalar.
        trains: whether the demo trains a network with it, as a loss.
        differentiable: whether the results have gradients; clicks and masks are data and have none.
        space: the network's output -> the features that `call` wants.
    """

    name: str
    call: Callable[[Tensor, Scene], tuple[Tensor, ...]]
    trains: bool = False
    differentiable: bool = True
    space: Callable[[Tensor], Tensor] = _as_they_are


STEPS = (
    Step(
        "cas_loss",
        lambda features, scene: (pk.cas_loss(features, scene.regions, scene.num_regions),),
        trains=True,
        space=lambda features: features.softmax(1),
    ),
    Step(
        "metric_expression_loss",
        lambda features, scene: (pk.metric_expression_loss(features, scene.mask, normalize=True),),
        trains=True,
    ),
    Step(
        "discriminative_loss",
        lambda features, scene: (
            pk.discriminative_loss(features, scene.regions, scene.num_regions),
        ),
        trains=True,
    ),
    Step(
        "triplet_hinge",
        lambda features, scene: (_is_triplet_loss(features, *scene.pixels),),
        trains=True,
    ),
    Step(
        "region_stats",
        lambda features, scene: pk.region_stats(features, scene.regions, scene.num_regions)[1:],
    ),
    Step(
        "background_distance",
        lambda features, scene: (pk.background_distance(features, scene.background),),
    ),
    Step(
        "masked_average_pool",
        lambda features, scene: (pk.masked_average_pool(features, scene.background),),
    ),
    Step(
        "simulate_clicks",
        lambda _, scene: clicks.simulate(scene.mask),
        differentiable=False,
    ),
    Step(
        "click_maps",
        lambda _, scene: (clicks.maps(scene.points, scene.click_labels, scene.mask.shape[-1]),),
        differentiable=False,
    ),
    Step(
        "distance_transform",
        lambda _, scene: (pk.distance_transform(scene.mask, squared=True),),
        differentiable=False,
    ),
    Step(
        "next_click",
        lambda _, scene: pk.next_click(torch.zeros_like(scene.mask), scene.mask),
        differentiable=False,
    ),
)

# the network trained with this loss is the one whose features show saliency, and on which every
# step is timed
SALIENCY_LOSS = "metric_expression_loss"


@torch.no_grad()
def saliency(features: Tensor, scene: Scene) -> Tensor:
    """[B, H, W] in [0, 1]: MEnet eq. 5 on unit vectors, which its loss compares."""
    return pk.background_distance(F.normalize(features), scene.background, normalize="minmax")
