"""Training with checkpoints: an interrupted run goes on as if it had not been."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import pixelkernels as pk

from .tasks import Task


@dataclass
class Run:
    """A task in training.

    Args:
        task: what to train.
        items: of an epoch: the number of the data set's images.
        batch: items in a step.
        rate: of learning, in place of the paper's.
        backend: of every call of the library; None is the dispatcher's choice.
        seed: of the generator that decides everything random after the network's initial values.
        device: of the network.
    """

    task: Task
    items: int
    batch: int
    rate: float | None = None
    backend: str | None = None
    seed: int = 0
    device: str = "cpu"
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optimizer = self.task.optimizer(self.rate)
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def step(self) -> float:
        """One update; the loss before it."""
        self.task.network.train()
        epoch = len(self.losses) * self.batch // self.items
        self._optimizer.zero_grad()
        # what layers draw (dropout) follows from the generator too
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
    """Up to `steps` steps in all, with `out`/checkpoint.pt every so often, at the end, and when it
    is interrupted. One that is there already is taken up.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "checkpoint.pt"
    if file.exists():
        run.load(torch.load(file, map_location=run.device, weights_only=True))
    try:
        for done in _progress(run, steps):
            if done % every == 0:
                _save(run, file)
    finally:
        _save(run, file)


def _progress(run: Run, steps: int) -> Iterator[int]:
    with tqdm(total=steps, initial=len(run.losses), unit="step") as progress:
        while len(run.losses) < steps:
            progress.set_postfix(loss=f"{run.step():.4g}")
            progress.update()
            yield len(run.losses)


def _save(run: Run, file: Path) -> None:
    # an interruption here must not cost the checkpoint before
    fresh = file.with_suffix(".new")
    torch.save(run.state(), fresh)
    fresh.replace(file)
