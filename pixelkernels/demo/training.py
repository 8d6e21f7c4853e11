"""Train two networks side by side, one on eager losses and one on accelerated ones, and hold them
to each other.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

import pixelkernels as pk

from . import measuring, network
from .scene import Scene
from .steps import Step

# what `use_backend` is asked for: None is the dispatcher's own choice
SIDES: dict[str, str | None] = {"eager": "eager", "accelerated": None}

SEED = 0
LEARNING_RATE = 0.1
MOMENTUM = 0.5

# Both sides start from the same weights, so at first only the order of float32 sums differs: a few
# times eps = 1.2e-7.
FIRST_TOLERANCE = 1e-5
# Each update carries the difference on, and training can amplify it. Network and updates are made
# so that it hardly does: 3e-6 over the default number of steps on the packaged photos, 5e-5 on flat
# and noisy images. A gradient that is 10 % wrong in direction shows within five steps; smaller
# faults, and those of its length, show where each step's gradient is compared (comparison.py).
TOLERANCE = 1e-3
# A loss of features of size about 1 that is smaller than this is what is left of larger terms.
SMALL = 0.1


class Mismatch(RuntimeError):
    """The accelerated backend computed something else than the eager one."""


@dataclass(frozen=True)
class Training:
    """What became of one loss: per side the losses, the time and memory of a step; and the
    accelerated network with its features.
    """

    step: Step
    losses: dict[str, list[float]]
    milliseconds: dict[str, float]
    extra_mib: dict[str, float | None]
    network: torch.nn.Module
    features: Tensor

    @property
    def largest_difference(self) -> float:
        """Between the losses of the two sides, relative to their size."""
        return max(map(relative_difference, *self.losses.values()))


class Learner:
    """A network with its optimiser, whose every library call goes to one backend."""

    def __init__(self, step: Step, scene: Scene, device: str, backend: str | None) -> None:
        self._step, self._scene, self._backend = step, scene, backend
        self.network = network.from_seed(SEED, device)
        self._optimizer = torch.optim.SGD(
            self.network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM
        )

    def gradient(self) -> Tensor:
        """The loss, its gradient left in the parameters."""
        self._optimizer.zero_grad()
        with pk.use_backend(self._backend):
            features = self._step.space(self.network(self._scene.images))
            (loss,) = self._step.call(features, self._scene)
            loss.backward()
        return loss.detach()

    def update(self, rate: float) -> Tensor:
        """One step along the gradient's direction, so that one rate suits losses of any scale."""
        loss = self.gradient()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        length = torch.nn.utils.get_total_norm(gradients).clamp(min=1e-12)
        for gradient in gradients:
            gradient /= length
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return loss


def train(step: Step, scene: Scene, device: str, count: int) -> Training:
    """`count` updates of each side in turn; raises Mismatch at the first loss that differs."""
    learners = {side: Learner(step, scene, device, backend) for side, backend in SIDES.items()}
    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    with tqdm(range(count), desc=step.name, unit="step") as progress:
        for index in progress:
            rate = LEARNING_RATE * (1 - index / count)
            for side, learner in learners.items():
                took, loss = measuring.milliseconds(partial(learner.update, rate), device)
                times[side].append(took)
                losses[side].append(float(loss))
            _compare(step.name, index, losses)
            progress.set_postfix(loss=f"{losses['accelerated'][-1]:.4g}")
    with torch.no_grad():
        features = learners["accelerated"].network(scene.images)
    return Training(
        step=step,
        losses=losses,
        # the first step also allocates and chooses algorithms
        milliseconds={
            side: statistics.median(values[1:] or values) for side, values in times.items()
        },
        extra_mib={
            side: measuring.extra_mib(learner.gradient, device)
            for side, learner in learners.items()
        },
        network=learners["accelerated"].network,
        features=features,
    )


def relative_difference(one: float, other: float) -> float:
    """Relative to the size of the losses, or to `SMALL` where they are smaller."""
    return abs(one - other) / max(abs(one), abs(other), SMALL)


def _compare(name: str, index: int, losses: dict[str, list[float]]) -> None:
    eager, accelerated = (values[-1] for values in losses.values())
    tolerance = TOLERANCE if index else FIRST_TOLERANCE
    # written so that NaN fails too
    if not relative_difference(eager, accelerated) <= tolerance:
        raise Mismatch(
            f"{name}: at step {index + 1} the eager loss is {eager:.9g} and the accelerated one"
            f" {accelerated:.9g}, further apart than {tolerance:g} of their size"
        )
