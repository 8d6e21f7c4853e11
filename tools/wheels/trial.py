"""Install wheels into clean environments outside the checkout and run smoke.py there:

  python -m tools.wheels.trial WHEEL ... --torch 2.10.0 newest

There is one environment per torch, created by the running Python; the wheels are installed one
after the other. A torch is a version or `newest`; the package index (PIP_INDEX_URL) decides whether
it is a build with CUDA. PATH is an empty folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SMOKE = Path(__file__).with_name("smoke.py")


def try_all(wheels: list[Path], torch: str) -> list[str]:
    """The wheels that failed under this torch."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "no-programs").mkdir()
        shutil.copy(SMOKE, root)
        subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
        python = root / "venv" / "bin" / "python"
        pip = [python, "-m", "pip", "-q", "--disable-pip-version-check"]
        requirement = "torch" if torch == "newest" else f"torch=={torch}"
        subprocess.run([*pip, "install", requirement], check=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for wheel in wheels:
            # installs the other requirements too; torch is present already
            subprocess.run([*pip, "install", wheel], check=True)
            done = subprocess.run(
                [python, "smoke.py"],
                cwd=root,
                env={**clean, "PATH": str(root / "no-programs")},
                check=False,
            )
            print(f"{wheel.name}: {'FAILED' if done.returncode else 'ok'}", flush=True)
            failed += [f"{wheel.name} under torch {torch}"] if done.returncode else []
            subprocess.run([*pip, "uninstall", "--yes", "pixelkernels"], check=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", nargs="+", type=lambda name: Path(name).resolve())
    parser.add_argument("--torch", nargs="+", default=["2.10.0", "newest"])
    options = parser.parse_args()
    failed = [name for torch in options.torch for name in try_all(options.wheels, torch)]
    if failed:
        sys.exit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
