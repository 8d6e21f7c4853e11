"""Labels of the left photo of a pair, handed on to the right one.

The labels are the salient object and the rest. Points of the left photo are drawn, and each pixel
of the right one takes the label of the points that it is like.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import pixelkernels as pk

from . import labels, scene
from .comparison import TOLERANCE, hold_together
from .steps import Step
from .stereo import Pair
from .training import SIDES, Mismatch

# the loss whose network's features find the most right labels
NETWORK = "discriminative_loss"

SEED = 0
CLASSES = 2
POINTS = 500  # per class; fewer find fewer right labels
# Najafi et al.'s released code: the mean over a class of sigmoid(scale * cosine + shift). Theirs
# are learned; with these, points count that are close.
SCALE, SHIFT = 100.0, -100.0

# The features, of length 1, know no place and blur fine detail. Beside them: a pixel's colour
# (each channel about -2 to 2) and place (-1 to 1).
COLOUR_WEIGHT, PLACE_WEIGHT = 0.3, 1.0


class Transfer(NamedTuple):
    """Labels [H, W], 1 on the object; how many are right; and the call that found them."""

    left: NDArray[np.int64]
    truth: NDArray[np.int64]  # of the right photo, -1 where unknown
    found: NDArray[np.int64]
    share_right: dict[str, float]  # of the pixels with known truth, by what was compared
    share_equal: float  # of all labels: the same from both sides
    step: Step
    query: Tensor  # the step's features


@torch.no_grad()
def transfer(pair: Pair, network: nn.Module, device: str) -> Transfer:
    """Both sides label the right photo, and the accelerated answer counts; raises Mismatch."""
    left = labels.salient_object(pair.left.pixels).astype(np.int64)
    truth = pair.carry_over(left)
    target = torch.from_numpy(left).to(device)[None]
    share_right, shares_equal = {"copied in place": _share_right(left, truth)}, []
    for name, (own, query) in tqdm(
        _spaces(pair, network, device).items(), desc="transferring labels", unit="transfer"
    ):
        generator = torch.Generator(device).manual_seed(SEED)  # the same points for each
        points = pk.sample_reference(own, target, CLASSES, POINTS, generator=generator)
        results = []
        for backend in SIDES.values():
            with pk.use_backend(backend):
                results.append(_label(query, *points))
        eager, accelerated = results
        shares_equal.append(share_equal(eager, accelerated))
        found = accelerated.labels[0].cpu().numpy()
        share_right[name] = _share_right(found, truth)
    step = Step("label_transfer", lambda features, _: _label(features, *points)[1:])
    return Transfer(
        left, truth, found, share_right, sum(shares_equal) / len(shares_equal), step, query
    )


def share_equal(eager: pk.TransferredLabels, accelerated: pk.TransferredLabels) -> float:
    """Of the labels. Raises Mismatch unless scores are close, and labels equal or of equal rank."""
    hold_together("label_transfer", (eager.scores,), (accelerated.scores,))
    slack = TOLERANCE * eager.scores.abs().max()
    among_best = eager.scores >= eager.scores.amax(1, keepdim=True) - slack
    classes = torch.arange(among_best.shape[1], device=among_best.device)
    classes = classes.view(-1, *[1] * (among_best.dim() - 2))
    wrong = ~((accelerated.labels[:, None] == classes) & among_best).any(1)
    if wrong.any():
        raise Mismatch(
            f"label_transfer: {int(wrong.sum())} of {wrong.numel()} labels are not the eager ones"
        )
    return float((eager.labels == accelerated.labels).double().mean())


def _spaces(pair: Pair, network: nn.Module, device: str) -> dict[str, tuple[Tensor, Tensor]]:
    """What pixels are compared by, of the left photo and of the right one, each [1, D, H, W]; the
    one that counts comes last.
    """
    images = scene.normalized([pair.left, pair.right], device)
    features = F.normalize(network(images))
    along = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    place = torch.stack(torch.meshgrid(along, along, indexing="ij")).expand(2, -1, -1, -1)
    simple = torch.cat([COLOUR_WEIGHT * images, PLACE_WEIGHT * place], 1)
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
