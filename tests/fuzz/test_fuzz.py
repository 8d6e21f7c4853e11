"""Some random calls, the same in every run; `make fuzz` makes 20 000 others."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("calls", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_random_calls_are_right_or_raise_the_error_of_a_mistake(calls, tmp_path):
    log = tmp_path / "last call.json"
    command = [sys.executable, "-m", "tests.fuzz", "--log", log, "--calls", str(calls)]
    done = subprocess.run(
        [*command, "--seed", "0"], capture_output=True, text=True, timeout=600, check=False
    )
    last = log.read_text() if log.exists() else ""
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nlast call: {last}"
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends["compared"] > calls / 2
    assert ends["refused"] > calls / 10
