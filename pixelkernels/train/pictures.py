"""The loss curve, and what a network predicts beside what it was told."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .folder import Folder, pixels

matplotlib.use("agg")


def loss_curve(losses: list[float], out: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    figure.savefig(out)


def predictions(data: Folder, predicted: Tensor, out: Path) -> list[Path]:
    """One file for each image: the image, its labels, those predicted."""
    most = int(torch.maximum(data.labels.max(), predicted.max().cpu()))
    files = []
    for name, image, labels, found in zip(
        data.names, pixels(data.images), data.labels, predicted.cpu(), strict=True
    ):
        figure = Figure(figsize=(9, 3), layout="constrained")
        panels = {"image": image, "labels": labels, "prediction": found}
        for axes, (title, values) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(values.numpy(), vmin=-1, vmax=max(most, 1), interpolation="nearest")
            axes.set_title(title)
            axes.set_axis_off()
        files.append(out / f"{name}.png")
        figure.savefig(files[-1])
    return files
