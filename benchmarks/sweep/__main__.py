"""Look for inputs on which an operation is slow: sizes, layouts, dtypes and values.

    python -m benchmarks.sweep [--only OP]

The inputs are those of the tests' registry (pixelkernels.testing) in larger sizes. Each case times
the default backend alternately with eager, or with itself on ordinary values. Three lists follow:

    slower than eager       the default backend takes over 10 % longer than eager
    costly for their size   over 3 times the operation's median cost per element
    slowed down by values   over 1.3 times the cost of ordinary values, where inputs are subnormal,
                            infinite or NaN, or intermediate results underflow

Exits 1 if the first or the third list has an entry, or one of the second has no reason in
`benchmarks/sweep/lists.py`.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from tqdm import tqdm

from benchmarks import environment, measure
from benchmarks.compare import aligned
from benchmarks.run import RESULTS
from benchmarks.sweep.lists import BEHIND, COSTLY, LEAST, SLOWED, Row, lists
from benchmarks.sweep.plans import PLANS, Point, points
from benchmarks.workload import FORWARD
from pixelkernels.testing.op import Call, cotangent

# A ratio that is this near to its limit, or past it, is measured again, longer.
CLOSE = 0.85
BRIEF = measure.Effort(rounds=3, seconds=0.2)
# Eager is timed once if it takes so many times longer.
FAR = 10.0
LONG = measure.Effort(rounds=15, seconds=2.0)


def bound(call: Call, mode: str, backend: str | None) -> Callable[[], object]:
    """The call to time, without arguments."""
    if mode == FORWARD:

        def forward() -> object:
            with torch.no_grad():
                return call.outputs(backend)

        return forward
    leaves = {name: x.detach().requires_grad_() for name, x in call.differentiable.items()}

    def learned() -> list[torch.Tensor]:
        outputs = call.outputs(backend, **leaves).values()
        return [x for x in outputs if x.requires_grad]

    cotangents = [cotangent(x) for x in learned()]
    return lambda: torch.autograd.grad(
        learned(), list(leaves.values()), cotangents, allow_unused=True
    )


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measured(point: Point, clock: measure.Clock) -> Row:
    """The time of the default backend, and of eager or of ordinary values."""
    call = point.call()
    other, backend = (replace(point, value="").call(), None) if point.value else (call, "eager")
    calls = {"ms": bound(call, point.mode, None), "other": bound(other, point.mode, backend)}
    for each in calls.values():
        measure.warm_up(each)
    once = {name: 1e3 * seconds(each) for name, each in calls.items()}
    if once["other"] > FAR * once["ms"]:
        del calls["other"]
    limit = LEAST[SLOWED if point.value else BEHIND]
    for effort in (BRIEF, LONG):
        spreads = measure.in_turn(calls, clock, effort)
        ms = spreads["ms"].p20
        other_ms = spreads["other"].p20 if "other" in spreads else once["other"]
        if ms / other_ms < CLOSE * limit:
            break
    return {
        **asdict(point),
        "ms": ms,
        "other_ms": other_ms,
        "elements": PLANS[point.op].elements(call),
    }


def printed(found: dict[str, list[Row]]) -> str:
    parts = []
    for title, rows in found.items():
        keys = ("op", "case", "mode", "size", "dtype", "layout", "value", "reason")
        cells = [
            [f"{row['ratio']:.2f}", f"{row['ms']:.3g}", *(str(row.get(key, "")) for key in keys)]
            for row in rows
        ]
        parts.append(f"{title}: {len(rows)}")
        if rows:
            parts.append(aligned(["ratio", "ms", *keys], cells))
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", metavar="OP", help="operations whose name contains OP")
    options = parser.parse_args(arguments)
    chosen = [point for point in points() if (options.only or "") in point.op]
    if not chosen:
        parser.error(f"--only: expected part of {', '.join(PLANS)}")
    clock, rows = measure.Clock("cpu"), []
    facts = environment.describe("cpu")
    for point in tqdm(chosen, unit="case", disable=None):
        rows.append(measured(point, clock))
        gc.collect()
    found = lists(rows)
    print(printed(found))
    if not options.only:
        path = RESULTS / environment.slug(str(facts["machine"])) / "sweep" / "sweep.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": facts, "rows": rows}, indent=0) + "\n")
        print(f"{path}: written")
    unexplained = [row for row in found[COSTLY] if not row["reason"]]
    return int(bool(found[BEHIND] or found[SLOWED] or unexplained))


if __name__ == "__main__":
    sys.exit(main())
