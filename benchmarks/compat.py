"""Compare the drop-ins of `pixelkernels.compat` with the code that they replace, on the CPU.

    python -m benchmarks.compat [--only NAME]

Values, gradients and signatures are compared, then the two sides are timed alternately. Writes
benchmarks/results/<machine>/compat/compat.json; with --only, it only prints.
"""

from __future__ import annotations

import argparse
import json

from benchmarks import environment, measure
from benchmarks.ops.compat import clicks, contrast, distances, matching, regions
from benchmarks.ops.compat.signatures import ORIGINALS, fits
from benchmarks.run import RESULTS

GROUPS = (clicks, distances, regions, contrast, matching)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", help="part of a name in pixelkernels.compat")
    options = parser.parse_args()
    rows = []
    effort = measure.Effort(rounds=15, seconds=10, least=5)
    for case in (case for group in GROUPS for case in group.cases()):
        if options.only and options.only not in case.ours_is:
            continue
        facts = ("project", "function", "ours_is", "differs", "sizes", "tolerance")
        row = {fact: getattr(case, fact) for fact in facts}
        row["differences"] = case.differences()
        row["signature"] = case.ours_is in ORIGINALS and fits(case.ours_is)
        calls = case.timed()
        for call in calls.values():
            measure.warm_up(call)
        memory = {side: measure.extra_memory(call, "cpu") for side, call in calls.items()}
        spread = measure.in_turn(calls, measure.Clock("cpu"), effort)
        for side in calls:
            row |= {f"{side}_ms": spread[side].p50, f"{side}_mib": memory[side]}
        rows.append(row)
        faster = f"{row['theirs_ms'] / row['ours_ms']:6.2f}x"
        times, sizes = (
            f"{row[f'theirs_{unit}']:9.2f} {row[f'ours_{unit}']:9.2f}" for unit in ("ms", "mib")
        )
        largest = ", ".join(f"{x:.0e}" for x in row["differences"].values())
        print(f"{case.ours_is:45} {times} ms  {faster} {sizes} MiB  {largest}", flush=True)
    if not options.only:
        machine = environment.slug(environment.device_name("cpu"))
        out = RESULTS / machine / "compat" / "compat.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": environment.describe("cpu"), "rows": rows}
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
