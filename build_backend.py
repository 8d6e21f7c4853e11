"""The build backend: setuptools', which is asked only after a look at what the build needs.

Left alone, it answers an old setuptools, a missing package and a missing compiler with pages of
output; here each ends in one sentence. And torch becomes a requirement of the build only where the
environment of the installation has none: its headers and libraries are enough, and an isolated
build would download gigabytes for them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

TORCH_TARGET = "2.10"
PYPROJECT = (Path(__file__).parent / "pyproject.toml").read_text()
REQUIRES: list[str] = json.loads(re.search(r"^requires = (.+)", PYPROJECT, re.M)[1])
WITHOUT = "or set PIXELKERNELS_EXTENSION=0 to install without the compiled libraries"


def installed(name: str) -> str:
    """The version of a package that a build can use, or ""."""
    if name == "torch":
        found = find_torch()
        return found[1] if found else ""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def find_torch() -> tuple[Path, str] | None:
    """The folder of the torch to build against and its version: one that this Python imports, or
    that of the environment from which pip started an isolated build.
    """
    environment = sysconfig.get_path("purelib"), sysconfig.get_path("platlib")
    spec = PathFinder.find_spec("torch", [*sys.path, *environment])
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    version = re.search(r"^__version__ = '(.+)'", (folder / "version.py").read_text(), re.M)
    return folder, version[1]


def lacking(requirements: list[str]) -> list[str]:
    """Those of the requirements NAME or NAME>=VERSION that are not met."""

    def numbers(version: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", version)[:2]]

    missing = []
    for text in requirements:
        name, _, least = text.partition(">=")
        version = installed(name)
        if not version or numbers(version) < numbers(least):
            missing.append(text)
    return missing


def require(requirements: list[str]) -> None:
    if missing := lacking(requirements):
        sys.exit(
            f"pixelkernels: the build needs {', '.join(missing)}, which this environment lacks:"
            " leave out --no-build-isolation, and pip installs what the build needs, or run"
            f" `pip install {shlex.join(missing)}` first"
        )


def find_compiler() -> str | None:
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


def is_compiled() -> bool:
    return os.environ.get("PIXELKERNELS_EXTENSION") != "0"


def require_compiler() -> None:
    compiler = find_compiler()
    if compiler is None or not shutil.which(shlex.split(compiler)[0]):
        missing = "g++ on PATH" if compiler is None else f"CXX={compiler}"
        sys.exit(f"pixelkernels: there is no C++ compiler ({missing}): install g++, {WITHOUT}")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        sys.exit(
            f"pixelkernels: there is no {header}: install the headers of this Python (python3-dev"
            f" on Debian and Ubuntu), {WITHOUT}"
        )


def require_all() -> None:
    """Ends the build of the compiled libraries where something for it is missing."""
    if is_compiled():
        require_compiler()
        require([f"torch>={TORCH_TARGET}"])


# before the import, which an old setuptools would fail in pages of output
require(REQUIRES)

from setuptools import build_meta  # noqa: E402

build_sdist = build_meta.build_sdist
build_wheel = build_meta.build_wheel
build_editable = build_meta.build_editable
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist


# the first hooks that pip calls for an isolated build
def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    if not is_compiled():
        return []
    require_compiler()
    return lacking([f"torch>={TORCH_TARGET}"])


get_requires_for_build_editable = get_requires_for_build_wheel


# and for one without isolation
def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    require_all()
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
