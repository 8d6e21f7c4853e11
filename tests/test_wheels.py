"""What the wheels are made of, how they are audited and listed; `make wheel` compiles them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from wheels import audit, build, index, smoke

ROOT = Path(__file__).parent.parent
LIBRARIES = sorted((ROOT / "pixelkernels").glob("_*.so"))
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
needs_binutils = pytest.mark.skipif(not shutil.which("readelf"), reason="needs binutils")
# the fixture builds, so that one process alone runs them
pytestmark = pytest.mark.xdist_group("wheels")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("sdist")
    return build.build_sdist(sys.executable, build.copy_sources(folder / "copy"), folder / "dist")


@pytest.fixture(scope="module")
def pure(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from a source tree in which a developer's libraries lie."""
    folder = tmp_path_factory.mktemp("pure")
    source = build.unpack(sdist, folder / "source")
    for name in ("_cuda.so", "_C.cpython-39-x86_64-linux-gnu.so"):
        (source / "pixelkernels" / name).write_bytes(b"")
    return build.build_wheel("pure", sys.executable, source, folder / "dist")


def test_the_sdist_is_what_a_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        info = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO").read().decode()
    needed = {"setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"}
    for pattern in ("csrc/**/*.*", "pixelkernels/**/*.py", "pixelkernels/py.typed"):
        needed |= {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
    assert needed <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "build"))]
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]
    version = re.search(r"^Version: (.+)", info, re.M)[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), "a local version belongs to a wheel"


@needs_binutils
def test_the_pure_wheel_is_for_every_python_and_passes_the_audit(pure):
    assert re.fullmatch(r"pixelkernels-\d+\.\d+\.\d+-py3-none-any\.whl", pure.name)
    assert audit.complaints(pure) == []
    with zipfile.ZipFile(pure) as archive:
        packaged = {name for name in archive.namelist() if name.startswith("pixelkernels/")}
        folder = f"pixelkernels-{pure.name.split('-')[1]}.dist-info"
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    modules = (path.relative_to(ROOT) for path in (ROOT / "pixelkernels").rglob("*.py"))
    assert packaged == {*map(str, modules), "pixelkernels/py.typed"}


def test_the_local_version_is_the_wheels_alone(sdist, tmp_path, monkeypatch):
    settings = build.settings
    monkeypatch.setattr(build, "settings", lambda kind, python: settings("pure", python))
    source = build.unpack(sdist, tmp_path / "source")
    wheel = build.build_wheel("none", sys.executable, source, tmp_path / "dist")
    version = sdist.name.removesuffix(".tar.gz") + "+cpu"
    assert wheel.name == f"{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{version}.dist-info/METADATA").decode()
    assert "\nVersion: " + version.partition("-")[2] in metadata
    # nothing was compiled, which its name denies
    assert audit.complaints(wheel) == [
        "has no library, its name promises _C",
        "is tagged py3 and any",
    ]


def test_a_wheel_is_compiled_against_the_oldest_torch_it_asks_for():
    asked = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    target = re.search(r'^TORCH_TARGET = "(.+)"', (ROOT / "setup.py").read_text(), re.M)[1]
    assert asked == target
    assert f"{target}.0" == build.TORCH


@pytest.mark.parametrize(
    ("kind", "local"), [("13.0", "cu130"), ("12.8", "cu128"), ("none", "cpu"), ("pure", "")]
)
def test_the_local_version_is_read_as_it_is_written(kind, local):
    version = "1.2.3" + build.local_version(kind)
    assert audit.local_version(f"pixelkernels-{version}-cp311-cp311-linux_x86_64.whl") == local


def test_no_setting_for_other_builds_changes_a_wheel(monkeypatch, tmp_path):
    for name in ("PIXELKERNELS_CUDA", "TORCH_CUDA_ARCH_LIST", "CXXFLAGS", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(build, "torch", lambda python: tmp_path)
    found = build.settings("none", Path(sys.executable))
    assert found["PIXELKERNELS_CUDA"] == "0"
    assert found["PYTHONPATH"] == str(tmp_path)
    assert not {"TORCH_CUDA_ARCH_LIST", "CXXFLAGS"} & set(found)


def test_the_toolkit_is_the_one_of_the_release_asked_for(monkeypatch, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    asked = []

    def pip(*arguments: object) -> None:
        asked.append(arguments[-1])
        (tmp_path / "cuda-12.9").mkdir()

    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(build, "WORK", tmp_path)
    monkeypatch.setattr(build, "pip", pip)
    assert build.toolkit("12.8", Path(sys.executable)) == {"CUDA_HOME": str(tmp_path)}
    assert asked == []
    with pytest.raises(SystemExit, match=r"CUDA 12.9 .*no nvcc"):
        build.toolkit("12.9", Path(sys.executable))
    assert asked == [f"{build.TOOLKIT}==12.9.*"]


@needs_binutils
@pytest.mark.skipif(not LIBRARIES, reason="needs the compiled libraries")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_the_libraries_need_torch_and_the_system_alone(library):
    # a developer's build finds its torch by a run path, which a wheel must not have
    found = [line for line in audit.library_complaints(library) if "run path" not in line]
    assert found == []


@needs_compiler
@needs_binutils
def test_the_audit_sees_what_a_library_must_not_need(pure, tmp_path):
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


def test_the_index_has_a_page_for_each_local_version(tmp_path):
    names = ["0.2.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl", "0.2.0.tar.gz"]
    assets = [
        {
            "name": f"pixelkernels-{name}",
            "browser_download_url": f"https://host/v0.2.0/{name.replace('+', '%2B')}",
            "digest": "sha256:12ab",
        }
        for name in names
    ]
    draft = {"draft": True, "assets": [{**assets[0], "name": "pixelkernels-9+cu999-a-b-c.whl"}]}
    index.write(tmp_path, [draft, {"draft": False, "assets": [*assets, {"name": "notes.txt"}]}])
    pages = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*.html")}
    assert set(pages) == {"index.html"} | {
        f"{local}/{page}"
        for local in ("cu130", "pure")
        for page in ("index.html", "pixelkernels/index.html")
    }
    assert (
        '<a href="https://host/v0.2.0/0.2.0%2Bcu130-cp311-cp311-manylinux_2_28_x86_64.whl'
        f'#sha256=12ab">pixelkernels-{names[0]}</a>'
    ) in pages["cu130/pixelkernels/index.html"]
    assert "tar.gz" in pages["pure/pixelkernels/index.html"]
    assert 'href="pixelkernels/"' in pages["cu130/index.html"]


def test_the_smoke_of_an_installed_wheel_passes_here():
    compared = smoke.check_operations()
    if LIBRARIES:
        assert all("cpu" in backends for backends in compared.values())
    smoke.check_arrays()


def test_the_workflows_and_readme_name_targets_that_there_are():
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
    of_ci = re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(), re.M)
    assert of_ci == steps.split(", ")
