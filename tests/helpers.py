"""What the suites share: backends and their devices, fresh processes, and looks at a call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelkernels.testing.memory import peak_resident

ROOT = Path(__file__).parent.parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# the device that the tests of a backend run on
DEVICES = {
    "eager": "cpu",
    "cpu": "cpu",
    "triton": "cpu" if INTERPRETED else "cuda",
    "cuda": "cuda",
}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def backends(*names: str) -> list[Any]:
    """Parameters for `backend`; one that needs a GPU is skipped on a machine without."""
    return [
        pytest.param(name, marks=[needs_gpu] if DEVICES[name] == "cuda" else []) for name in names
    ]


def run_python(
    code: str, path: Path | None = None, timeout: float = 120, **environment: str
) -> str:
    """Standard output of a fresh process, which imports the package from `path` if it is given."""
    folders = [str(path)] if path else []
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path]), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=known,
        cwd=path,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def flat(result: Any) -> list[Any]:
    return [result] if isinstance(result, Tensor) else list(result)


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def peak_extra_bytes(call: Callable[[], object], *, warm_up: bool = True) -> int:
    """How far a call raises the peak resident memory above what is resident before it."""
    if warm_up:
        call()
    return peak_resident(call)
