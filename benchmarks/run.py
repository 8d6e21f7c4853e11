"""Compare the speed and memory of the library with what people use today.

    python -m benchmarks.run [--quick | --full] [--device cuda] [--family NAME] [--only NAME]
                             [--alone] [--out PATH] [--minutes M]

Times every usable backend and every peer of each workload alternately and prints a table. A side
whose result differs from the oracle's, or whose package is missing, is reported and not timed.
By default, each workload runs on its first input, with few repeats. --full runs all inputs with
many repeats and writes benchmarks/results/<machine>/<family>.json; other runs write only with
--out. The files are updated after each workload.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import environment, measure
from benchmarks.case import Case, Side, WrongResult, library_sides, peer_sides
from benchmarks.compare import aligned
from benchmarks.ops import FAMILIES, WORKLOADS, select
from benchmarks.workload import Workload

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]
EFFORTS = {
    "quick": {
        "cpu": measure.Effort(rounds=3, seconds=3),
        "cuda": measure.Effort(rounds=10, seconds=2),
    },
    "short": {
        "cpu": measure.Effort(rounds=11, seconds=3, limit=10),
        "cuda": measure.Effort(rounds=20, seconds=2, limit=10),
    },
    "full": {
        "cpu": measure.Effort(rounds=21, seconds=15, least=5),
        "cuda": measure.Effort(rounds=50, seconds=2),
    },
}
LEGEND = (
    "* marks the library. times faster: than the best peer; in a peer's row, the default backend "
    "relative to\nthat peer. of floor: the lower bound of the time of any implementation, divided "
    "by the median"
)


def measure_mode(
    case: Case,
    mode: str,
    sides: list[Side],
    device: str,
    how: measure.Effort,
    *,
    fast: bool = False,
) -> Iterator[Row]:
    """One row per side: check every result, then time those that are right alternately.

    With `fast`, the check and the measurement of memory serve as warm-up, and a long call is timed
    once, during that measurement.
    """
    rows: dict[str, Row] = {}
    calls = {}
    clock = measure.Clock(device)
    for side in sides:
        rows[side.name] = row = {"side": side.kind, "name": side.name, "default": side.default}
        if side.missing:
            row["problem"] = side.missing
            continue
        try:
            begin = time.perf_counter()
            case.check(side, mode)
            checked = time.perf_counter() - begin
            if checked > how.patience:
                row["problem"] = f"one call took {checked:.0f} seconds"
                continue
            call = case.bind(side, mode)
            took = 0.0
            if fast:
                row["extra_mib"], took = timed_memory(call, device, clock)
            else:
                measure.warm_up(call)
                row["extra_mib"] = None if side.own_memory else measure.extra_memory(call, device)
            if took > 1e3 * measure.LONG:
                row["ms"] = asdict(measure.Spread.of([took]))
            else:
                calls[side.name] = call
        except Exception as error:  # the other sides are still measured
            kind = "" if isinstance(error, WrongResult) else f"{type(error).__name__}: "
            row["problem"] = f"{kind}{error}".splitlines()[0]
    for name, spread in measure.in_turn(calls, clock, how).items():
        rows[name]["ms"] = asdict(spread)
    if device == "cuda":
        for side in sides:
            if side.name in calls and not side.synchronizes:
                rows[side.name] |= graph_time(calls[side.name], clock, how)
    yield from rows.values()


def timed_memory(
    call: Callable[[], object], device: str, clock: measure.Clock
) -> tuple[float | None, float]:
    """The extra memory in MiB and the milliseconds of one call."""
    took = [0.0]
    extra = measure.extra_memory(lambda: took.append(clock(call)), device)
    return extra, took[-1]


def graph_time(call: Any, clock: measure.Clock, how: measure.Effort) -> Row:
    try:
        replay = measure.captured(call)
    except RuntimeError as error:
        return {"graph_problem": str(error).splitlines()[0]}
    return {"graph_ms": asdict(measure.in_turn({"graph": replay}, clock, how)["graph"])}


def add_ratios(rows: list[Row], floor_ms: float) -> None:
    """Add the share of the floor to each row, and the lead over the best peer to the library's."""
    timed = [row for row in rows if "ms" in row]
    timed.sort(key=lambda row: float(row["ms"]["p50"]))
    peers = [row for row in timed if row["side"] == "peer"]
    for row in timed:
        device_time = row["graph_ms"] if "graph_ms" in row else row["ms"]
        row["share_of_floor"] = floor_ms / device_time["p50"]
        if row["side"] == "library" and peers:
            row["best_peer"] = peers[0]["name"]
            row["times_faster"] = peers[0]["ms"]["p50"] / row["ms"]["p50"]


def run_workload(
    workload: Workload, options: argparse.Namespace, ceilings: dict[str, float], bar: tqdm[Any]
) -> Iterator[Row]:
    device, full = options.device, options.extent == "full"
    how = EFFORTS[options.extent][device]
    torch.compiler.reset()
    peers = [] if options.alone else peer_sides(workload, device)
    for variant in workload.variants if full else workload.variants[:1]:
        case = Case(workload, variant, workload.inputs(variant, device))
        sides = library_sides(workload, case.inputs) + peers
        for mode in workload.modes:
            bar.set_postfix_str(f"{workload.name} {variant} {mode}")
            floor = workload.floor(case.inputs, mode)
            floor_ms = 1e3 * max(
                floor.bytes / ceilings["copy_bytes_per_second"],
                floor.operations / ceilings["float32_operations_per_second"],
            )
            fast = options.extent == "short" and device == "cpu"
            rows = list(measure_mode(case, mode, sides, device, how, fast=fast))
            add_ratios(rows, floor_ms)
            about = {
                "workload": workload.name,
                "title": workload.title,
                "family": workload.family,
                "op": workload.op,
                "source": workload.source,
                "variant": variant,
                "mode": mode,
            }
            floors = {
                "floor_bytes": floor.bytes,
                "floor_operations": floor.operations,
                "floor_ms": floor_ms,
            }
            tqdm.write(f"\n{workload.title}, {variant}, {mode}\n{table(rows)}", sys.stdout)
            yield from (about | row | floors for row in rows)


def table(rows: list[Row]) -> str:
    """The rows of one workload and mode, fastest first; `LEGEND` explains the columns."""
    header = ["", "median ms", "p20", "p80", "graph ms", "times faster", "extra MiB", "of floor"]
    default = next((row["ms"]["p50"] for row in rows if row["default"] and "ms" in row), None)
    lines = []
    for row in sorted(rows, key=lambda row: row["ms"]["p50"] if "ms" in row else float("inf")):
        name = f"{'*' if row['side'] == 'library' else ' '} {row['name']}"
        name += ", default" if row["default"] else ""
        if "ms" not in row:
            lines.append([name, f"not timed: {row['problem']}"])
            continue
        ms, graph, extra = row["ms"], row.get("graph_ms"), row["extra_mib"]
        faster = row.get("times_faster")
        if row["side"] == "peer" and default is not None:
            faster = ms["p50"] / default
        lines.append(
            [
                name,
                f"{ms['p50']:.3f}",
                f"{ms['p20']:.3f}",
                f"{ms['p80']:.3f}",
                f"{graph['p50']:.3f}" if graph else "-",
                "-" if faster is None else f"{faster:.2f}",
                "-" if extra is None else f"{extra:.1f}",
                f"{row['share_of_floor']:.0%}",
            ]
        )
    return aligned(header, lines)


def write(path: Path, facts: Row, ceilings: Row, rows: list[Row], missing: list[str]) -> None:
    content = {"environment": facts, "ceilings": ceilings, "not_measured": missing, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def destinations(options: argparse.Namespace, families: set[str], machine: str) -> dict[str, Path]:
    """The file for the rows of each family; none for a partial run without --out."""
    if options.out and options.out.suffix == ".json":
        return dict.fromkeys(families, options.out)
    if options.out:
        return {family: options.out / f"{family}.json" for family in families}
    if options.only or options.alone or options.extent != "full":
        return {}
    return {family: RESULTS / environment.slug(machine) / f"{family}.json" for family in families}


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[Workload]]:
    """The options, and the workloads that they select."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    extent = parser.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "a few workloads, very few repeats"),
        ("full", "all inputs, many repeats"),
    ):
        extent.add_argument(
            f"--{name}", dest="extent", action="store_const", const=name, help=text, default="short"
        )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--family", choices=FAMILIES, help="the workloads of one family")
    parser.add_argument("--only", metavar="NAME", help="the workloads whose name contains NAME")
    parser.add_argument("--alone", action="store_true", help="the library without its peers")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="FILE.json, or a folder for a file per family"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="start no further workload after M minutes"
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    workloads = select(options.only, options.family, quick=options.extent == "quick")
    if not workloads:
        names = ", ".join(workload.name for workload in WORKLOADS)
        parser.error(f"no workload matches the options; there are {names}")
    if options.extent == "short":  # which --minutes may end early
        workloads.sort(key=lambda workload: not workload.quick)
    return options, workloads


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 if a backend of the library was not timed."""
    options, workloads = parse(arguments)
    begin = time.monotonic()
    facts = environment.describe(options.device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    ceilings = measure.ceilings(options.device)
    print(", ".join(f"{name} {value:.3g}" for name, value in ceilings.items()))
    print(LEGEND)
    outputs = destinations(options, {w.family for w in workloads}, str(facts["machine"]))
    rows: list[Row] = []
    missing = list(workloads)
    with tqdm(workloads, unit="workload", disable=None) as bar:
        for workload in bar:
            if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
                break
            rows += run_workload(workload, options, ceilings, bar)
            missing.remove(workload)
            for path in set(outputs.values()):
                mine = [row for row in rows if outputs[row["family"]] == path]
                left = [w.name for w in missing if outputs[w.family] == path]
                write(path, facts, ceilings, mine, left)
    for path in sorted(set(outputs.values())) if rows else ():
        print(f"written: {path}")
    if missing:
        print(f"not measured, out of time: {', '.join(w.name for w in missing)}")
    broken = [row for row in rows if "problem" in row]
    for row in broken:
        where = f"{row['workload']} {row['variant']} {row['mode']}"
        print(f"{where}: {row['name']} not timed: {row['problem']}")
    return 1 if any(row["side"] == "library" for row in broken) else 0


if __name__ == "__main__":
    sys.exit(main())
