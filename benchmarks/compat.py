"""The drop-ins of `pixelkernels.compat` beside what they stand in for, on the CPU.

    python benchmarks/compat.py [--only NAME]

Both sides of a case are checked against each other, then timed in turn. Writes
benchmarks/results/<machine>/compat/compat.json; --only prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import compat_statements as theirs
from benchmarks import environment, measure
from benchmarks.run import RESULTS
from pixelkernels import testing
from pixelkernels.compat import (
    cas,
    discriminative,
    feelvos,
    monai,
    panet,
    pfenet,
    ritm,
    sam2,
    scipy,
)


class DropIn(NamedTuple):
    """What a project calls, what stands in for it, and where that differs."""

    project: str
    call: str
    ours: str
    differs: str


DROP_INS = {
    "maps": DropIn(
        "RITM, f-BRS, SimpleClick",
        "DistMaps",
        "ritm.DistMaps",
        "`cpu_mode` is exact too; padding is no click even for disks of 1000 pixels",
    ),
    "next": DropIn(
        "RITM, SimpleClick",
        "get_next_points",
        "ritm.get_next_points",
        "exact depths where the original takes chamfer distances; torch draws, not NumPy",
    ),
    "centre": DropIn(
        "SAM 2",
        "sample_one_point_from_error_center",
        "sam2.sample_one_point_from_error_center",
        "none",
    ),
    "errors": DropIn(
        "SAM 2",
        "sample_random_points_from_errors",
        "sam2.sample_random_points_from_errors",
        "the same distribution, other draws",
    ),
    "scipy": DropIn(
        "SciPy",
        "distance_transform_edt",
        "scipy.distance_transform_edt",
        "rounds to float32 with `sampling`; indices and volumes go to SciPy",
    ),
    "monai": DropIn(
        "MONAI",
        "distance_transform_edt",
        "monai.distance_transform_edt",
        "no indices, no volumes; +inf in a channel without a zero",
    ),
    "prior": DropIn(
        "PFENet, BAM",
        "the prior in `forward`",
        "pfenet.prior",
        "rounding",
    ),
    "gap": DropIn(
        "PFENet, BAM, HDMNet",
        "Weighted_GAP",
        "pfenet.weighted_gap",
        "rounding",
    ),
    "features": DropIn(
        "PANet",
        "getFeatures",
        "panet.getFeatures",
        "rounding: the mask is resized, by the adjoint, not the features",
    ),
    "contrastive": DropIn(
        "torch-em",
        "ContrastiveLoss",
        "discriminative.ContrastiveLoss",
        "ids need not be consecutive; `ignore_label` works",
    ),
    "cas": DropIn(
        "CAS",
        "lss",
        "cas.lss",
        "hard masks only",
    ),
    "neighbours": DropIn(
        "FEELVOS, MANet",
        "nearest_neighbor_features_per_object",
        "feelvos.nearest_neighbor_features_per_object",
        "rounding; no squares below 0",
    ),
}


@dataclass(frozen=True)
class Case:
    """Two calls with one result, and how far apart the two may be, relative to the largest value
    (None: the result is random).
    """

    name: str
    sizes: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tolerance: float | None = 1e-4


def blobs(count: int, height: int, width: int, seed: int) -> Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, height, width))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 12, 12)) > 0)


def trained(loss: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    def call() -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        value = loss(leaf)
        return value, torch.autograd.grad(value, leaf)[0]

    return call


def cases() -> list[Case]:
    torch.manual_seed(0)
    points = torch.randint(0, 320, (28, 48, 3)).float()
    points[:, 20:24] = points[:, 40:] = -1
    image, maps = torch.zeros(28, 3, 320, 480), ritm.DistMaps(5)
    target, pred = (blobs(28, 320, 480, seed)[:, None] for seed in (0, 1))
    large = [blobs(4, 1024, 1024, seed)[:, None] for seed in (2, 3)]
    frame = blobs(4, 480, 854, 4)
    query, support = torch.randn(2, 4, 2048, 60, 60).relu()
    mask = blobs(4, 60, 60, 5)[:, None].float()
    middle = torch.randn(4, 256, 60, 60)
    features, wide = torch.randn(1, 512, 53, 53), blobs(1, 417, 417, 6).float()
    x, labels = torch.randn(2, 16, 256, 256), testing.coherent_labels(2, 256, 256, 20)[:, None]
    soft, gt = torch.randn(40, 2, 256, 256).softmax(1), blobs(40, 256, 256, 7)[:, None].float()
    reference, other = torch.randn(2, 60, 107, 100)
    objects = testing.coherent_labels(1, 60, 107, 5)[0][..., None]
    return [
        Case(
            "maps", "28 images, 48 points, 320x480",
            lambda: maps(image, points), lambda: theirs.distance_maps(points, 320, 480, 5), 2e-6,
        ),
        Case(
            "next", "28 images, 320x480",
            lambda: ritm.get_next_points(pred.float(), target.float(), points, 2),
            lambda: theirs.next_points(pred.float(), target.float(), points, 2), None,
        ),
        Case(
            "centre", "4 images, 1024x1024",
            lambda: sam2.sample_one_point_from_error_center(*large),
            lambda: theirs.error_centres(*large), 0,
        ),
        Case(
            "errors", "7 points, 4 images, 1024x1024",
            lambda: sam2.sample_random_points_from_errors(*large, num_pt=7),
            lambda: theirs.random_errors(*large, 7), None,
        ),
        Case(
            "scipy", "480x854",
            lambda: torch.from_numpy(scipy.distance_transform_edt(frame[0].numpy())),
            lambda: torch.from_numpy(ndimage.distance_transform_edt(frame[0].numpy())), 0,
        ),
        Case(
            "monai", "4 channels, 480x854",
            lambda: monai.distance_transform_edt(frame), lambda: theirs.channel_transforms(frame),
        ),
        Case(
            "prior", "4 images, 2048 channels, 60x60",
            lambda: pfenet.prior(query, [support], [mask]),
            lambda: theirs.prior(query, [support], [mask]),
        ),
        Case(
            "gap", "4 images, 256 channels, 60x60",
            lambda: pfenet.weighted_gap(middle, mask), lambda: theirs.weighted_gap(middle, mask),
        ),
        Case(
            "features", "512 channels, 53x53 to 417x417",
            lambda: panet.getFeatures(None, features, wide),
            lambda: theirs.upsampled_prototype(features, wide),
        ),
        Case(
            "contrastive", "2 images, 16 channels, 20 ids, 256x256",
            trained(lambda f: discriminative.ContrastiveLoss(0.5, 1.5)(f, labels), x),
            trained(lambda f: theirs.contrastive(f, labels, 0.5, 1.5), x),
        ),
        Case(
            "cas", "40 images, 2 channels, 256x256",
            trained(lambda s: cas.lss()(gt, s), soft),
            trained(lambda s: theirs.released_cas(gt, s), soft),
        ),
        Case(
            "neighbours", "100 channels, 60x107",
            lambda: feelvos.nearest_neighbor_features_per_object(reference, other, objects, 1)[0],
            lambda: theirs.nearest_neighbours(reference, other, objects, 5),
        ),
    ]  # fmt: skip


def check(case: Case) -> None:
    if case.tolerance is None:
        return
    sides = [call() for call in (case.ours, case.theirs)]
    pairs = zip(*(s if isinstance(s, tuple) else (s,) for s in sides), strict=True)
    for ours, expected in pairs:
        error = (ours.double() - expected.double()).abs().max()
        most = case.tolerance * expected.double().abs().clamp(max=1e9).max()
        if not error <= most:
            raise SystemExit(f"{case.name}: off by {error:.3g}, {most:.3g} allowed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=DROP_INS)
    options = parser.parse_args()
    rows = []
    effort = measure.Effort(rounds=15, seconds=10, least=5)
    for case in cases():
        if options.only and options.only != case.name:
            continue
        check(case)
        calls = {"ours": case.ours, "theirs": case.theirs}
        for call in calls.values():
            measure.warm_up(call)
        memory = {side: measure.extra_memory(call, "cpu") for side, call in calls.items()}
        spread = measure.in_turn(calls, measure.Clock("cpu"), effort)
        row = {**DROP_INS[case.name]._asdict(), "sizes": case.sizes, "tolerance": case.tolerance}
        for side in calls:
            row |= {f"{side}_ms": spread[side].p50, f"{side}_mib": memory[side]}
        rows.append(row)
        faster = row["theirs_ms"] / row["ours_ms"]
        print(f"{case.name:12} {row['theirs_ms']:9.2f} {row['ours_ms']:9.2f} ms  {faster:6.2f}x"
              f" {row['theirs_mib']:8.1f} {row['ours_mib']:8.1f} MiB", flush=True)  # fmt: skip
    if not options.only:
        machine = environment.slug(environment.device_name("cpu"))
        out = RESULTS / machine / "compat" / "compat.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": environment.describe("cpu"), "rows": rows}
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
