"""The measured facts of README: four numbers, eight workloads on one machine, and six drop-ins."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from benchmarks.tables import (
    NOTHING,
    Row,
    best_peer,
    conditions,
    default_rows,
    markdown,
    measured_on,
    memory,
    milliseconds,
)

RAW = "https://raw.githubusercontent.com/pixelkernels/pixelkernels/main"
MACHINE = "intel-r-xeon-r-processor"
DROP_INS_MACHINE = "amd-epyc"
# one for each kind of operation, at the sizes of its paper or project
WORKLOADS = (
    "discriminative-r20",
    "cas-r20",
    "click-maps-ritm-tanh",
    "next-click",
    "label-transfer-k2100",
    "pair-loss",
    "prior-mask",
    "is-triplet-loss",
)
DROP_INS = (
    "ritm.DistMaps",
    "sam2.sample_one_point_from_error_center",
    "scipy.distance_transform_edt",
    "discriminative.ContrastiveLoss",
    "pfenet.prior",
    "stcn.readout",
)
ON_CPU_ONLY = "CPU measured; GPU kernels not yet run on a GPU."
# our row and the best peer's
Pair = tuple[Row, Row]


def families(results: Path) -> dict[str, Row]:
    """The results of `MACHINE` by family."""
    files = sorted((results / MACHINE).glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def originals(results: Path) -> Row:
    """The drop-ins compared on `DROP_INS_MACHINE`."""
    path = results / DROP_INS_MACHINE / "compat" / "compat.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


def pairs(families: dict[str, Row]) -> list[Pair]:
    """Every workload that was timed and has a peer."""
    return [
        (row, best)
        for content in families.values()
        for row in default_rows(content["rows"])
        if "ms" in row and (best := best_peer(row, content["rows"]))
    ]


def chosen(compared: list[Pair]) -> list[Pair]:
    """Those of `WORKLOADS`, in their order."""
    by_name = {ours["workload"]: (ours, best) for ours, best in compared}
    return [by_name[name] for name in WORKLOADS if name in by_name]


def why(results: Path) -> str:
    """Four bullets with a number each."""
    found, replaced = families(results), originals(results)
    compared = pairs(found)
    if not compared or not replaced["rows"]:
        return NOTHING
    faster = [ours["times_faster"] for ours, _ in compared]
    shares = [
        ours["extra_mib"] / best["extra_mib"]
        for ours, best in compared
        if ours["extra_mib"] and best["extra_mib"]
    ]
    # an original that approximates has no tolerance
    differences = [
        difference
        for row in replaced["rows"]
        if row["tolerance"] is not None
        for difference in row["differences"].values()
    ]
    gains = [row["theirs_ms"] / row["ours_ms"] for row in replaced["rows"]]
    names = {row["ours_is"] for row in replaced["rows"]}
    facts = next(iter(found.values()))["environment"]
    lines = [
        f"- **Fast.** {statistics.geometric_mean(faster):.1f} times as fast as the best of eager"
        " PyTorch, `torch.compile` and other libraries: the geometric mean of"
        f" {len(faster)} workloads, from {min(faster):.2g} to {max(faster):.2g}, on"
        f" {facts['machine']} with {facts['torch_threads']} threads.",
        f"- **Small.** {statistics.geometric_mean(shares):.0%} of the extra memory of that peer,"
        " results included: no matrix over pairs of pixels, no copy of the features per class.",
        "- **Exact.** In the drop-ins, values and gradients differ from those of exact originals by"
        f" at most {max(differences):.0e} of the largest entry; the bits are the same on every"
        " run.",
        f"- **Drop-in.** {len(names)} functions and classes replace those of public projects,"
        f" {statistics.median(gains):.0f} times faster in the median, on"
        f" {replaced['environment']['machine']}.",
    ]
    devices = {
        json.loads(path.read_text())["environment"]["device"] for path in results.glob("*/*.json")
    }
    return "\n".join(lines) + (f"\n\n{ON_CPU_ONLY}" if devices == {"cpu"} else "")


def speed(results: Path) -> str:
    """The plot, the table and the machine of `WORKLOADS`."""
    found = families(results)
    if not found:
        return NOTHING
    compared = pairs(found)
    lines = [
        [
            *(ours["title"], best["name"]),
            *(milliseconds(row["ms"]["p50"]) for row in (best, ours)),
            f"{ours['times_faster']:.1f}",
            *(memory(row) for row in (best, ours)),
        ]
        for ours, best in chosen(compared)
    ]
    header = ("workload", "best peer", "peer, ms", "ours, ms", "times faster", "peer, extra MiB",
              "ours, extra MiB")  # fmt: skip
    slower = sum(ours["times_faster"] < 1 for ours, _ in compared)
    plot = f"{RAW}/benchmarks/results/{MACHINE}/plots/summary.png"
    parts = [
        f"![times faster and times less extra memory than the best peer]({plot})",
        markdown(header, lines),
        f"{measured_on(found)}. Losses include their gradients. Of all {len(compared)} workloads"
        f" measured there, {slower} {'is' if slower == 1 else 'are'} slower than the best peer.",
    ]
    return "\n\n".join(parts)


def drop_ins(results: Path) -> str:
    """The rows of `DROP_INS`."""
    content = originals(results)
    rows = {row["ours_is"]: row for row in content["rows"]}
    lines = [
        [
            row["project"],
            f"`{row['function']}`" if row["function"].isidentifier() else row["function"],
            f"{row['theirs_ms'] / row['ours_ms']:.1f}",
            *(f"{row[f'{side}_mib']:.0f}" for side in ("theirs", "ours")),
            f"{largest:.0e}" if (largest := max(row["differences"].values())) else "0",
        ]
        for row in (rows[name] for name in DROP_INS if name in rows)
    ]
    header = ("project", "function", "times faster", "original, extra MiB", "ours, extra MiB",
              "largest difference")  # fmt: skip
    return f"{markdown(header, lines)}\n\n{conditions(content)}" if lines else NOTHING
