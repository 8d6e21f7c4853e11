"""Plot the committed results: README's summary, speed-ups, roofline and growth.

    python -m benchmarks.plots [--check]

Writes benchmarks/results/<machine>/plots/{summary,speed,roofline,scaling}.{png,svg}. Each file
contains a hash of the results that it shows. --check writes nothing and exits 1 if a plot is
missing, out of date or without results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.run import RESULTS
from benchmarks.summary import chosen, pairs
from benchmarks.tables import default_rows, measured_on
from benchmarks.workload import BOTH

Row = dict[str, Any]
# the contents of the JSON files of one machine, by file name
Results = dict[str, Row]
FORMS = (".png", ".svg")
# No date and no Matplotlib version in the files: the same results give the same bytes.
ANONYMOUS = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
STYLE = {
    "svg.hashsalt": "pixelkernels",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}
# inches; close to the width of a README page, so that text keeps its size
WIDTH = 9.0
COLOURS = ("#1f6fb4", "#d9772b", "#3a923a", "#8f5fb0", "#b03a48", "#6b6b6b")
INK, PALE = "#333333", "#8a8a8a"
INTENSITIES = (1e-2, 1e6)
# Pairs: the points up to this operational intensity have their labels at that position.
COLUMNS = ((6.0, 2.5), (math.inf, 2e4))
COLUMN_COUNT = 3
TIME, MEMORY = COLOURS[:2]


def footer(figure: Figure, *lines: str) -> None:
    figure.supxlabel("\n".join(lines), fontsize=7, color=PALE, x=0.01, ha="left")


def summary(results: dict[str, Row]) -> Figure:
    """Two bars per workload of README: the speed-up and the memory saved."""
    rows = chosen(pairs(results))
    figure = Figure(figsize=(WIDTH, 0.34 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    for y, (ours, best) in enumerate(rows):
        for at, ratio, colour in (
            (y - 0.19, ours["times_faster"], TIME),
            (y + 0.19, best["extra_mib"] / ours["extra_mib"], MEMORY),
        ):
            axes.barh(at, ratio - 1, left=1, height=0.36, color=colour)
            axes.annotate(
                f"{ratio:.1f}",
                (max(ratio, 1), at),
                (3, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [ours["title"] for ours, _ in rows])
    _ratio_axis(axes, max(axes.get_xlim()))
    keys = [Patch(color=TIME, label="times faster"), Patch(color=MEMORY, label="times less memory")]
    figure.legend(handles=keys, loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(
        f"Compared with the best peer, {_machine(results)}", x=0.01, ha="left", fontsize=10
    )
    return figure


def speed(results: dict[str, Row]) -> Figure:
    """A bar per workload, grouped by family: the speed-up over its best peer."""
    compared = {
        family: [row for row in default_rows(content["rows"]) if "times_faster" in row]
        for family, content in results.items()
    }
    compared = {family: rows for family, rows in compared.items() if rows}
    count = sum(map(len, compared.values())) + len(compared)
    figure = Figure(figsize=(WIDTH, 0.2 * count + 1.1), layout="constrained")
    axes = figure.subplots()
    top, ticks = 0, []
    values = [row["times_faster"] for rows in compared.values() for row in rows]
    for (family, rows), colour in zip(compared.items(), _colours(), strict=False):
        axes.text(
            -0.01,
            top,
            family,
            weight="bold",
            color=colour,
            ha="right",
            va="center",
            transform=axes.get_yaxis_transform(),
        )
        for y, row in enumerate(rows, top + 1):
            faster = row["times_faster"]
            axes.barh(y, faster - 1, left=1, height=0.72, color=colour)
            axes.annotate(
                f"{faster:.2f}" if faster < 2 else f"{faster:.1f}",
                (max(faster, 1), y),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
            axes.text(
                1,
                y,
                row["best_peer"],
                fontsize=6.5,
                color=PALE,
                ha="right",
                va="center",
                transform=axes.get_yaxis_transform(),
            )
            ticks.append((y, row["title"]))
        top += len(rows) + 1
    _ratio_axis(axes, 1.5 * max(values))
    # leave space for the names of the peers
    axes.set_xlim(0.85 * min(1, *values), 10 * max(values))
    axes.set_ylim(top - 0.3, -0.7)
    axes.set_yticks([y for y, _ in ticks], [title for _, title in ticks], fontsize=7.5)
    axes.set_xlabel("times faster than the best peer, whose name stands at the right (log axis)")
    title = f"Times faster than the best peer, {_machine(results)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    modes = "Forward + backward where there is a gradient, else forward; float32."
    footer(figure, measured_on(results), modes)
    return figure


def _ratio_axis(axes: Axes, largest: float) -> None:
    """A log axis of ratios, with marks up to the largest, for horizontal bars that start at 1."""
    axes.set_xscale("log")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(1, color=INK, linewidth=1)
    marks = [mark for mark in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100) if mark <= largest]
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.grid(axis="x", alpha=0.25)


def roofline(results: dict[str, Row]) -> Figure:
    """Operations per second over operations per byte, both of the floor."""
    ceilings = [content["ceilings"] for content in results.values()]
    copied = max(each["copy_bytes_per_second"] for each in ceilings)
    peak = max(each["float32_operations_per_second"] for each in ceilings)
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    axes = figure.subplots()
    points = []
    for content, colour in zip(results.values(), _colours(), strict=False):
        for row in filter(lambda row: "ms" in row, default_rows(content["rows"])):
            intensity = row["floor_operations"] / row["floor_bytes"]
            seconds = row.get("graph_ms", row["ms"])["p50"] / 1e3
            label = f"{row['workload']}  {row['share_of_floor']:.0%}"
            points.append((intensity, row["floor_operations"] / seconds, label, colour))
    lowest = min(reached for _, reached, *_ in points)
    axes.set(xscale="log", yscale="log", xlim=INTENSITIES, ylim=(lowest / 6, 3 * peak))
    ridge = peak / copied
    left, right = INTENSITIES
    axes.plot([left, ridge, right], [left * copied, peak, peak], color=INK, linewidth=1.2)
    axes.annotate(
        f"{peak / 1e9:.0f} GFLOP/s, float32 matrix product",
        (right, peak),
        (0, 4),
        textcoords="offset points",
        ha="right",
    )
    axes.annotate(
        f"{copied / 1e9:.1f} GB/s, copy",
        (ridge / 12, peak / 12),
        (-6, 3),
        textcoords="offset points",
        ha="right",
    )
    for low, (high, x) in zip((0, *(c[0] for c in COLUMNS)), COLUMNS, strict=False):
        these = sorted(p[1:] + p[:1] for p in points if low <= p[0] < high)
        _label(axes, these, x, 0.8 * min(peak, x * copied))
    for intensity, reached, _, colour in points:
        axes.plot(intensity, reached, "o", color=colour, markersize=4.5)
    axes.grid(alpha=0.2)
    axes.set_xlabel("operational intensity of the floor, operations per byte")
    axes.set_ylabel("operations of the floor per second")
    figure.suptitle(f"Roofline, {_machine(results)}", x=0.01, ha="left", fontsize=10)
    keys = [Patch(color=c, label=f) for f, c in zip(results, _colours(), strict=False)]
    axes.legend(handles=keys, loc="lower right", frameon=False)
    counted = "Counted: what no implementation can avoid. Percentages: share of that floor reached."
    footer(figure, measured_on(results), counted)
    return figure


def spread(positions: list[float], gap: float) -> list[float]:
    """Move ascending positions to be at least `gap` apart, with the least sum of squares."""
    # isotonic regression by pooling adjacent violators, after subtracting the gaps
    pools: list[tuple[float, int]] = []
    for index, position in enumerate(positions):
        mean, count = position - gap * index, 1
        while pools and pools[-1][0] > mean:
            before, number = pools.pop()
            mean, count = (before * number + mean * count) / (number + count), number + count
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [mean + gap * position for position, mean in enumerate(flat)]


def _label(axes: Axes, points: list[tuple[Any, ...]], x: float, under: float) -> None:
    """Labels in one column below a limit, each with a line to its point."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    heights = spread([math.log10(point[0]) for point in points], 0.027 * (high - low))
    lower = max(0, max(heights, default=0) - math.log10(under))
    for (reached, label, colour, intensity), height in zip(points, heights, strict=True):
        axes.annotate(
            label,
            (intensity, reached),
            (x, 10 ** (height - lower)),
            fontsize=6.8,
            color=colour,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "alpha": 0.45,
                "linewidth": 0.6,
                "relpos": (1 if x < intensity else 0, 0.5),
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def _machine(results: dict[str, Row]) -> str:
    return str(next(iter(results.values()))["environment"]["machine"])


def _colours() -> Iterator[str]:
    while True:
        yield from COLOURS


def growth(results: dict[str, Row]) -> Figure:
    """Time and extra memory on log axes, with the slopes of the theoretical bounds."""
    series = results["scaling"]["series"]
    down = math.ceil(len(series) / COLUMN_COUNT)
    figure = Figure(figsize=(WIDTH, 2.35 * down + 0.8), layout="constrained")
    panels = figure.subplots(down, COLUMN_COUNT, squeeze=False).flat
    for axes in panels[len(series) :]:
        axes.set_axis_off()
    for axes, found in zip(panels, series, strict=False):
        _panel(axes, found)
    machine = results["scaling"]["environment"]["machine"]
    figure.suptitle(f"How cost grows, {machine}", x=0.01, ha="left", fontsize=10)
    keys = [
        Line2D([], [], marker="o", markersize=3.5, color=TIME, label="time, ms"),
        Line2D([], [], marker="s", markersize=3, color=MEMORY, label="extra memory, MiB"),
        Line2D([], [], linestyle=":", color=INK, label="bound of theory"),
    ]
    figure.legend(handles=keys, loc="outside upper right", ncols=3, frameon=False, fontsize=7.5)
    legend = "Bars: 20th to 80th percentile. Slopes: least squares."
    footer(figure, measured_on(results), legend)
    return figure


def _panel(axes: Axes, found: Row) -> None:
    rows, variable = found["rows"], found["variable"]
    values = [row["value"] for row in rows]
    axes.set(xscale="log", yscale="log")
    times = [row["ms"] for row in rows]
    ends = [
        [max(row["ms"] - row["p20"], 0) for row in rows],
        [max(row["p80"] - row["ms"], 0) for row in rows],
    ]
    axes.errorbar(values, times, ends, fmt="o-", color=TIME, markersize=3.5)
    _bound(axes, values, times[0], found["theory"], TIME)
    lines = [_power("time", found["exponent"], found["theory"], variable)]
    memory = [row["extra_mib"] for row in rows]
    if found["memory_exponent"] is not None and min(memory) > 0:
        axes.plot(values, memory, "s-", color=MEMORY, markersize=3)
        _bound(axes, values, memory[0], found["memory_theory"], MEMORY)
        lines.append(_power("memory", found["memory_exponent"], found["memory_theory"], variable))
    what = f"{found['op']}{', forward + backward' if found['mode'] == BOTH else ''}"
    axes.set_title("\n".join([what, "   ".join(lines)]), fontsize=7.5, color=INK)
    axes.set_xlabel(f"{variable}   ({found['fixed']})", fontsize=7.5)
    axes.set_ylabel("ms, MiB", fontsize=7.5)
    axes.xaxis.set_major_locator(FixedLocator(values[::2]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)


def _bound(axes: Axes, values: list[int], first: float, theory: float, colour: str) -> None:
    """The theoretical bound of the growth, from the first point on."""
    ends = [first, first * (values[-1] / values[0]) ** theory]
    axes.plot([values[0], values[-1]], ends, ":", color=colour, alpha=0.7, linewidth=1.2)


def _power(what: str, exponent: float, theory: float, variable: str) -> str:
    return rf"{what} $\propto$ {variable}$^{{{exponent:.2f}}}$ ($\leq$ {theory:g})"


DRAW: dict[str, Callable[[Results], Figure]] = {
    "summary": summary,
    "speed": speed,
    "roofline": roofline,
    "scaling": growth,
}


def sources(machine: Path) -> dict[str, Results]:
    """The results that each plot of a machine shows; no entry without results."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(machine.glob("*.json"))}
    families = {name: content for name, content in found.items() if "ceilings" in content}
    growth = machine / "scaling" / "scaling.json"
    pictures = dict.fromkeys(("summary", "speed", "roofline"), families) if families else {}
    if growth.exists():
        pictures["scaling"] = {"scaling": json.loads(growth.read_text())}
    return pictures


def mark(results: Results) -> str:
    """The hash of the results that a plot contains."""
    text = json.dumps(results, sort_keys=True)
    return f"drawn from results with SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"


def write(picture: str, results: Results, stem: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = DRAW[picture](results)
        for form in FORMS:
            about = {**ANONYMOUS[form], "Description": mark(results)}
            figure.savefig(stem.with_suffix(form), metadata=about)


def update(results: Path, *, check: bool) -> list[str]:
    """Update the plots under `results` unless `check`; the names of those that were out of date."""
    stale = []
    for machine in sorted(path for path in results.iterdir() if path.is_dir()):
        folder, wanted = machine / "plots", sources(machine)
        expected = {folder / f"{name}{form}": name for name in wanted for form in FORMS}
        stray = {path for form in FORMS for path in folder.glob(f"*{form}")} - set(expected)
        marks = {name: mark(content).encode() for name, content in wanted.items()}
        stale += sorted(stray) + [
            path
            for path, name in expected.items()
            if not path.exists() or marks[name] not in path.read_bytes()
        ]
        if check:
            continue
        if wanted:
            folder.mkdir(exist_ok=True)
        for name, content in wanted.items():
            write(name, content, folder / name)
        for path in stray:
            path.unlink()
    return [str(path.relative_to(results)) for path in stale]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if out of date")
    options = parser.parse_args(arguments)
    stale = update(RESULTS, check=options.check)
    for name in stale:
        did = "out of date; run make report" if options.check else "updated"
        print(f"benchmarks/results/{name}: {did}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
