"""Transfer of labels from the left photo of a stereo pair to the right one.

The labels are the salient object and the background. Points are drawn from the left photo, and each
pixel of the right one gets the label of the points most similar to it.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import pixelkernels as pk

from .photos import StereoPair
from .scene import normalized, salient_object
from .steps import TOLERANCE, Mismatch, Step, on_both_backends, require_equal

# the loss whose network's features give the most correct labels
NETWORK = "discriminative_loss"

SEED = 0
CLASSES = 2
POINTS = 500  # per class; fewer give fewer correct labels
# The score of a class is the mean of sigmoid(scale * cosine + shift), as in the code released by
# Najafi et al., who learn scale and shift. These values leave only near points with weight.
SCALE, SHIFT = 100.0, -100.0

# Unit-length features carry neither position nor fine detail. Colour (each channel about -2 to 2)
# and position (-1 to 1) are appended to them.
COLOUR_WEIGHT, POSITION_WEIGHT = 0.3, 1.0


class Transfer(NamedTuple):
    """Labels [H, W], 1 on the object; the shares that are correct; and the step to time."""

    left: NDArray[np.int64]
    truth: NDArray[np.int64]  # of the right photo, -1 where unknown
    found: NDArray[np.int64]
    share_right: dict[str, float]  # of the pixels with known truth, by what was compared
    share_equal: float  # of all labels: eager and accelerated are the same
    step: Step
    query: Tensor  # the features for the step


@torch.no_grad()
def transfer(pair: StereoPair, network: nn.Module, device: str) -> Transfer:
    """Labels the right photo on both backends and keeps the accelerated result; raises Mismatch."""
    left = salient_object(pair.left.pixels).astype(np.int64)
    truth = pair.carry_over(left)
    target = torch.from_numpy(left).to(device)[None]
    share_right, shares_equal = {"copied in place": _share_right(left, truth)}, []
    for name, (own, query) in tqdm(
        _spaces(pair, network, device).items(), desc="transferring labels", unit="transfer"
    ):
        generator = torch.Generator(device).manual_seed(SEED)  # the same points in each space
        points = pk.sample_reference(own, target, CLASSES, POINTS, generator=generator)
        eager, accelerated = on_both_backends(partial(_label, query, *points))
        shares_equal.append(share_equal(eager, accelerated))
        found = accelerated.labels[0].cpu().numpy()
        share_right[name] = _share_right(found, truth)
    step = Step("label_transfer", lambda features, _: _label(features, *points)[1:])
    return Transfer(
        left, truth, found, share_right, sum(shares_equal) / len(shares_equal), step, query
    )


def share_equal(eager: pk.TransferredLabels, accelerated: pk.TransferredLabels) -> float:
    """The share of equal labels. Raises Mismatch unless scores are close, and labels equal except
    at ties.
    """
    require_equal("label_transfer", (eager.scores,), (accelerated.scores,))
    slack = TOLERANCE * eager.scores.abs().max()
    tied_for_best = eager.scores >= eager.scores.amax(1, keepdim=True) - slack
    classes = torch.arange(tied_for_best.shape[1], device=tied_for_best.device)
    classes = classes.view(-1, *[1] * (tied_for_best.dim() - 2))
    wrong = ~((accelerated.labels[:, None] == classes) & tied_for_best).any(1)
    if wrong.any():
        raise Mismatch(
            f"label_transfer: {int(wrong.sum())} of {wrong.numel()} labels are not the eager ones"
        )
    return float((eager.labels == accelerated.labels).double().mean())


def _spaces(pair: StereoPair, network: nn.Module, device: str) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, what pixels are compared by: [1, D, H, W] of the left photo and of the right one.
    The last is the one that the demo shows.
    """
    images = normalized([pair.left, pair.right], device)
    features = F.normalize(network(images))
    along = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    position = torch.stack(torch.meshgrid(along, along, indexing="ij")).expand(2, -1, -1, -1)
    simple = torch.cat([COLOUR_WEIGHT * images, POSITION_WEIGHT * position], 1)
    spaces = {
        "colour and place": simple,
        "features": features,
        "features, colour, place": torch.cat([features, simple], 1),
    }
    return {name: (both[:1], both[1:]) for name, both in spaces.items()}


def _label(query: Tensor, reference: Tensor, kinds: Tensor) -> pk.TransferredLabels:
    return pk.label_transfer(
        query,
        reference,
        kinds,
        CLASSES,
        metric="cosine",
        transform="sigmoid",
        scale=SCALE,
        shift=SHIFT,
        reduce="mean",
    )


def _share_right(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float((found == truth)[truth >= 0].mean())
