"""The demo from photos to pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from .._core import dispatch
from . import (
    click_pictures,
    comparison,
    interaction,
    pictures,
    report,
    scene,
    steps,
    stereo,
    transfer,
    transfer_pictures,
)
from .photos import Photo
from .training import SIDES, train


def demonstrate(photos: list[Photo], device: str, out: Path, count: int) -> None:
    """Train, compare, print the table, and write pictures and numbers; raises Mismatch."""
    out.mkdir(parents=True, exist_ok=True)
    print(f"labelling {len(photos)} photos: {', '.join(photo.name for photo in photos)}")
    setting = scene.build(photos, device)
    batch = "x".join(map(str, setting.images.shape))
    print(
        f"images {batch} on {device}, up to {setting.num_regions} regions in one; {_sides(setting)}"
    )

    # nothing but the backend may differ between the two sides
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False):
        trainings = [train(step, setting, device, count) for step in steps.STEPS if step.trains]
    for training in trainings:
        eager, accelerated = (losses[-1] for losses in training.losses.values())
        print(
            f"{training.step.name}: {training.losses['eager'][0]:.6g} at first, after {count} steps"
            f" {eager:.6g} eager and {accelerated:.6g} accelerated; never further apart than"
            f" {training.largest_difference:.1e} of their size"
        )
    features = {training.step.name: training.features for training in trainings}
    costs = comparison.compare_all(features[steps.SALIENCY_LOSS], setting, device)
    saliency = steps.saliency(features[steps.SALIENCY_LOSS], setting)
    clicked = interaction.interact(features[steps.SALIENCY_LOSS], setting)

    pair, networks = stereo.packaged(), {t.step.name: t.network for t in trainings}
    handed_on = transfer.transfer(pair, networks[transfer.NETWORK], device)
    costs.append(comparison.compare(handed_on.step, handed_on.query, setting, device))

    facts = report.collect(device, setting, trainings, costs, saliency, clicked, handed_on)
    print(f"\n{report.table(facts)}\n")
    mean = facts["saliency"]
    print(
        f"mean saliency {mean['on_object']:.2f} on the objects,"
        f" {mean['on_background']:.2f} on the background"
    )
    after_each = ", ".join(f"{iou:.2f}" for iou in clicked.iou.mean(0).tolist())
    print(f"mean IoU after each click on the largest error: {after_each}")
    print(report.transferred(facts["label_transfer"]))
    spaces = {training.step.name: training.step.space(training.features) for training in trainings}
    written = [
        *pictures.write(out, photos, setting, spaces, saliency),
        *click_pictures.write(out, photos, setting, clicked),
        transfer_pictures.write(out, pair, handed_on),
        report.write(out, facts),
    ]
    print("wrote", ", ".join(map(str, written)))


def _sides(setting: scene.Scene) -> str:
    served = dispatch.choose("region_stats", (setting.images, setting.mask), SIDES["accelerated"])
    if served != "eager":
        return f"eager against {served}"
    reasons = [
        f"{backend}: {reason}"
        for backend in dispatch.order((setting.images,))
        for reason in dispatch.why_not(backend, "region_stats", (setting.images, setting.mask))
    ]
    why = "; ".join(reasons) or "PIXELKERNELS_BACKEND asks for it"
    return f"no accelerated backend, so eager against eager ({why})"
