"""The cases of a sweep that are slow, and why."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

BEHIND, COSTLY, SLOWED = "slower than eager", "costly for their size", "slowed down by values"
# A case is in a list from this ratio on. The default backend may be eager itself: the times of two
# such calls are up to 6 % apart.
LEAST = {BEHIND: 1.1, COSTLY: 3.0, SLOWED: 1.3}
Row = dict[str, Any]


def lists(rows: list[Row]) -> dict[str, list[Row]]:
    """The entries of the three lists, each with the `ratio` for which it is there."""
    costs: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if not row["value"]:
            costs.setdefault((row["op"], row["mode"]), []).append(row["ms"] / row["elements"])
    found: dict[str, list[Row]] = {title: [] for title in LEAST}
    for row in rows:
        ratio = row["ms"] / row["other_ms"]
        ratios = {SLOWED: ratio} if row["value"] else {BEHIND: ratio}
        if not row["value"]:
            median = statistics.median(costs[row["op"], row["mode"]])
            ratios[COSTLY] = row["ms"] / row["elements"] / median
        for title, value in ratios.items():
            if value > LEAST[title]:
                why = reason(row) if title == COSTLY else ""
                found[title].append({**row, "ratio": value, "reason": why})
    return {title: sorted(each, key=lambda row: -row["ratio"]) for title, each in found.items()}


def reason(row: Row) -> str:
    """Why a case costs much for its size, or nothing."""
    sizes = {word[0]: int(word[1:]) for word in row["size"].split()}
    return next((why for applies, why in REASONS if applies(row, sizes)), "")


FEW_CHANNELS = 3
OVERHEAD_MS = 0.05
ON_PAIRS = (
    *("matching_scores", "label_transfer", "prior_mask", "pair_similarity_loss"),
    *("mutual_matches", "dual_softmax_loss"),
)
CONTRAST = "pixel_contrast_loss"
SAMPLING = ("is_triplet_loss", "sample_reference")

REASONS: tuple[tuple[Callable[[Row, dict[str, int]], bool], str], ...] = (
    (
        lambda row, sizes: row["case"] == "points without a grid",
        "the case has one row of pixels, so PyTorch's own part of a call shows",
    ),
    (
        lambda row, sizes: row["ms"] < OVERHEAD_MS,
        "a call this short is mostly PyTorch's own part of it",
    ),
    (
        lambda row, sizes: row["op"] == "click_maps" and sizes["W"] == 53,
        "rows of 53 pixels hardly repay finding the nearest clicks of each",
    ),
    (
        lambda row, sizes: row["op"] in ON_PAIRS and sizes["B"] == 8,
        "8 images of 221 pixels: the points of each are sorted and packed on their own",
    ),
    (
        lambda row, sizes: row["op"] in (*ON_PAIRS, CONTRAST) and sizes["D"] <= FEW_CHANNELS,
        "each pair is transformed and reduced once, however few multiplications it takes",
    ),
    (
        lambda row, sizes: row["op"] in ON_PAIRS and sizes["P"] == 1,
        "five points: packing the queries costs as much as multiplying them",
    ),
    (
        lambda row, sizes: (
            row["op"] in SAMPLING and sizes.get("C", sizes.get("D", 0)) <= FEW_CHANNELS
        ),
        "drawing the pixels takes as long for few channels as for many",
    ),
    (
        lambda row, sizes: row["op"] == "discriminative_loss" and sizes["R"] == 300,
        "300 regions: the push term compares all pairs of them",
    ),
    (
        lambda row, sizes: sizes.get("C", FEW_CHANNELS + 1) <= FEW_CHANNELS,
        "the work for a pixel's label or weight is shared by few channels",
    ),
)
