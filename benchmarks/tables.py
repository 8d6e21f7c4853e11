"""The tables of the committed results, in Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sweep import lists
from benchmarks.workload import BOTH, FORWARD

NOTHING = "No results are committed yet."
MODES = {BOTH: "forward + backward, float32", FORWARD: "forward"}
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
# pairs of "machine folder/family" and the content of the file
Results = list[tuple[str, Row]]


def load(results: Path) -> Results:
    return [
        (f"{path.parent.name}/{path.stem}", json.loads(path.read_text()))
        for path in sorted(results.glob("*/*.json"))
    ]


def workloads(results: Results) -> str:
    """A table per file and mode: the default backend compared with the best peer."""
    sections = []
    for _, content in results:
        tables = [_summary(content["rows"], mode) for mode in MODES]
        sections += [conditions(content), *(table for table in tables if table)]
    return "\n\n".join(sections) or NOTHING


def default_rows(rows: list[Row]) -> Iterator[Row]:
    """The row of the default backend for each workload, on its first input; with the backward pass
    if there is one.
    """
    trained = {row["workload"] for row in rows if row["mode"] == BOTH}
    first: dict[str, str] = {}
    for row in rows:
        name = row["workload"]
        complete = (row["mode"] == BOTH) == (name in trained)
        if row["variant"] == first.setdefault(name, row["variant"]) and row["default"] and complete:
            yield row


def _summary(rows: list[Row], mode: str) -> str:
    lines = [
        [row["title"], *_against_best_peer(row, rows)]
        for row in default_rows(rows)
        if row["mode"] == mode
    ]
    header = [MODES[mode], "best peer", "peer, ms", "ours, ms", "times faster"]
    header += ["peer, extra MiB", "ours, extra MiB", "share of floor"]
    return markdown(header, lines) if lines else ""


def full(results: Results) -> str:
    """Every row of every file, with the environment."""
    header = ["workload", "input", "mode", "implementation", "ms", "p20", "p80", "graph ms"]
    header += ["times faster than the best peer", "extra MiB", "share of floor"]
    sections = []
    for name, content in results:
        facts = "\n".join(f"- {key}: {value}" for key, value in content["environment"].items())
        ceilings = "\n".join(f"- {key}: {value:.3g}" for key, value in content["ceilings"].items())
        missing = ", ".join(content["not_measured"])
        parts = [f"## {name}", f"{facts}\n{ceilings}", markdown(header, _all(content["rows"]))]
        parts += [f"Not measured: {missing}."] if missing else []
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections) or NOTHING


def conditions(content: Row) -> str:
    facts = content["environment"]
    names = ["torch", "triton", "driver", "commit", "date"]
    known = ", ".join(f"{name} {facts[name]}" for name in names if facts.get(name))
    threads = f"{facts['torch_threads']} threads, " if facts["device"] == "cpu" else ""
    return f"**{facts['machine']}** ({threads}{known})"


def measured_on(contents: dict[str, Row]) -> str:
    """The machine of several files by name, and the measured commits."""
    facts = next(iter(contents.values()))["environment"]
    parts = [f"torch {facts['torch']}"]
    parts += [f"{facts['torch_threads']} threads"] if facts["device"] == "cpu" else []
    commits: dict[str, list[str]] = {}
    for name, content in contents.items():
        commits.setdefault(content["environment"]["commit"] or "unknown", []).append(name)
    if len(commits) == 1:
        parts += [f"commit {commit}" for commit in commits]
    else:
        parts += [f"{' and '.join(names)} at {commit}" for commit, names in commits.items()]
    return f"{facts['machine']} ({', '.join(parts)})"


def best_peer(ours: Row, rows: list[Row]) -> Row | None:
    """The row of the best peer of one of the library's rows."""
    same = ("workload", "variant", "mode", "name")
    wanted = [*(ours[key] for key in same[:-1]), ours.get("best_peer")]
    return next((row for row in rows if [row[key] for key in same] == wanted), None)


def _against_best_peer(ours: Row, rows: list[Row]) -> list[str]:
    if "ms" not in ours:
        return ["", "", f"not timed: {ours['problem']}", "", "", "", ""]
    best = best_peer(ours, rows)
    share = f"{ours['share_of_floor']:.0%}"
    mine = milliseconds(ours["ms"]["p50"])
    if best is None:
        return ["none", "", mine, "", "", memory(ours), share]
    return [
        best["name"],
        milliseconds(best["ms"]["p50"]),
        mine,
        f"{ours['times_faster']:.2f}",
        memory(best),
        memory(ours),
        share,
    ]


def _all(rows: list[Row]) -> list[list[str]]:
    lines = []
    for row in rows:
        name = f"**{row['name']}**" if row["side"] == "library" else row["name"]
        line = [row["title"], row["variant"], row["mode"], name]
        if "ms" not in row:
            lines.append([*line, f"not timed: {row['problem']}", *[""] * 6])
            continue
        spread = [milliseconds(row["ms"][key]) for key in ("p50", "p20", "p80")]
        graph = milliseconds(row["graph_ms"]["p50"]) if "graph_ms" in row else ""
        faster = f"{row['times_faster']:.2f}" if "times_faster" in row else ""
        lines.append([*line, *spread, graph, faster, memory(row), f"{row['share_of_floor']:.0%}"])
    return lines


def milliseconds(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def memory(row: Row) -> str:
    return "" if row["extra_mib"] is None else f"{row['extra_mib']:.1f}"


def _networks(content: Row) -> str:
    height, width = content["size"]
    facts = content["environment"]
    flipped = [[LOSSES[row["loss"]], _with_spread(row["iou"])] for row in content["flipped_labels"]]
    parts = [
        "Small networks trained from scratch on real photographs, cropped around the object to"
        f" {height} x {width} pixels, on **{facts['machine']}** ({facts['torch_threads']} threads,"
        f" torch {facts['torch']}, commit {facts['commit']}), by `benchmarks/ops/models.py`."
        " Results on the training images:",
        _overfit(content["overfit"]),
        "A training step with the eager and with the default backend; the networks' own"
        " convolutions take most of the time:",
        _costs(content["step_costs"]),
        "Small versions of the papers' experiments on held-out images: mean and standard deviation"
        " of the IoU over seeds. The two labels of each image swapped with probability 0.5:",
        markdown(("loss", "IoU"), flipped),
        "Dice alone and with the IS-Triplet loss, during training:",
        _triplets(content["with_triplets"]),
        "Clicks on the largest error, with and without f-BRS:",
        _clicks(content["over_clicks"]),
    ]
    return "\n\n".join(parts)


def _overfit(rows: list[Row]) -> str:
    header = ("network", "images", "steps", "seconds", "loss, first to last", "IoU",
              "largest difference of eager and default losses")  # fmt: skip
    lines = [
        [
            *(NAMES[row["model"]], str(row["images"]), str(row["steps"]), f"{row['seconds']:.0f}"),
            *(f"{row['first_loss']:.3g} to {row['last_loss']:.3g}", f"{row['iou']:.3f}"),
            f"{row['largest_relative_difference']:.0e}",
        ]
        for row in rows
    ]
    return markdown(header, lines)


def _costs(rows: list[Row]) -> str:
    header = ("network", "eager, ms", "default, ms", "times faster", "eager, extra MiB",
              "default, extra MiB")  # fmt: skip
    lines = [
        [
            *(NAMES[row["model"]], f"{row['eager_ms']:.0f}", f"{row['default_ms']:.0f}"),
            f"{row['eager_ms'] / row['default_ms']:.2f}",
            *(f"{row['eager_mib']:.0f}", f"{row['default_mib']:.0f}"),
        ]
        for row in rows
    ]
    return markdown(header, lines)


def _triplets(rows: list[Row]) -> str:
    header = ("loss", *(f"IoU after {steps} steps" for steps in rows[0]["steps"]))
    named = {0.0: "Dice", 1.0: "Dice + IS-Triplet"}
    lines = [
        [named[row["triplet_weight"]], *map(_with_spread, zip(*row["iou"], strict=True))]
        for row in rows
    ]
    return markdown(header, lines)


def _clicks(rows: list[Row]) -> str:
    counts = range(1, len(rows[0]["iou"]) + 1)
    header = ("refinement", *(f"IoU after {n}" for n in counts), "clicked pixels right at the end")
    lines = [
        [
            *(PLACES[row["refinement"]], *(f"{iou:.3f}" for iou in row["iou"])),
            f"{row['clicked_pixels_right'][-1]:.0%}",
        ]
        for row in rows
    ]
    return markdown(header, lines)


def _with_spread(values: Any) -> str:
    values = list(values)
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def networks(results: Path) -> str:
    """The tables of the reference networks for each machine."""
    found = sorted(results.glob("*/models/models.json"))
    return "\n\n".join(_networks(json.loads(p.read_text())) for p in found) or NOTHING


def drop_ins(results: Path) -> str:
    """The drop-ins of `pixelkernels.compat` compared with the originals, for each machine."""
    header = ("project", "function", "`pixelkernels.compat.`", "compared", "on",
              "largest difference", "original, ms", "ours, ms", "times faster",
              "original, extra MiB", "ours, extra MiB", "what differs")  # fmt: skip
    parts = []
    for path in sorted(results.glob("*/compat/compat.json")):
        content = json.loads(path.read_text())
        lines = [
            [
                *(row["project"], row["function"], f"`{row['ours_is']}`", *_compared(row)),
                *(f"{row[f'{side}_ms']:.2f}" for side in ("theirs", "ours")),
                f"{row['theirs_ms'] / row['ours_ms']:.1f}",
                *(f"{row[f'{side}_mib']:.1f}" for side in ("theirs", "ours")),
                row["differs"],
            ]
            for row in content["rows"]
        ]
        parts += [conditions(content), markdown(header, lines)]
    return "\n\n".join(parts) or NOTHING


def sweep(results: Path) -> str:
    """The cases of a sweep that cost much for their size, and how many were timed."""
    header = (
        "operation",
        "case",
        "mode",
        "sizes",
        "dtype",
        "layout",
        "ms",
        "times the median",
        "why",
    )
    parts = []
    for path in sorted(results.glob("*/sweep/sweep.json")):
        content = json.loads(path.read_text())
        found = lists.lists(content["rows"])
        counts = (
            f"{len(content['rows'])} cases: {len(found[lists.BEHIND])} slower than eager, "
            f"{len(found[lists.SLOWED])} slowed down by their values, {len(found[lists.COSTLY])} "
            "that cost much for their size."
        )
        lines = [
            [
                *(row[key] for key in ("op", "case", "mode", "size", "dtype", "layout")),
                milliseconds(row["ms"]),
                f"{row['ratio']:.1f}",
                row["reason"],
            ]
            for row in found[lists.COSTLY]
        ]
        parts += [conditions(content), counts, markdown(header, lines)]
    return "\n\n".join(parts) or NOTHING


def cores(results: Path) -> str:
    """The share of the floor that the first input of each workload reaches, by threads."""
    parts = []
    for folder in sorted(path for path in results.glob("*/cores") if path.is_dir()):
        contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]
        by_threads: dict[int, dict[tuple[str, str], Row]] = {}
        for content in contents:
            own = by_threads.setdefault(content["environment"]["torch_threads"], {})
            for row in content["rows"]:
                if row["default"]:
                    own.setdefault((row["title"], row["mode"]), row)
        header, lines = ["workload", "mode"], {}
        for threads, rows in sorted(by_threads.items()):
            header += [f"{threads} threads, ms" if threads > 1 else "1 thread, ms", "of floor"]
            for key, row in rows.items():
                cells = [milliseconds(row["ms"]["p50"]), f"{row['share_of_floor']:.0%}"]
                lines.setdefault(key, list(key)).extend(cells)
        parts += [conditions(contents[-1]), markdown(header, list(lines.values()))]
    return "\n\n".join(parts) or NOTHING


def _compared(row: Row) -> list[str]:
    """What was compared, on what, and the largest relative difference."""
    differences = row["differences"]
    kinds = [*differences, *["signature"] * row["signature"]]
    largest = [f"{kind} {x:.0e}" if x else f"{kind} 0" for kind, x in differences.items()]
    return [", ".join(kinds), row["sizes"], ", ".join(largest) or "random draws"]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
