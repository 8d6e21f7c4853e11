"""A few hundred random calls, the same in every run; `make fuzz` makes 20 000."""

from __future__ import annotations

import json
import subprocess
import sys


def test_random_calls_are_right_or_say_what_is_wrong(tmp_path):
    log = tmp_path / "last call.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--round", log, "--calls", "300", "--seed", "0"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    last = log.read_text() if log.exists() else ""
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nlast call: {last}"
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends["compared"] > 100
    assert ends["refused"] > 30
