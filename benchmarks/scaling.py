"""How time and extra memory grow with the pixels, channels, regions, points and clicks.

    python -m benchmarks.scaling [--device cuda] [--only NAME]

Each series calls one function at five sizes of one variable, all else fixed. The exponents are
fitted to every size and stand beside those of the theory, which they must not exceed. A whole run
writes benchmarks/results/<machine>/scaling/scaling.json, which benchmarks/plots.py draws; --only
prints the series whose name contains NAME. Exit status 1 if an exponent is above its theory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import environment, measure
from benchmarks.run import RESULTS
from benchmarks.scaling_series import SERIES, Series
from benchmarks.table import aligned

Row = dict[str, Any]
# A fitted exponent is above the theory's only by more than this: five medians are noisy on a shared
# machine, and the small sizes of a series find in the caches what the large ones find in memory.
TOLERANCE = 0.1
# MiB; memory below counts as this much in a fit: the system counts pages, of the threads' too.
RESOLUTION = 1.0
EFFORT = {
    "cpu": measure.Effort(rounds=9, seconds=2, least=3, limit=5),
    "cuda": measure.Effort(rounds=30, seconds=2),
}


def measured(series: Series, device: str, advance: Callable[[], object] = lambda: None) -> Row:
    """The result of a series: one row per value, and the exponents fitted to them."""
    clock, rows = measure.Clock(device), []
    for value in series.values:
        call = series.bind(value, device)
        measure.warm_up(call)
        extra = measure.extra_memory(call, device)
        spread = measure.in_turn({"call": call}, clock, EFFORT[device])["call"]
        times = {"ms": spread.p50, "p20": spread.p20, "p80": spread.p80}
        rows.append({"value": value, **times, "extra_mib": extra})
        advance()
    return {
        "name": series.name,
        "op": series.op,
        "mode": series.mode,
        "variable": series.variable,
        "fixed": f"B {series.images_on(device)}, {series.fixed}",
        "theory": series.theory,
        "memory_theory": series.memory_theory,
        "rows": rows,
        **fits(rows),
    }


def fits(rows: list[Row]) -> Row:
    return {
        "exponent": exponent(rows, "ms"),
        "memory_exponent": exponent(rows, "extra_mib", least=RESOLUTION),
    }


def exponent(rows: list[Row], key: str, least: float = 0.0) -> float | None:
    """b of key = a value^b, by least squares on logarithms, with `least` in place of what is less;
    None where a row does not know the key."""
    if any(row[key] is None for row in rows):
        return None
    x = [math.log(row["value"]) for row in rows]
    y = [math.log(max(row[key], least)) for row in rows]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    square = sum((a - x_mean) ** 2 for a in x)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / square


def above(found: Row) -> list[str]:
    """Which exponents of a series are above the theory's, in words."""
    pairs = {"time": ("exponent", "theory"), "extra memory": ("memory_exponent", "memory_theory")}
    return [
        f"{found['name']}: {what} grows as {found['variable']}^{found[fit]:.2f}, "
        f"in theory at most {found[theory]}"
        for what, (fit, theory) in pairs.items()
        if found[fit] is not None and found[fit] > found[theory] + TOLERANCE
    ]


def table(series: list[Row]) -> str:
    header = ["", "time ^", "theory", "memory ^", "theory", "ms", "extra MiB"]
    lines = []
    for found in series:
        memory = found["memory_exponent"]
        slopes = f"{found['exponent']:.2f}", "-" if memory is None else f"{memory:.2f}"
        theories = str(found["theory"]), str(found["memory_theory"])
        cells = [cell for pair in zip(slopes, theories, strict=True) for cell in pair]
        times = " ".join(f"{row['ms']:.3g}" for row in found["rows"])
        extra = " ".join(
            "-" if row["extra_mib"] is None else f"{row['extra_mib']:.3g}" for row in found["rows"]
        )
        lines.append([found["name"], *cells, times, extra])
    return aligned(header, lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", metavar="NAME", help="series whose name contains NAME")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    chosen = [series for series in SERIES if (options.only or "") in series.name]
    if not chosen:
        parser.error(f"--only: expected part of {', '.join(s.name for s in SERIES)}")
    facts, found = environment.describe(options.device), []
    with tqdm(total=sum(len(s.values) for s in chosen), unit="size", disable=None) as bar:
        for series in chosen:
            bar.set_postfix_str(series.name)
            found.append(measured(series, options.device, bar.update))
    print(table(found))
    if not options.only:
        path = RESULTS / environment.slug(str(facts["machine"])) / "scaling" / "scaling.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": facts, "series": found}, indent=1) + "\n")
        print(f"{path}: written; plot it with python -m benchmarks.plots")
    problems = [problem for series in found for problem in above(series)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
