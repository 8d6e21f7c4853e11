"""Training with checkpoints, and pictures of its result. A resumed run gives the same bits as one
that was never interrupted.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import pixelkernels as pk

from . import checkpoint
from .folder import Folder, pixels
from .tasks import Task


@dataclass
class Run:
    """A task in training.

    Args:
        task: the network and its data.
        items: of an epoch: the number of images.
        batch: items per step.
        rate: the learning rate, if not the paper's.
        backend: of every library call; None is the dispatcher's choice.
        seed: of the generator of all randomness after the network's initialisation.
        device: of the network.
        fingerprint: what a run must share with the run that it resumes, see `checkpoint.load`.
    """

    task: Task
    items: int
    batch: int
    rate: float | None = None
    backend: str | None = None
    seed: int = 0
    device: str = "cpu"
    fingerprint: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optimizer = self.task.optimizer(self.rate)
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def step(self) -> float:
        """One update; the loss before it."""
        self.task.network.train()
        epoch = len(self.losses) * self.batch // self.items
        self._optimizer.zero_grad()
        # dropout draws from torch's own state, so seed that from the generator
        seed = torch.randint(2**62, (), generator=self._generator, device=self.device)
        with torch.random.fork_rng(), pk.use_backend(self.backend):
            torch.manual_seed(int(seed))
            loss = self.task.loss(self.batch, self._generator, epoch)
            loss.backward()
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"step {len(self.losses) + 1}: the loss is {value}")
        self._optimizer.step()
        self.losses.append(value)
        return value

    def state(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "network": self.task.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "losses": self.losses,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.task.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"].cpu())
        self.losses = list(state["losses"])


def train(run: Run, steps: int, out: Path, *, every: int = 50) -> None:
    """Train until the run has `steps` steps. Resume from `out`/checkpoint.pt if it exists; write it
    every `every` steps, at the end, and on interruption after the step.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "checkpoint.pt"
    if file.exists():
        state = checkpoint.load(file, run.fingerprint, run.device)
        try:
            run.load(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}: does not fit this version of the network; {checkpoint.ADVICE}"
            ) from error
    checkpoint.require_writable(file)
    with _interrupted_between_steps() as interrupted:
        for done in _progress(run, steps):
            if done % every == 0 or done == steps or interrupted.is_set():
                checkpoint.save(run.state(), file)
            if interrupted.is_set():
                raise KeyboardInterrupt


@contextmanager
def _interrupted_between_steps() -> Iterator[threading.Event]:
    """The event is set by the first interruption: half a step cannot be resumed. A second one
    interrupts at once.
    """
    interrupted = threading.Event()

    def note(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _progress(run: Run, steps: int) -> Iterator[int]:
    # None: not in a log
    with tqdm(total=steps, initial=len(run.losses), unit="step", disable=None) as progress:
        while len(run.losses) < steps:
            progress.set_postfix(loss=f"{run.step():.4g}", refresh=False)
            progress.update()
            yield len(run.losses)


def write_loss_curve(losses: list[float], file: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    figure.savefig(file)


def write_predictions(data: Folder, truth: Tensor, predicted: Tensor, out: Path) -> None:
    """One file per image: the image, the labels to predict, the predicted ones."""
    largest = int(torch.maximum(truth.max(), predicted.max()))
    for name, image, labels, prediction in zip(
        data.names, pixels(data.images), truth.cpu(), predicted.cpu(), strict=True
    ):
        figure = Figure(figsize=(9, 3), layout="constrained")
        panels = {"image": image, "labels": labels, "prediction": prediction}
        for axes, (title, values) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(values.numpy(), vmin=-1, vmax=max(largest, 1), interpolation="nearest")
            axes.set_title(title)
            axes.set_axis_off()
        figure.savefig(out / f"{name}.png")
