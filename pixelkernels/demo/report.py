"""What was measured, once as a table and once as JSON, from the same records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk

from .comparison import Cost
from .interaction import Interaction
from .scene import Scene
from .training import Training
from .transfer import POINTS, Transfer

HEADER = (
    "", "served by", "eager ms", "accelerated ms", "times faster", "eager MiB", "accelerated MiB"
)  # fmt: skip


def collect(
    device: str,
    scene: Scene,
    trainings: list[Training],
    costs: list[Cost],
    saliency: Tensor,
    interaction: Interaction,
    transfer: Transfer,
) -> dict[str, Any]:
    """Everything the table shows, the losses of every step, the IoU after every click and how well
    labels were transferred, as plain values.
    """
    served = {cost.step.name: cost.served_by for cost in costs}
    return {
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "pixelkernels": pk.__version__,
        "photos": scene.names,
        "shape": list(trainings[0].features.shape),
        "num_regions": scene.num_regions,
        "training": [
            {
                "name": training.step.name,
                "losses": training.losses,
                "largest_relative_difference": training.largest_difference,
                **_row(served[training.step.name], training.milliseconds, training.extra_mib),
            }
            for training in trainings
        ],
        "steps": [
            {
                "name": cost.step.name,
                "backward": cost.step.differentiable,
                **_row(cost.served_by, cost.milliseconds, cost.extra_mib),
            }
            for cost in costs
        ],
        "saliency": {
            "on_object": float(saliency[scene.mask].mean()),
            "on_background": float(saliency[~scene.mask].mean()),
        },
        "interaction": [
            {"photo": name, "points": points, "labels": labels, "iou": iou}
            for name, points, labels, iou in zip(
                scene.names,
                interaction.points.tolist(),
                interaction.labels.tolist(),
                interaction.iou.tolist(),
                strict=True,
            )
        ],
        "label_transfer": {
            "points_per_class": POINTS,
            "share_known": float((transfer.truth >= 0).mean()),
            "share_right": transfer.share_right,
            "share_equal": transfer.share_equal,
        },
    }


def write(out: Path, facts: dict[str, Any]) -> Path:
    path = out / "demo.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    return path


def transferred(facts: dict[str, Any]) -> str:
    shares = "; ".join(f"{name} {share:.1%}" for name, share in facts["share_right"].items())
    return (
        f"correct labels among the {facts['share_known']:.0%} of the right photo's pixels whose"
        f" true label is known: {shares}\n"
        f"transferred labels that are the same eager and accelerated: {facts['share_equal']:.4%}"
    )


def table(facts: dict[str, Any]) -> str:
    rows = [
        ("one training step: network, loss, gradients, update",),
        *(_cells(row) for row in facts["training"]),
        ("the step alone: forward and backward",),
        *(_cells(row) for row in facts["steps"] if row["backward"]),
        ("the step alone, which has no gradient: forward",),
        *(_cells(row) for row in facts["steps"] if not row["backward"]),
    ]
    widths = [
        max(len(row[i]) for row in (HEADER, *rows) if len(row) > 1) for i in range(len(HEADER))
    ]
    lines = []
    for row in (HEADER, *rows):
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=False)]
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _row(
    served_by: str, milliseconds: dict[str, float], extra_mib: dict[str, float | None]
) -> dict[str, Any]:
    return {
        "served_by": served_by,
        "milliseconds": milliseconds,
        "times_faster": milliseconds["eager"] / milliseconds["accelerated"],
        "extra_mib": extra_mib,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"  {row['name']}",
        row["served_by"],
        *(f"{value:.2f}" for value in row["milliseconds"].values()),
        f"{row['times_faster']:.1f}",
        *("n/a" if value is None else f"{value:.1f}" for value in row["extra_mib"].values()),
    )
