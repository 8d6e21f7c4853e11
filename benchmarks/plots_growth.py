"""The picture of how cost grows: one small diagram per series of benchmarks/scaling.py."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from .plots_speed import COLOURS, INK, WIDTH, conditions, footer
from .workload import BOTH

Row = dict[str, Any]
ACROSS = 3
TIME, MEMORY = COLOURS[:2]


def scaling(results: dict[str, Row]) -> Figure:
    """Time and extra memory on log axes, with the slope that theory allows."""
    series = results["scaling"]["series"]
    down = math.ceil(len(series) / ACROSS)
    figure = Figure(figsize=(WIDTH, 2.35 * down + 0.8), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).flat
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
    footer(figure, conditions(results), "Bars: 20th to 80th percentile. Slopes: least squares.")
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
    """The steepest growth that theory allows, from the first point on."""
    ends = [first, first * (values[-1] / values[0]) ** theory]
    axes.plot([values[0], values[-1]], ends, ":", color=colour, alpha=0.7, linewidth=1.2)


def _power(what: str, exponent: float, theory: float, variable: str) -> str:
    return rf"{what} $\propto$ {variable}$^{{{exponent:.2f}}}$ ($\leq$ {theory:g})"
