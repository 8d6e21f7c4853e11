"""Random calls of every public function, in processes that may crash: `python -m tests.fuzz`.

Each call has to give a right result, or raise TypeError, ValueError or BackendUnavailable with a
message that names the argument. A process writes each call down before it makes it, so that one
which crashes or hangs is known; `--call FILE` makes the calls of a file again, one for each line.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

CALLS_PER_PROCESS = 1000
SECONDS_PER_CALL = 60
# beyond what is mapped at the start; a call that asks for more has to be refused
EXTRA_BYTES = 6 << 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, help="of the first process; random if not given")
    parser.add_argument("--go-on", action="store_true", help="past failures, without shrinking")
    parser.add_argument("--call", type=Path, help="make the calls of this file again")
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        return again(options.call)
    if options.log:
        return fuzz(options.calls, options.seed, options.log, options.go_on)
    return in_processes(options)


def in_processes(options: argparse.Namespace) -> int:
    """One process after the other; prints how each that failed ended."""
    started, failed, ends = time.monotonic(), 0, collections.Counter[str]()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, first in enumerate(range(0, options.calls, CALLS_PER_PROCESS)):
            log = Path(folder) / f"{number}.json"
            calls = min(CALLS_PER_PROCESS, options.calls - first)
            command = [sys.executable, "-m", "tests.fuzz", "--log", log, "--calls", calls]
            command += ["--seed", seed + number]
            command += ["--go-on"] if options.go_on else []
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            if done.returncode:
                failed += 1
                print(f"seed {seed + number}: exit status {done.returncode}")
                print(done.stdout[-6000:] + done.stderr[-6000:])
                if done.returncode != 1 and log.exists():
                    print(f"the last call was\n{log.read_text()}")
            else:
                ends.update(json.loads(done.stdout.splitlines()[-1]))
    seconds = time.monotonic() - started
    counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    print(f"{sum(ends.values())} calls in {seconds:.0f} s: {counts}; {failed} processes failed")
    return bool(failed)


def prepare() -> None:
    import torch

    warnings.simplefilter("ignore")
    faulthandler.enable()
    # what a kernel leaves unwritten is NaN
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + EXTRA_BYTES, mapped + EXTRA_BYTES))


def made(call: dict[str, Any]) -> str:
    """How it ended. A call that does not end has its traceback printed, and ends the process."""
    from tests.fuzz.check import run

    faulthandler.dump_traceback_later(SECONDS_PER_CALL, exit=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return run(call)
    finally:
        faulthandler.cancel_dump_traceback_later()


def fuzz(calls: int, seed: int, log: Path, go_on: bool) -> int:
    import hypothesis

    from tests.fuzz.draw import calls as drawn

    prepare()
    ends = collections.Counter[str]()

    def one(call: dict[str, Any]) -> None:
        text = json.dumps(call)
        log.write_text(text)
        try:
            ends[made(call)] += 1
        except Exception as error:
            error.add_note(text) if hasattr(error, "add_note") else print(text)
            if not go_on:
                raise
            ends["failed"] += 1
            print("".join(traceback.format_exception(error)[-2:]))

    phases = [hypothesis.Phase.generate] + ([] if go_on else [hypothesis.Phase.shrink])
    settings = hypothesis.settings(
        max_examples=calls,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.seed(seed)(settings(hypothesis.given(drawn())(one)))()
    print(json.dumps(ends))
    return 1 if ends["failed"] else 0


def again(path: Path) -> int:
    prepare()
    failed = 0
    for line in path.read_text().splitlines():
        print(line)
        try:
            print("->", made(json.loads(line)))
        except Exception:
            failed += 1
            traceback.print_exc(file=sys.stdout)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
