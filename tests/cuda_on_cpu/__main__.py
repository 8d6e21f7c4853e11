"""Run the tests of the CUDA kernels on the emulated GPU.

    python -m tests.cuda_on_cpu [VARIANT] [ARGUMENTS OF PYTEST]

Without a variant all run: `races` runs every quick test, `address` those of every operation and
size. Their GPUs differ, so that other blocks and tables fit.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools.sanitize import preloaded

from .build import ROOT, VARIANTS, build

# both with so few multiprocessors that the tests' images fill them
GPUS = {
    "races": {"EMULATED_MULTIPROCESSORS": "8", "EMULATED_SHARED_MEMORY": str(227 * 1024)},
    "address": {"EMULATED_MULTIPROCESSORS": "2", "EMULATED_SHARED_MEMORY": str(99 * 1024)},
}
TESTS = {
    "races": ("tests",),
    "address": (
        "tests/promises/test_agreement.py",
        "tests/promises/test_edges.py",
        *("-k", "not float16"),
    ),
}


def run(variant: str, arguments: list[str]) -> int:
    build(variant)
    environment = {**os.environ, "CUDA_ON_CPU": variant, "OMP_WAIT_POLICY": "passive"}
    environment |= GPUS[variant]
    if variant == "address":
        environment |= preloaded()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow"]
    command += arguments or ["-n", "2", *TESTS[variant]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    given = sys.argv[1:]
    variants = [given.pop(0)] if given and given[0] in VARIANTS else list(VARIANTS)
    # a crash has a negative status
    return next(filter(None, [run(variant, given) for variant in variants]), 0)


if __name__ == "__main__":
    sys.exit(main())
