"""Triton's kernels on the CPU, by its interpreter, in a process of its own.

The interpreter is chosen when triton is imported and then holds for the whole process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("cases", "at_least"),
    [
        ("triton_interpreter_cases.py", 200),
        ("triton_interpreter_distance.py", 50),
        ("triton_interpreter_similarity.py", 120),
        ("triton_interpreter_triplet.py", 20),
    ],
)
def test_kernels_under_the_interpreter(cases, at_least):
    lane = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"),
            str(TESTS / cases),
        ],
        cwd=TESTS.parent,
        env={
            **os.environ,
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    report = lane.stdout[-12000:] + lane.stderr[-4000:]
    assert lane.returncode == 0, report
    passed = re.search(r"(\d+) passed", lane.stdout)
    assert passed, report
    assert int(passed[1]) > at_least, report
    assert "skipped" not in lane.stdout, report
