"""Audit of a wheel: its name states which libraries it has, and these need only torch's stable ABI
and what every system of the platform tag has.

  python -m tools.wheels.audit WHEEL ...
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

# of torch and of every Linux; auditwheel derives the platform tag from their symbol versions
NEEDED = re.compile(
    r"lib(torch|torch_cpu)\.so$|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so\.\d+$|ld-linux"
)
# that of RHEL 9; Ubuntu 22.04 and Debian 12 have newer ones
NEWEST_GLIBC = 34
UNSTABLE = re.compile(r"\b(at|c10|torch|caffe2)::")


def complaints(wheel: Path, built_in: Path | None = None) -> list[str]:
    """One line per fault of a wheel. `built_in` is the folder whose path must not be in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        found = [*_label(wheel.name, names), *_contents(archive)]
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                if name.endswith(".so"):
                    library = archive.extract(name, folder)
                    found += [f"{name} {what}" for what in library_complaints(library)]
                    if built_in and str(built_in).encode() in Path(library).read_bytes():
                        found.append(f"{name} names {built_in}")
    return found


def library_complaints(library: str | Path) -> Iterator[str]:
    """The requirements of a compiled library that an installation may not meet."""
    dynamic = _output("readelf", "--dynamic", "--wide", library)
    for name in re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic):
        if not NEEDED.match(name):
            yield f"needs {name}"
    for path in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", dynamic):
        yield f"has the run path {path}"
    for line in _output("nm", "-D", "--undefined-only", "-C", library).splitlines():
        if UNSTABLE.search(line):
            yield f"needs {line.split(maxsplit=1)[1]}, which is not in the stable ABI"


def summary(path: Path) -> str:
    """The file's name and size, and those of the libraries in it."""
    parts = []
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            parts = [
                f"{Path(entry.filename).name} {entry.compress_size / 2**20:.1f} MiB, "
                f"{entry.file_size / 2**20:.1f} unpacked"
                for entry in archive.infolist()
                if entry.filename.endswith(".so")
            ]
    libraries = f" ({'; '.join(parts)})" if parts else ""
    return f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB{libraries}"


def _label(name: str, names: list[str]) -> Iterator[str]:
    """Compares local version and tags with the libraries inside."""
    local = name.split("-")[1].partition("+")[2]
    python, _, platform = name.removesuffix(".whl").split("-")[-3:]
    libraries = {re.sub(r"\..*", "", Path(n).name) for n in names if n.endswith(".so")}
    is_pure = (python, platform) == ("py3", "any")
    expected = {"_C", "_cuda"} if local else set() if is_pure else {"_C"}
    if libraries != expected:
        held = ", ".join(sorted(libraries)) or "no library"
        yield f"has {held}, its name promises {', '.join(sorted(expected)) or 'none'}"
    if local and not re.fullmatch(r"cu\d+", local):
        yield f"has the local version {local}, which no index takes and no toolkit has"
    levels = [int(level) for level in re.findall(r"manylinux_2_(\d+)_", platform)]
    if not is_pure and min(levels, default=NEWEST_GLIBC + 1) > NEWEST_GLIBC:
        yield f"is tagged {platform}, expected manylinux_2_{NEWEST_GLIBC} or older"
    if any(f.endswith(".so") and f"-{python[2:]}-" not in f for f in names if "/_C." in f):
        yield f"has a module for another Python than {python}"


def _contents(archive: zipfile.ZipFile) -> Iterator[str]:
    names = archive.namelist()
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    folder = metadata.split("/")[0]
    headers = Parser().parsestr(archive.read(metadata).decode(), headersonly=True)
    for name in sorted(names):
        if not name.startswith(("pixelkernels/", f"{folder}/")):
            yield f"has {name}"
    for name in ("pixelkernels/__init__.py", "pixelkernels/py.typed", f"{folder}/licenses/LICENSE"):
        if name not in names:
            yield f"lacks {name}"
    if f"pixelkernels-{headers['Version']}.dist-info" != folder:
        yield f"is of version {headers['Version']} in {folder}"
    torch = [need for need in headers.get_all("Requires-Dist", []) if re.match(r"torch\b", need)]
    if len(torch) != 1 or not re.fullmatch(r"torch>=[\d.]+", torch[0]):
        yield f"requires {torch}, expected one lower bound of torch"


def _output(*command: object) -> str:
    return subprocess.check_output([str(word) for word in command], text=True)


def main() -> int:
    status = 0
    for path in map(Path, sys.argv[1:]):
        print(summary(path))
        for complaint in complaints(path):
            print(f"  {complaint}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
