"""Train two copies of a network, one with the eager loss and one with the accelerated loss, and
require that their losses agree at every step.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import pixelkernels as pk

from . import steps
from .scene import Scene
from .steps import BACKENDS, Mismatch, Step

CHANNELS = 16  # of the embedding, as MEnet's
WIDTH = 32
DILATIONS = (1, 2, 4, 8)

SEED = 0
LEARNING_RATE = 0.1
MOMENTUM = 0.5

# Both copies start from the same weights, so the first losses differ only by the order of float32
# sums: a few times eps = 1.2e-7.
FIRST_TOLERANCE = 1e-5
# Each update carries the difference on, and training can amplify it. Network and updates are chosen
# to keep it small: 3e-6 over the default number of steps on the packaged photos, 5e-5 on flat and
# noisy images. A gradient whose direction is 10 % wrong shows within five steps; smaller errors,
# and those of its length, show where the gradient of each step is compared (steps.py).
TOLERANCE = 1e-3
# Cancellation makes the relative error of smaller losses meaningless: features have size 1.
SMALL = 0.1


class EmbeddingNet(nn.Module):
    """[B, 3, H, W] -> [B, 16, H, W]: context at a quarter of the resolution plus per-pixel detail.

    Most layers work on few pixels, so that the loss is a visible share of a training step.
    Rounding errors must not grow, so activations are smooth, layers are normalised and do not start
    with small weights, and eps keeps the normalisation from amplifying flat regions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.context = nn.Sequential(
            nn.Conv2d(3, WIDTH // 2, 3, stride=2, padding=1),
            nn.SiLU(),
            *_layer(WIDTH // 2, stride=2),
            *(module for dilation in DILATIONS for module in _layer(WIDTH, dilation=dilation)),
            nn.Conv2d(WIDTH, CHANNELS, 1),
        )
        self.embed = nn.Conv2d(CHANNELS, CHANNELS, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        context = F.interpolate(self.context(images), size=images.shape[2:], mode="bilinear")
        return self.embed(F.silu(self.detail(images) + context))


def _layer(channels: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, WIDTH, 3, stride=stride, padding=dilation, dilation=dilation),
        nn.GroupNorm(4, WIDTH, eps=0.1),
        nn.SiLU(),
    )


def initial_network(device: str) -> EmbeddingNet:
    """The same weights on every device and in every call; leaves torch's random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return EmbeddingNet().to(device)


@dataclass(frozen=True)
class Training:
    """The result for one loss: eager and accelerated, the losses and the time and memory of a step;
    and the network trained with the accelerated loss, with its features.
    """

    step: Step
    losses: dict[str, list[float]]
    milliseconds: dict[str, float]
    extra_mib: dict[str, float | None]
    network: nn.Module
    features: Tensor

    @property
    def largest_difference(self) -> float:
        """Between eager and accelerated losses, relative to their size."""
        return max(map(_relative_difference, *self.losses.values()))


class Learner:
    """A network with its optimizer. Every library call goes to one backend."""

    def __init__(self, step: Step, scene: Scene, device: str, backend: str | None) -> None:
        self._step, self._scene, self._backend = step, scene, backend
        self.network = initial_network(device)
        self._optimizer = torch.optim.SGD(
            self.network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM
        )
        self.losses: list[float] = []
        self.milliseconds: list[float] = []

    def backward(self) -> Tensor:
        """The loss; its gradients are in the parameters."""
        self._optimizer.zero_grad()
        with pk.use_backend(self._backend):
            features = self._step.space(self.network(self._scene.images))
            (loss,) = self._step.call(features, self._scene)
            loss.backward()
        return loss.detach()

    def update(self, rate: float) -> None:
        """One step in the gradient's direction, so that one rate suits losses of any scale."""
        loss = self.backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        length = torch.nn.utils.get_total_norm(gradients).clamp(min=1e-12)
        for gradient in gradients:
            gradient /= length
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.losses.append(float(loss))


def train(step: Step, scene: Scene, device: str, count: int) -> Training:
    """`count` updates of each copy in turn; raises Mismatch at the first loss that differs."""
    learners = {name: Learner(step, scene, device, backend) for name, backend in BACKENDS.items()}
    losses = {name: learner.losses for name, learner in learners.items()}
    with tqdm(range(count), desc=step.name, unit="step") as progress:
        for index in progress:
            rate = LEARNING_RATE * (1 - index / count)
            for learner in learners.values():
                update = partial(learner.update, rate)
                learner.milliseconds.append(steps.milliseconds(update, device))
            _require_close(step.name, index, *(values[-1] for values in losses.values()))
            progress.set_postfix(loss=f"{losses['accelerated'][-1]:.4g}")
    network = learners["accelerated"].network
    with torch.no_grad():
        features = network(scene.images)
    return Training(
        step=step,
        losses=losses,
        # the first step also allocates and selects algorithms
        milliseconds={
            name: statistics.median(learner.milliseconds[1:] or learner.milliseconds)
            for name, learner in learners.items()
        },
        extra_mib={
            name: steps.extra_mib(learner.backward, device) for name, learner in learners.items()
        },
        network=network,
        features=features,
    )


def _relative_difference(one: float, other: float) -> float:
    """Relative to the size of the losses, or to `SMALL` where they are smaller."""
    return abs(one - other) / max(abs(one), abs(other), SMALL)


def _require_close(name: str, index: int, eager: float, accelerated: float) -> None:
    tolerance = TOLERANCE if index else FIRST_TOLERANCE
    # `not <=` instead of `>`, so that NaN fails
    if not _relative_difference(eager, accelerated) <= tolerance:
        raise Mismatch(
            f"{name}: at step {index + 1} the eager loss is {eager:.9g} and the accelerated one"
            f" {accelerated:.9g}, further apart than {tolerance:g} of their size"
        )
