"""Install wheels into clean environments outside the checkout and run smoke.py there:

  python -m tools.wheels.trial WHEEL ... --torch 2.10.0 newest
  python -m tools.wheels.trial SDIST --torch here

There is one environment per torch, created by the running Python; the wheels are installed one
after the other, and an sdist is unpacked and installed by `pip install .`. A torch is a version or
`newest`; the package index (PIP_INDEX_URL) decides whether it is a build with CUDA. `here` saves
the download: the packages of the running Python, without what an isolated build installs. For
smoke.py, PATH is an empty folder.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tools.wheels import build

SMOKE = Path(__file__).with_name("smoke.py")
OF_BUILDS = re.compile("pip|setuptools|pkg_resources|_?distutils|wheel|ninja|pybind11|pixelkernels")


def link_packages(python: Path) -> None:
    """Links the packages of the running Python into the environment of another."""
    (target,) = (python.parents[1] / "lib").glob("python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not OF_BUILDS.match(path.name) and not path.name.startswith("__"):
            (target / path.name).symlink_to(path)


def try_all(files: list[Path], torch: str) -> list[str]:
    """The files that failed under this torch."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "no-programs").mkdir()
        shutil.copy(SMOKE, root)
        subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
        python = root / "venv" / "bin" / "python"
        pip = [python, "-m", "pip", "-q", "--disable-pip-version-check"]
        if torch == "here":
            link_packages(python)
        else:
            requirement = "torch" if torch == "newest" else f"torch=={torch}"
            subprocess.run([*pip, "install", requirement], check=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for file in files:
            what, cwd = file, root
            if file.name.endswith(".tar.gz"):
                what, cwd = Path("."), build.unpack(file, root / "source")
            # installs the other requirements too; torch is present already
            subprocess.run([*pip, "install", what], cwd=cwd, env=clean, check=True)
            done = subprocess.run(
                [python, "smoke.py"],
                cwd=root,
                env={**clean, "PATH": str(root / "no-programs")},
                check=False,
            )
            print(f"{file.name}: {'FAILED' if done.returncode else 'ok'}", flush=True)
            failed += [f"{file.name} under torch {torch}"] if done.returncode else []
            subprocess.run([*pip, "uninstall", "--yes", "pixelkernels"], check=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=lambda name: Path(name).resolve())
    parser.add_argument("--torch", nargs="+", default=["2.10.0", "newest"])
    options = parser.parse_args()
    failed = [name for torch in options.torch for name in try_all(options.files, torch)]
    if failed:
        sys.exit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
