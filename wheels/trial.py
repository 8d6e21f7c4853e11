"""Installs wheels into clean environments outside the checkout and runs smoke.py there:

  python -m wheels.trial WHEEL ... --torch 2.10.0 newest

One environment for each torch, made by the Python that runs this; the wheels go in one after the
other. A torch may be a version or `newest`, the one that the package index gives by itself; which
build it is, with or without CUDA, is the index's choice (PIP_INDEX_URL). PATH is an empty folder.
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
    """The names of those that failed under this torch."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "no-programs").mkdir()
        shutil.copy(SMOKE, place)
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
        python = place / "venv" / "bin" / "python"
        pip = [python, "-m", "pip", "-q", "--disable-pip-version-check"]
        requirement = "torch" if torch == "newest" else f"torch=={torch}"
        subprocess.run([*pip, "install", requirement], check=True)
        alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for wheel in wheels:
            # its other requirements come with it; torch is there and stays
            subprocess.run([*pip, "install", wheel], check=True)
            done = subprocess.run(
                [python, "smoke.py"],
                cwd=place,
                env={**alone, "PATH": str(place / "no-programs")},
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
