"""The tables of what `models.py` found."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.table import markdown

Row = dict[str, Any]
NAMES = {
    "coseg": "`CoSegNet`",
    "menet": "`MEnet`",
    "cas": "`CASNet`",
    "transfer": "`LabelTransferNet`",
    "interactive": "`FewShotInteractiveNet`",
}
LOSSES = {
    "cas": "CAS",
    "class_agnostic_cross_entropy": "class-agnostic cross entropy",
    "cross_entropy": "cross entropy",
}
PLACES = {None: "none", "after": "f-BRS after the junction", "before": "f-BRS before it"}


def tables(content: Row) -> str:
    height, width = content["size"]
    facts = content["environment"]
    return "\n\n".join(
        [
            "Small networks trained from scratch on real photographs, cropped to the object and"
            f" {height} x {width} pixels large, on **{facts['machine']}**"
            f" ({facts['torch_threads']} threads, torch {facts['torch']},"
            f" commit {facts['commit']}), written by `benchmarks/models.py`. What they reach on the"
            " images that they learned:",
            _overfit(content["overfit"]),
            "A training step, eager backend beside default one; most of it is the network's own"
            " convolutions:",
            _costs(content["step_costs"]),
            "The papers' claims in small, on images that were not trained on; mean and standard"
            " deviation of the IoU over seeds. Region labels swapped with probability 0.5 in each"
            " image:",
            _flipped(content["flipped_labels"]),
            "Dice alone and with the IS-Triplet loss, as training goes on:",
            _triplets(content["with_triplets"]),
            "Clicks on the largest error, each image's clicks refined or not:",
            _clicks(content["over_clicks"]),
        ]
    )


def _overfit(rows: list[Row]) -> str:
    header = ("network", "images", "steps", "seconds", "loss, first to last", "IoU",
              "largest difference of eager and default losses")  # fmt: skip
    return markdown(
        header,
        [
            [
                NAMES[row["model"]],
                str(row["images"]),
                str(row["steps"]),
                f"{row['seconds']:.0f}",
                f"{row['first_loss']:.3g} to {row['last_loss']:.3g}",
                f"{row['iou']:.3f}",
                f"{row['largest_relative_difference']:.0e}",
            ]
            for row in rows
        ],
    )


def _costs(rows: list[Row]) -> str:
    header = ("network", "eager, ms", "default, ms", "times faster", "eager, extra MiB",
              "default, extra MiB")  # fmt: skip
    return markdown(
        header,
        [
            [
                NAMES[row["model"]],
                f"{row['eager_ms']:.0f}",
                f"{row['default_ms']:.0f}",
                f"{row['eager_ms'] / row['default_ms']:.2f}",
                f"{row['eager_mib']:.0f}",
                f"{row['default_mib']:.0f}",
            ]
            for row in rows
        ],
    )


def _flipped(rows: list[Row]) -> str:
    return markdown(
        ("loss", "IoU"), [[LOSSES[row["loss"]], _with_spread(row["iou"])] for row in rows]
    )


def _triplets(rows: list[Row]) -> str:
    header = ("loss", *(f"IoU after {steps} steps" for steps in rows[0]["steps"]))
    named = {0.0: "Dice", 1.0: "Dice + IS-Triplet"}
    return markdown(
        header,
        [
            [named[row["triplet_weight"]], *map(_with_spread, zip(*row["iou"], strict=True))]
            for row in rows
        ],
    )


def _clicks(rows: list[Row]) -> str:
    counts = range(1, len(rows[0]["iou"]) + 1)
    header = ("refinement", *(f"IoU after {n}" for n in counts), "clicked pixels right at the end")
    return markdown(
        header,
        [
            [
                PLACES[row["refinement"]],
                *(f"{iou:.3f}" for iou in row["iou"]),
                f"{row['clicked_pixels_right'][-1]:.0%}",
            ]
            for row in rows
        ],
    )


def _with_spread(values: Any) -> str:
    values = list(values)
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
