"""Contents and audit of the sdist and the pure wheel; `make wheel` compiles the others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import build_backend
import pixelkernels
from pixelkernels.__main__ import main
from pixelkernels.testing.samples import OPS
from tests.helpers import ROOT
from tools.wheels import audit, build, smoke, trial

LIBRARIES = sorted((ROOT / "pixelkernels").glob("_*.so"))
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
needs_binutils = pytest.mark.skipif(not shutil.which("readelf"), reason="needs binutils")
# one worker runs them all, because the fixtures build
pytestmark = pytest.mark.xdist_group("wheels")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("sdist")
    return build.build_sdist(sys.executable, build.copy_sources(folder / "copy"), folder / "dist")


@pytest.fixture(scope="module")
def pure(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from sources with stale libraries in the package folder."""
    folder = tmp_path_factory.mktemp("pure")
    source = build.unpack(sdist, folder / "source")
    for name in ("_cuda.so", "_C.cpython-39-x86_64-linux-gnu.so"):
        (source / "pixelkernels" / name).write_bytes(b"")
    return build.build_wheel("pure", sys.executable, source, folder / "dist")


def test_sdist_has_what_a_build_needs_and_no_more(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        info = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO").read().decode()
    needed = {"setup.py", "build_backend.py", "pyproject.toml"}
    needed |= {"LICENSE", "README.md", "CHANGELOG.md"}
    for pattern in ("csrc/**/*.*", "pixelkernels/**/*.py", "pixelkernels/py.typed"):
        needed |= {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
    assert needed <= names
    others = {"tests", "benchmarks", "examples", "tools", "build"}
    assert not others & {name.partition("/")[0] for name in names}
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]
    version = re.search(r"^Version: (.+)", info, re.M)[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), "only wheels have a local version"


@needs_binutils
def test_pure_wheel_suits_every_python_and_passes_the_audit(pure):
    assert re.fullmatch(r"pixelkernels-\d+\.\d+\.\d+-py3-none-any\.whl", pure.name)
    assert audit.complaints(pure) == []
    with zipfile.ZipFile(pure) as archive:
        packaged = {name for name in archive.namelist() if name.startswith("pixelkernels/")}
        folder = f"pixelkernels-{pure.name.split('-')[1]}.dist-info"
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
        assert "\npixelkernels = pixelkernels.__main__:main" in scripts
    modules = (path.relative_to(ROOT) for path in (ROOT / "pixelkernels").rglob("*.py"))
    assert packaged == {*map(str, modules), "pixelkernels/py.typed"}


def test_local_version_is_in_the_wheel_only(sdist, tmp_path, monkeypatch):
    settings = build.settings
    monkeypatch.setattr(build, "settings", lambda kind, python: settings("pure", python))
    source = build.unpack(sdist, tmp_path / "source")
    wheel = build.build_wheel("13.0", sys.executable, source, tmp_path / "dist")
    version = sdist.name.removesuffix(".tar.gz") + "+cu130"
    assert wheel.name == f"{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{version}.dist-info/METADATA").decode()
    assert "\nVersion: " + version.partition("-")[2] in metadata
    # the name promises both libraries, and none was compiled
    assert audit.complaints(wheel) == ["has no library, its name promises _C, _cuda"]


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("0.1.0-py3-none-any", []),
        ("0.1.0-cp312-cp312-manylinux_2_34_x86_64", []),
        ("0.1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64", []),
        ("0.1.0+cu130-cp312-cp312-manylinux_2_28_x86_64", []),
        ("0.1.0-cp312-cp312-manylinux_2_35_x86_64", ["is tagged manylinux_2_35_x86_64"]),
        ("0.1.0-cp312-cp312-linux_x86_64", ["is tagged linux_x86_64"]),
        ("0.1.0+cpu-cp312-cp312-manylinux_2_28_x86_64", ["has _C", "has the local version cpu"]),
        ("0.1.0-cp310-cp310-manylinux_2_28_x86_64", ["has a module for another Python"]),
    ],
)
def test_audit_compares_the_name_of_a_wheel_with_its_libraries(name, faults):
    files = [] if name.endswith("-any") else ["pixelkernels/_C.cpython-312-x86_64-linux-gnu.so"]
    files += ["pixelkernels/_cuda.so"] if "+cu" in name else []
    found = list(audit._label(f"pixelkernels-{name}.whl", files))
    assert len(found) == len(faults), found
    assert all(map(str.startswith, found, faults)), found


def test_wheels_are_compiled_against_the_oldest_supported_torch():
    required = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert required == build_backend.TORCH_TARGET
    assert f"{required}.0" == build.TORCH


def test_command_prints_the_version_of_the_package(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert capsys.readouterr().out == f"pixelkernels {version}\n"
    assert pixelkernels.__version__ == version


@pytest.mark.parametrize(
    ("kind", "local"), [("13.0", "+cu130"), ("12.8", "+cu128"), ("none", ""), ("pure", "")]
)
def test_local_version_names_the_toolkit(kind, local):
    assert build.local_version(kind) == local


def test_environment_variables_of_other_builds_are_dropped(monkeypatch, tmp_path):
    for name in ("PIXELKERNELS_CUDA", "TORCH_CUDA_ARCH_LIST", "CXXFLAGS", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(build, "torch", lambda python: tmp_path)
    found = build.settings("none", Path(sys.executable))
    assert found["PIXELKERNELS_CUDA"] == "0"
    assert found["PYTHONPATH"] == str(tmp_path)
    assert not {"TORCH_CUDA_ARCH_LIST", "CXXFLAGS"} & set(found)


def test_toolkit_of_another_release_is_not_used(monkeypatch, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    installed = []

    def pip(*arguments: object) -> None:
        installed.append(arguments[-1])
        (tmp_path / "cuda-12.9").mkdir()

    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(build, "WORK", tmp_path)
    monkeypatch.setattr(build, "pip", pip)
    assert build.toolkit("12.8", Path(sys.executable)) == {"CUDA_HOME": str(tmp_path)}
    assert installed == []
    with pytest.raises(SystemExit, match=r"CUDA 12.9 .*no nvcc"):
        build.toolkit("12.9", Path(sys.executable))
    assert installed == [f"{build.TOOLKIT}==12.9.*"]


@needs_binutils
@pytest.mark.skipif(not LIBRARIES, reason="needs the compiled libraries")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_libraries_need_only_torch_and_the_system(library):
    # in-place builds find torch through a run path, which only a wheel must not have
    found = [line for line in audit.library_complaints(library) if "run path" not in line]
    assert found == []


@needs_compiler
@needs_binutils
def test_audit_reports_every_fault_of_a_wheel(pure, tmp_path):
    (tmp_path / "other.cpp").write_text("void other() {}")
    (tmp_path / "bad.cpp").write_text(
        "void other(); namespace at { void add(); } void bad() { other(); at::add(); }"
    )
    shared = ["g++", "-shared", "-fPIC"]
    subprocess.run([*shared, "other.cpp", "-o", "libother.so"], cwd=tmp_path, check=True)
    bad = "_C.cpython-311-x86_64-linux-gnu.so"
    options = ["-L.", "-lother", "-Wl,-rpath,/somewhere"]
    subprocess.run([*shared, "bad.cpp", *options, "-o", bad], cwd=tmp_path, check=True)
    wheel = tmp_path / pure.name.replace("-py3-none-any", "+cu130-cp312-cp312-linux_x86_64")
    shutil.copy(pure, wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.write(tmp_path / bad, f"pixelkernels/{bad}")
        archive.writestr("setup.py", "")
    found = "\n".join(audit.complaints(wheel, Path("/somewhere")))
    for complaint in (
        "has _C, its name promises _C, _cuda",
        "another Python than cp312",
        "has setup.py",
        "needs libother.so",
        "has the run path /somewhere",
        "names /somewhere",
        "needs at::add()",
    ):
        assert complaint in found, found


def test_trial_environment_has_the_packages_of_this_python_but_for_those_of_a_build(tmp_path):
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    trial.link_packages(tmp_path / "bin" / "python")
    names = {path.name for path in packages.iterdir()}
    assert {"torch", "numpy"} <= names
    assert not [name for name in names if name.startswith(("setuptools", "ninja", "pixelkernels"))]


def test_smoke_test_passes_in_this_checkout():
    compared = smoke.check_operations()
    if LIBRARIES:
        assert all(
            ("cpu" in used) == ("cpu" in OPS[name].backends) for name, used in compared.items()
        )
    smoke.check_arrays()


def test_workflows_and_readme_name_existing_make_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    texts = [ROOT / "README.md", *(ROOT / ".github" / "workflows").glob("*.yml")]
    named = {
        word
        for path in texts
        for word in re.findall(r"(?:run: |`|^)make ([a-z][\w-]*)", path.read_text(), re.M)
    }
    assert {"wheel", "wheel-test", "sdist", "test"} <= named
    assert named <= targets
    steps = re.search(r"step: \[(.+)\]", (ROOT / ".github/workflows/ci.yml").read_text())[1]
    of_ci = re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.M)
    assert of_ci == steps.split(", ")
