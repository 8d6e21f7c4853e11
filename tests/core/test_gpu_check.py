"""The check on a GPU, rehearsed without one: its stages, its report, and its selection of tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.ops import FAMILIES
from pixelkernels.testing.samples import OPS
from tests.helpers import ROOT
from tools import gpu_smoke

# Stands for Python, nvidia-smi and compute-sanitizer. Where asked for, tests fail and do not end,
# or a tool of the sanitizer fails.
FAKE = """#!/usr/bin/env bash
echo "${0##*/} $* [arch ${TORCH_CUDA_ARCH_LIST:-}]" >>"$CALLS"
case "$*" in
  *get_device_capability*) echo 9.0 ;;
  "-m pytest"*) [ -z "${HANGS:-}" ] || { echo "FAILED tests/one"; sleep 60; } ;;
  "--tool ${FAILS:-none} "*) printf 'region_stats, ints: 8 calls\\nout of bounds\\n'; exit 9 ;;
esac
"""


@pytest.fixture
def check(tmp_path):
    for name in ("python", "nvidia-smi", "compute-sanitizer"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)

    def run(*stages, **variables):
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHON": str(tmp_path / "python"),
            "CALLS": str(tmp_path / "calls"),
            **variables,
        }
        command = ["bash", ROOT / "tools" / "gpu_check.sh", tmp_path / "out", *stages]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        calls = tmp_path / "calls"
        return done, calls.read_text() if calls.exists() else ""

    return run


def test_every_stage_runs_and_is_in_the_summary(check, tmp_path):
    done, calls = check()
    assert done.returncode == 0, done.stdout
    summary = (tmp_path / "out" / "summary.txt").read_text()
    for stage in ("build", "test", "sanitize", *(f"bench-{family}" for family in FAMILIES)):
        assert f"{stage}: ok" in summary
    assert "setup.py build_ext --inplace [arch 9.0]" in calls
    lines = calls.splitlines()
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        for backend in ("cuda", "triton"):
            assert any(tool in line and f"sanitizer {backend}" in line for line in lines)
    alone, together = (line for line in lines if "--family triplet" in line)
    assert "--alone" in alone
    assert "--alone" not in together


def test_stage_that_is_killed_leaves_what_it_found(check, tmp_path):
    done, _ = check("test", "bench", "similarity", LIMIT="2", HANGS="1")
    assert done.returncode == 1
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert "test: FAILED with status 124" in summary
    assert "FAILED tests/one" in summary
    assert "bench-similarity: ok" in summary


def test_failed_sanitizer_is_named_with_what_it_did(check, tmp_path):
    done, _ = check("sanitize", FAILS="racecheck")
    assert done.returncode == 1
    summary = (tmp_path / "out" / "summary.txt").read_text()
    for backend in ("cuda", "triton"):
        failure = f"FAILED racecheck, {backend}, 1 samples done: racecheck: out of bounds"
        assert failure in summary
    assert summary.count("FAILED racecheck") == 2
    assert (tmp_path / "out" / "sanitize.log").read_text().count(": ok") == 6
    assert len(list((tmp_path / "out").iterdir())) <= 8


@pytest.mark.parametrize("stages", [["tests"], ["bench"], ["bench", "speed"]])
def test_unknown_stage_is_refused(check, stages):
    done, calls = check(*stages)
    assert done.returncode == 2
    assert calls == ""


@pytest.mark.parametrize("backend", ["cpu", "eager"])
def test_smoke_runs_every_operation(backend, capsys):
    assert gpu_smoke.main((backend,), "cpu") == 0
    printed = capsys.readouterr().out
    for name, op in OPS.items():
        assert (f"{name} " in printed) == (backend in op.backends)


@pytest.mark.slow
def test_only_tests_of_gpu_backends_are_selected():
    command = [sys.executable, "-m", "pytest", "-p", "tests.gpu", "--collect-only", "-q"]
    listed = subprocess.check_output([*command, "tests/distance"], cwd=ROOT, text=True)
    names = [line for line in listed.splitlines() if "::" in line]
    assert names
    assert all("cuda" in name or "triton" in name for name in names)


CASES = """
import pytest, torch

def broken():
    raise RuntimeError("illegal memory access")

torch.cuda.synchronize = lambda: None

@pytest.mark.parametrize("backend", ["cuda"])
@pytest.mark.parametrize("which", range(3))
def test_it(which, backend):
    if which == 1:
        torch.cuda.synchronize = broken
        raise AssertionError("wrong values")
"""


@pytest.mark.slow
def test_worker_with_a_broken_context_is_replaced(tmp_path):
    (tmp_path / "test_cases.py").write_text(CASES)
    failures = tmp_path / "failures.txt"
    options = ["-p", "tests.gpu", "-n", "1", "-p", "no:cacheprovider", "-q"]
    variables = {"GPU_FAILURES": str(failures), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout
    assert "1 failed" in done.stdout
    assert "wrong values" in failures.read_text()
    assert "illegal memory access" in failures.read_text()
