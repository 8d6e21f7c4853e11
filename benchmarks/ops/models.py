"""Train the reference networks on real images: learning, agreement of backends, the cost of a step,
and small versions of the papers' experiments.

    python -m benchmarks.ops.models DIR [--part NAME] [--out PATH]

DIR/images and DIR/masks hold at least 8 images of one object or class, for example the frames of a
video, and masks of the object. Images are cropped around the object. Without --part, the results
go to benchmarks/results/<machine>/models/models.json, or to --out. The run takes half an hour on
two cores: the networks are small and trained from scratch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from benchmarks import environment, measure
from benchmarks.run import RESULTS
from examples.train.folder import Folder
from examples.train.run import Run
from examples.train.tasks import SMALL, SMALL_RATES, TASKS, InteractiveTask
from pixelkernels import testing
from pixelkernels.models import CASNet, MEnet, click_loop
from pixelkernels.models.layers import resized_labels
from pixelkernels.models.metrics import jaccard, saliency_measures

SIZE, READ = (128, 224), (480, 840)
SEEDS = (0, 1, 2)
# per network: images, steps, batch size
LEARNING = {
    "coseg": (3, 100, 2),
    "menet": (3, 150, 3),
    "cas": (3, 100, 3),
    "transfer": (3, 100, 2),
    "interactive": (3, 100, 3),
}
COMPARED = 3  # steps with both backends
Row = dict[str, Any]


class Data:
    """A subset of a Folder."""

    def __init__(self, names: list[str], images: torch.Tensor, labels: torch.Tensor) -> None:
        self.names, self.images, self.labels = names, images, labels

    def __len__(self) -> int:
        return len(self.names)

    def part(self, chosen: list[int]) -> Data:
        names = [self.names[i] for i in chosen]
        return Data(names, self.images[chosen], self.labels[chosen].clone())


def near_objects(folder: Path) -> Data:
    """Every image, cropped to twice the size of its object or to the border."""
    whole = Folder(folder / "images", folder / "masks", READ)
    images, labels = [], []
    for image, mask in zip(whole.images, whole.labels > 0, strict=True):
        rows, columns = (mask.any(dim).nonzero() for dim in (1, 0))
        middle = [float(x.min() + x.max()) / 2 for x in (rows, columns)]
        extent = [float(x.max() - x.min() + 1) for x in (rows, columns)]
        zoom = min(max(2 * e / s for e, s in zip(extent, SIZE, strict=True)), READ[0] / SIZE[0])
        box = []
        for centre, side, most in zip(middle, SIZE, READ, strict=True):
            length = min(round(zoom * side), most)
            start = min(max(round(centre - length / 2), 0), most - length)
            box.append(slice(start, start + length))
        cut = image[:, box[0], box[1]][None]
        images.append(F.interpolate(cut, SIZE, mode="bilinear", antialias=True)[0])
        labels.append(resized_labels(mask[None, box[0], box[1]], SIZE)[0])
    return Data(whole.names, torch.stack(images), torch.stack(labels))


def spread_over(whole: Data, count: int) -> list[int]:
    return [round(i * (len(whole) - 1) / (count - 1)) for i in range(count)]


def started(name: str, data: Any, batch: int, seed: int = 0, **options: Any) -> Run:
    torch.manual_seed(seed)
    task = TASKS[name](data, "cpu", **{**SMALL[name], **options})
    return Run(task, len(data), batch, SMALL_RATES[name], seed=seed)


def trained(run: Run, steps: int, title: str) -> Run:
    for _ in tqdm(range(steps), desc=title, unit="step", leave=False):
        run.step()
    run.task.network.eval()
    return run


def object_iou(task: Any) -> float:
    """The IoU of predicted objects and masks over all images of the task."""
    network, target = task.network, task.labels > 0
    if isinstance(network, CASNet):
        found = network.predict(task.images, network.choose_channel(task.images, target))
    else:
        found = task.predict() > 0
    return jaccard(found, target)


def overfit(whole: Data) -> Iterator[Row]:
    """Overfit each network to a few images; compare the first losses of both backends."""
    for name, (images, steps, batch) in LEARNING.items():
        data = whole.part(spread_over(whole, images))
        sides = {}
        for backend in ("eager", None):
            run = started(name, data, batch)
            run.backend = backend
            with testing.same_draws():
                sides[backend] = [run.step() for _ in range(COMPARED)]
        begin = time.perf_counter()
        run = trained(started(name, data, batch), steps, name)
        row: Row = {
            "model": name,
            "images": images,
            "steps": steps,
            "seconds": time.perf_counter() - begin,
            "first_loss": run.losses[0],
            "last_loss": run.losses[-1],
            "iou": object_iou(run.task),
            "largest_relative_difference": max(
                abs(a - b) / max(abs(a), abs(b)) for a, b in zip(*sides.values(), strict=True)
            ),
        }
        if isinstance(run.task.network, MEnet):
            maps = run.task.network.saliency(run.task.images)
            row |= saliency_measures(maps, run.task.labels > 0)
        yield row


def step_costs(whole: Data) -> Iterator[Row]:
    """Time and memory of a training step, eager and default backend alternately."""
    for name, (_, _, batch) in LEARNING.items():
        data = whole.part(spread_over(whole, 4))
        options = {"transfer": {"pairs": "all"}}.get(name, {})
        sides = {}
        for side, backend in (("eager", "eager"), ("default", None)):
            sides[side] = started(name, data, batch, **options)
            sides[side].backend = backend
        calls: dict[str, Callable[[], object]] = {side: run.step for side, run in sides.items()}
        for call in calls.values():
            measure.warm_up(call)
        memory = {side: measure.extra_memory(call, "cpu") for side, call in calls.items()}
        effort = measure.Effort(rounds=9, seconds=20, least=3)
        spread = measure.in_turn(calls, measure.Clock("cpu"), effort)
        yield {
            "model": name,
            "batch": batch,
            **{f"{side}_ms": spread[side].p50 for side in calls},
            **{f"{side}_mib": memory[side] for side in calls},
        }


def flipped_labels(whole: Data) -> Iterator[Row]:
    """CAS and cross entropy when the two labels of each image are swapped with probability 0.5: the
    IoU with the true masks of held-out images.
    """
    half = [list(range(start, len(whole), 2)) for start in (0, 1)]
    for kind in ("cas", "class_agnostic_cross_entropy", "cross_entropy"):
        ious = []
        for seed in SEEDS:
            train, test = (whole.part(chosen) for chosen in half)
            flip = torch.rand(len(train), generator=torch.Generator().manual_seed(seed)) < 0.5
            train.labels = ((train.labels > 0) ^ flip[:, None, None]).long()
            run = trained(started("cas", train, 3, seed, kind=kind), 70, f"{kind}, seed {seed}")
            network = run.task.network
            target = test.labels > 0
            if kind == "cross_entropy":
                found = network(test.images).argmax(1).bool()
            else:
                found = network.predict(test.images, network.choose_channel(test.images, target))
            ious.append(jaccard(found, target))
        yield {"loss": kind, "iou": ious}


def with_triplets(whole: Data) -> Iterator[Row]:
    """Dice with and without the IS-Triplet loss: the IoU on held-out images during training."""
    half = [list(range(start, len(whole), 2)) for start in (0, 1)]
    for weight in (0.0, 1.0):
        curves = []
        for seed in SEEDS:
            train, test = (whole.part(chosen) for chosen in half)
            run = started("coseg", train, 2, seed, triplet_weight=weight)
            curve = []
            for _ in range(4):
                trained(run, 20, f"triplet weight {weight:g}, seed {seed}")
                held_out = TASKS["coseg"](test, "cpu", **SMALL["coseg"])
                held_out.network = run.task.network
                curve.append(object_iou(held_out))
            curves.append(curve)
        yield {"triplet_weight": weight, "steps": [20, 40, 60, 80], "iou": curves}


def over_clicks(whole: Data) -> Iterator[Row]:
    """Clicks on held-out images, without f-BRS and with it after and before the junction."""
    half = [list(range(start, len(whole), 2)) for start in (0, 1)]
    train, test = (whole.part(chosen) for chosen in half)
    run = trained(started("interactive", train, 3), 100, "interactive")
    task: InteractiveTask = run.task
    task.images, task.labels = test.images, test.labels
    count = len(test)
    images, masks, support = task.episode(
        torch.stack([(torch.arange(count) + i) % count for i in (0, 1)], 1)
    )
    for refinement in (None, "after", "before"):
        ious, right = [], []
        for step in click_loop(
            task.network, images, support, masks.long(), num_clicks=5, refinement=refinement
        ):
            ious.append(float(step.iou.mean()))
            rows, columns = step.clicks.points.clamp(min=0).unbind(-1)
            said = step.logits[torch.arange(count)[:, None], rows, columns] > 0
            there = step.clicks.labels >= 0
            right.append(float((said == (step.clicks.labels == 1))[there].float().mean()))
        yield {"refinement": refinement, "iou": ious, "clicked_pixels_right": right}


PARTS: dict[str, Callable[[Data], Iterator[Row]]] = {
    "overfit": overfit,
    "step_costs": step_costs,
    "flipped_labels": flipped_labels,
    "with_triplets": with_triplets,
    "over_clicks": over_clicks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    whole = near_objects(options.folder)
    content: Row = {"environment": environment.describe("cpu"), "size": SIZE, "images": len(whole)}
    for name in [options.part] if options.part else PARTS:
        content[name] = []
        for row in PARTS[name](whole):
            print(name, json.dumps(row))
            content[name].append(row)
    out = options.out
    if out is None and options.part is None:
        machine = environment.slug(environment.device_name("cpu"))
        out = RESULTS / machine / "models" / "models.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
