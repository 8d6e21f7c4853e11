"""The demo from photos to pictures, and its results: printed as a table, written as demo.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pixelkernels as pk
from pixelkernels._core import dispatch

from . import photos, pictures, scene, steps
from .interaction import Interaction, interact
from .photos import Photo
from .scene import Scene
from .steps import Cost
from .training import Training, train
from .transfer import NETWORK, POINTS, Transfer, transfer

HEADER = (
    "", "served by", "eager ms", "accelerated ms", "times faster", "eager MiB", "accelerated MiB"
)  # fmt: skip


def demonstrate(chosen: list[Photo], device: str, out: Path, count: int) -> None:
    """From photos to pictures; raises Mismatch."""
    out.mkdir(parents=True, exist_ok=True)
    print(f"labelling {len(chosen)} photos: {', '.join(photo.name for photo in chosen)}")
    setting = scene.build(chosen, device)
    batch = "x".join(map(str, setting.images.shape))
    print(
        f"images {batch} on {device}, up to {setting.num_regions} regions in one;"
        f" {_compared(setting)}"
    )

    # the backend must be the only difference between the two trainings
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False):
        trainings = [train(step, setting, device, count) for step in steps.STEPS if step.trains]
    for training in trainings:
        eager, accelerated = (losses[-1] for losses in training.losses.values())
        print(
            f"{training.step.name}: {training.losses['eager'][0]:.6g} at first, after {count} steps"
            f" {eager:.6g} eager and {accelerated:.6g} accelerated; never further apart than"
            f" {training.largest_difference:.1e} of their size"
        )
    by_loss = {training.step.name: training for training in trainings}
    features = by_loss[steps.SALIENCY_LOSS].features
    costs = steps.compare_all(features, setting, device)
    saliency = steps.saliency(features, setting)
    interaction = interact(features, setting)

    pair = photos.stereo_pair()
    transferred = transfer(pair, by_loss[NETWORK].network, device)
    costs.append(steps.compare(transferred.step, transferred.query, setting, device))

    facts = _collect(device, setting, trainings, costs, saliency, interaction, transferred)
    print(f"\n{_table(facts)}\n")
    mean = facts["saliency"]
    print(
        f"mean saliency {mean['on_object']:.2f} on the objects,"
        f" {mean['on_background']:.2f} on the background"
    )
    after_each = ", ".join(f"{iou:.2f}" for iou in interaction.iou.mean(0).tolist())
    print(f"mean IoU after each click on the largest error: {after_each}")
    shares = "; ".join(f"{name} {share:.1%}" for name, share in transferred.share_right.items())
    print(
        f"correct labels among the {facts['label_transfer']['share_known']:.0%} of the right"
        f" photo's pixels whose true label is known: {shares}\n"
        f"transferred labels that are the same eager and accelerated: {transferred.share_equal:.4%}"
    )
    embeddings = {name: t.step.space(t.features) for name, t in by_loss.items()}
    numbers = out / "demo.json"
    numbers.write_text(json.dumps(facts, indent=2) + "\n")
    written = [
        *pictures.write_photos(out, chosen, setting, embeddings, saliency),
        *pictures.write_clicks(out, chosen, setting, interaction),
        pictures.write_transfer(out, pair, transferred),
        numbers,
    ]
    print("wrote", ", ".join(map(str, written)))


def _compared(setting: Scene) -> str:
    tensors = (setting.images, setting.mask)
    served_by = dispatch.choose("region_stats", tensors, None)
    if served_by != "eager":
        return f"eager against {served_by}"
    reasons = [
        f"{backend}: {reason}"
        for backend in dispatch.order(tensors)
        for reason in dispatch.why_not(backend, "region_stats", tensors)
    ]
    why = "; ".join(reasons) or "PIXELKERNELS_BACKEND asks for it"
    return f"no accelerated backend, so eager against eager ({why})"


def _collect(
    device: str,
    scene: Scene,
    trainings: list[Training],
    costs: list[Cost],
    saliency: Tensor,
    interaction: Interaction,
    transfer: Transfer,
) -> dict[str, Any]:
    served_by = {cost.step.name: cost.served_by for cost in costs}
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
                **_row(served_by[training.step.name], training),
            }
            for training in trainings
        ],
        "steps": [
            {
                "name": cost.step.name,
                "backward": cost.step.differentiable,
                **_row(cost.served_by, cost),
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


def _row(served_by: str, measured: Training | Cost) -> dict[str, Any]:
    milliseconds = measured.milliseconds
    return {
        "served_by": served_by,
        "milliseconds": milliseconds,
        "times_faster": milliseconds["eager"] / milliseconds["accelerated"],
        "extra_mib": measured.extra_mib,
    }


def _table(facts: dict[str, Any]) -> str:
    rows = [
        HEADER,
        ("one training step: network, loss, gradients, update",),
        *map(_cells, facts["training"]),
        ("the step alone: forward and backward",),
        *(_cells(row) for row in facts["steps"] if row["backward"]),
        ("the step alone, which has no gradient: forward",),
        *(_cells(row) for row in facts["steps"] if not row["backward"]),
    ]
    columns = zip(*(row for row in rows if len(row) > 1), strict=True)
    first, *others = (max(map(len, column)) for column in columns)
    lines = []
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=False)]
        lines.append("  ".join([f"{row[0]:<{first}}", *cells]).rstrip())
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"  {row['name']}",
        row["served_by"],
        *(f"{value:.2f}" for value in row["milliseconds"].values()),
        f"{row['times_faster']:.1f}",
        *("n/a" if value is None else f"{value:.1f}" for value in row["extra_mib"].values()),
    )
