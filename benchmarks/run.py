"""Measure the library beside what people use today.

    python benchmarks/run.py [--quick] [--device cuda] [--family NAME] [--only NAME] [--out PATH]
                             [--minutes M]

Runs every workload with every usable backend and every peer, in turn. A side whose result is not
the oracle's, or whose package is missing, is reported and not timed. A whole run, of all families
or one, is written to benchmarks/results/<machine>/<family>.json; --quick and --only print, and
write where --out says. A file grows with each finished workload.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import environment, measure
from benchmarks.case import Case, Side, WrongResult, library_sides, peer_sides
from benchmarks.registry import FAMILIES, select
from benchmarks.table import aligned
from benchmarks.workload import Workload

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


def effort(device: str, quick: bool) -> measure.Effort:
    if device == "cuda":
        return measure.Effort(rounds=10 if quick else 50, seconds=2)
    if quick:
        return measure.Effort(rounds=3, seconds=3)
    return measure.Effort(rounds=21, seconds=15, least=5)


def measure_mode(
    case: Case, mode: str, sides: list[Side], device: str, how: measure.Effort
) -> Iterator[Row]:
    """One row per side: what it computes is checked, then all that hold are timed in turn."""
    rows: dict[str, Row] = {}
    calls = {}
    for side in sides:
        rows[side.name] = row = {"side": side.kind, "name": side.name, "default": side.default}
        if side.missing:
            row["problem"] = side.missing
            continue
        try:
            case.check(side, mode)
            call = case.bind(side, mode)
            measure.warm_up(call)
            row["extra_mib"] = None if side.own_memory else measure.extra_memory(call, device)
            calls[side.name] = call
        except Exception as error:  # one side that fails must not cost the others their numbers
            kind = "" if isinstance(error, WrongResult) else f"{type(error).__name__}: "
            row["problem"] = f"{kind}{error}".splitlines()[0]
    clock = measure.Clock(device)
    for name, spread in measure.in_turn(calls, clock, how).items():
        rows[name]["ms"] = asdict(spread)
    if device == "cuda":
        for side in sides:
            if side.name in calls and not side.waits:
                rows[side.name] |= graph_time(calls[side.name], clock, how)
    yield from rows.values()


def graph_time(call: Any, clock: measure.Clock, how: measure.Effort) -> Row:
    try:
        replay = measure.captured(call)
    except RuntimeError as error:
        return {"graph_problem": str(error).splitlines()[0]}
    return {"graph_ms": asdict(measure.in_turn({"graph": replay}, clock, how)["graph"])}


def judge(rows: list[Row], floor_ms: float) -> None:
    """Add each row's share of the floor, and how many times faster than the best peer ours is."""
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
    workload: Workload, device: str, quick: bool, ceilings: dict[str, float], bar: tqdm[Any]
) -> Iterator[Row]:
    torch.compiler.reset()
    peers = peer_sides(workload, device)
    for variant in workload.variants[:1] if quick else workload.variants:
        case = Case(workload, variant, workload.inputs(variant, device))
        sides = library_sides(workload, case.inputs) + peers
        for mode in workload.modes:
            bar.set_postfix_str(f"{workload.name} {variant} {mode}")
            floor = workload.floor(case.inputs, mode)
            floor_ms = 1e3 * max(
                floor.bytes / ceilings["copy_bytes_per_second"],
                floor.operations / ceilings["float32_operations_per_second"],
            )
            rows = list(measure_mode(case, mode, sides, device, effort(device, quick)))
            judge(rows, floor_ms)
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
    """The rows of one workload and mode, fastest first."""
    header = ["", "median ms", "p20", "p80", "graph ms", "times faster", "extra MiB", "of floor"]
    lines = []
    for row in sorted(rows, key=lambda row: row["ms"]["p50"] if "ms" in row else float("inf")):
        name = f"* {row['name']}" if row["side"] == "library" else f"  {row['name']}"
        if "ms" not in row:
            lines.append([name, f"not timed: {row['problem']}"])
            continue
        ms, graph, extra = row["ms"], row.get("graph_ms"), row["extra_mib"]
        lines.append(
            [
                name,
                f"{ms['p50']:.3f}",
                f"{ms['p20']:.3f}",
                f"{ms['p80']:.3f}",
                f"{graph['p50']:.3f}" if graph else "-",
                f"{row['times_faster']:.2f}" if "times_faster" in row else "-",
                "-" if extra is None else f"{extra:.1f}",
                f"{row['share_of_floor']:.0%}",
            ]
        )
    return aligned(header, lines)


def write(path: Path, facts: Row, ceilings: Row, rows: list[Row], missing: list[str]) -> None:
    content = {
        "environment": facts,
        "ceilings": ceilings,
        "not_measured": missing,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def targets(options: argparse.Namespace, families: set[str], machine: str) -> dict[str, Path]:
    """Where each family's rows go; nowhere for a partial run without --out."""
    if options.out and options.out.suffix == ".json":
        return dict.fromkeys(families, options.out)
    if options.out:
        return {family: options.out / f"{family}.json" for family in families}
    if options.quick or options.only:
        return {}
    return {family: RESULTS / environment.slug(machine) / f"{family}.json" for family in families}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few workloads, few repeats")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--family", choices=FAMILIES, help="the workloads of one family")
    parser.add_argument("--only", metavar="NAME", help="workloads whose name contains NAME")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="write the rows of this run here: one FILE.json, or a folder for one per family",
    )
    parser.add_argument("--minutes", type=float, help="begin no further workload after this long")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        workloads = select(options.only, quick=options.quick, family=options.family)
    except ValueError as error:
        sys.exit(f"run.py: {error}")
    begin = time.monotonic()
    facts = environment.describe(options.device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    ceilings = measure.ceilings(options.device)
    print(", ".join(f"{name} {value:.3g}" for name, value in ceilings.items()))
    outputs = targets(options, {w.family for w in workloads}, str(facts["machine"]))
    rows: list[Row] = []
    missing = list(workloads)
    with tqdm(workloads, unit="workload", disable=None) as bar:
        for workload in bar:
            if options.minutes and time.monotonic() - begin > 60 * options.minutes:
                break
            rows += run_workload(workload, options.device, options.quick, ceilings, bar)
            missing.remove(workload)
            for path in set(outputs.values()):
                mine = [row for row in rows if outputs[row["family"]] == path]
                left = [w.name for w in missing if outputs[w.family] == path]
                write(path, facts, ceilings, mine, left)
    if missing:
        print(f"not measured, out of time: {', '.join(w.name for w in missing)}")
    broken = [row for row in rows if "problem" in row]
    for row in broken:
        where = f"{row['workload']} {row['variant']} {row['mode']}"
        print(f"{where}: {row['name']} not timed: {row['problem']}")
    return 1 if any(row["side"] == "library" for row in broken) else 0


if __name__ == "__main__":
    sys.exit(main())
