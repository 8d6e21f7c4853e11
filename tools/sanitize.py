"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer; `make sanitize`.

Builds the CPU library a second time, in `build-sanitize`, and runs the suites that reach its
kernels with it. It leaves out what has no kernel of this library or what the sanitizers change:
torch.compile and Triton, whose code is not instrumented; memory, which redzones and a quarantine
increase; fork and broken installations, which run other processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build-sanitize"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
COMPILED = f"-O1 -g1 -fno-omit-frame-pointer {SANITIZERS}"
SUITES = ("promises", "regions", "triplet", "similarity", "distance")
TESTS = (*SUITES, "core/test_numpy.py", "fuzz")
LEFT_OUT = "not compile and not memory and not graph and not opcheck"
# the best instruction set of this machine runs everything
OTHER_SETS = {"avx2": ("promises/test_agreement.py",), "baseline": ("promises/test_agreement.py",)}


def build() -> Path:
    """Builds the package with an instrumented library; returns its folder."""
    package = FOLDER / "lib"
    environment = {
        **os.environ,
        "PIXELKERNELS_CUDA": "0",
        "CXXFLAGS": COMPILED,
        "LDFLAGS": SANITIZERS,
    }
    folders = ["--build-lib", package, "--build-temp", FOLDER / "temp"]
    command = [sys.executable, "setup.py", "--quiet", "build", *folders]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    (package / "pixelkernels" / "_cuda.so").unlink(missing_ok=True)
    return package


def runtime(name: str) -> str:
    """A library of the compiler, which must be loaded before all others."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    done = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True)
    return done.strip()


def preloaded() -> dict[str, str]:
    """What a Python needs in its environment to load an instrumented library."""
    libraries = [runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    # torch and Python leak on purpose; an allocation larger than the memory must still fail
    address = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192"
    return {
        "PYTHONMALLOC": "malloc",
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": address,
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


def environment(package: Path, capability: str | None) -> dict[str, str]:
    found = {
        **os.environ,
        **preloaded(),
        "PYTHONPATH": str(package),
        # keeps `-c` from importing the working copy, which has the other library
        "PYTHONSAFEPATH": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    return found if capability is None else {**found, "PIXELKERNELS_CPU_CAPABILITY": capability}


def run(package: Path, tests: tuple[str, ...], capability: str | None = None) -> int:
    known = environment(package, capability)
    instrumented = (
        "import pixelkernels._core.extension as e; print(e._C.__file__, e.BUILD['cpu_capability'])"
    )
    loaded = subprocess.check_output([sys.executable, "-c", instrumented], env=known, text=True)
    print(loaded, end="", flush=True)
    if not loaded.startswith(str(package)):
        print("this is not the instrumented library")
        return 1
    files = [f"tests/{name}" for name in tests]
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        LEFT_OUT,
        "-m",
        "not keeps_memory and not slow",
    ]
    command = [Path(sys.executable).parent / "pytest", *options, *sys.argv[1:], *files]
    return subprocess.run(command, cwd=ROOT, env=known, check=False).returncode


def main() -> int:
    package = build()
    failed = run(package, TESTS)
    for capability, tests in OTHER_SETS.items():
        failed |= run(package, tests, capability)
    return failed


if __name__ == "__main__":
    sys.exit(main())
