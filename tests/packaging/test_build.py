"""The compiled libraries: only the stable ABI, every architecture, loadable without a GPU; and what
a build that lacks something says.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.cpp_extension import include_paths

import build_backend
from pixelkernels._core import extension
from tests.cuda_on_cpu.build import TARGET
from tests.helpers import ROOT

CSRC = ROOT / "csrc"
SOURCES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh"))
LIBRARIES = sorted((ROOT / "pixelkernels").glob("_*.so"))
needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(CSRC)))
def test_sources_include_the_stable_abi_alone(source):
    for header in re.findall(r'#include\s*[<"]([^>"]+)', source.read_text()):
        unstable = header.startswith(("ATen/", "c10/", "torch/")) and not header.startswith(
            ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/")
        )
        assert not unstable, f"{source} includes {header}"


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_libraries_need_no_symbol_outside_the_stable_abi(library):
    symbols = subprocess.check_output(["nm", "-D", "--undefined-only", "-C", library], text=True)
    unstable = [
        line for line in symbols.splitlines() if re.search(r"\b(at|c10|torch|caffe2)::", line)
    ]
    assert unstable == []


def test_kernels_of_an_instruction_set_stay_in_its_namespace():
    # the linker keeps one copy of a weak function: outside a namespace of its instruction set, that
    # copy could run on a machine without the set
    objects = sorted((ROOT / "build").glob("csrc/*/*/*.cpp.a[vm]x*.o"))
    if not objects:
        pytest.skip("no object files: the extension was not built from this checkout")
    for path in objects:
        capability = path.name.split(".")[-2]
        symbols = subprocess.check_output(["nm", "-C", "--defined-only", path], text=True)
        weak = [line for line in symbols.splitlines() if re.match(r"\S+ [WV] ", line)]
        own = re.compile(rf"pixelkernels::(\w+::)?{capability}::")
        assert [line for line in weak if not own.search(line)] == []


def test_cpu_library_is_built_and_loads():
    assert LIBRARIES
    assert extension.REASONS["cpu"] == ""


@needs_nvcc
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a torch with CUDA")
def test_cuda_library_loads_without_a_gpu():
    assert extension.REASONS["cuda"] == ""
    assert extension.BUILD["cuda"]


HOOKS = [
    build_backend.get_requires_for_build_wheel,
    build_backend.get_requires_for_build_editable,
    lambda: build_backend.prepare_metadata_for_build_wheel("metadata"),
    lambda: build_backend.prepare_metadata_for_build_editable("metadata"),
]


def program(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_missing_packages_of_a_build_are_named_in_one_sentence(tmp_path):
    old = tmp_path / "setuptools-65.5.0.dist-info" / "METADATA"
    old.parent.mkdir()
    old.write_text("Metadata-Version: 2.1\nName: setuptools\nVersion: 65.5.0\n")
    done = subprocess.run(
        # without the packages of this environment
        [sys.executable, "-S", "-c", "import build_backend"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    needed = "setuptools>=77, ninja, pybind11>=2.13"
    assert done.stderr.startswith(f"pixelkernels: the build needs {needed}, which this environment")
    assert "`pip install 'setuptools>=77' ninja 'pybind11>=2.13'`" in done.stderr


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("compiler", [None, "g++-of-nobody"])
def test_missing_compiler_is_named_in_one_sentence(hook, compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    with pytest.raises(SystemExit, match=r"no C\+\+ compiler.*PIXELKERNELS_EXTENSION=0") as error:
        hook()
    assert "\n" not in str(error.value)
    assert (compiler or "g++ on PATH") in str(error.value)


@pytest.mark.parametrize("hook", HOOKS)
def test_missing_headers_of_python_are_named_in_one_sentence(hook, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SystemExit, match=r"Python\.h: install .*python3-dev") as error:
        hook()
    assert "\n" not in str(error.value)


def test_installation_without_libraries_needs_neither_compiler_nor_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("PIXELKERNELS_EXTENSION", "0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build_backend, "find_torch", lambda: None)
    assert build_backend.get_requires_for_build_wheel() == []
    build_backend.require_all()


def test_torch_of_the_environment_serves_an_isolated_build(monkeypatch):
    monkeypatch.setattr(build_backend, "require_compiler", lambda: None)
    # as pip isolates: the same Python, without the packages of its environment
    monkeypatch.setattr(sys, "path", [sysconfig.get_path("stdlib")])
    assert build_backend.find_torch()[1] == torch.__version__
    assert build_backend.get_requires_for_build_wheel() == []


@pytest.mark.parametrize("version", [None, "2.9.1", "1.13.0+cpu"])
def test_build_requires_torch_where_there_is_none_or_an_old_one(version, monkeypatch, tmp_path):
    if version:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").touch()
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")
    monkeypatch.setattr(build_backend, "require_compiler", lambda: None)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert build_backend.get_requires_for_build_wheel() == ["torch>=2.10"]
    with pytest.raises(SystemExit, match=r"the build needs torch>=2\.10, which"):
        build_backend.require_all()


def test_error_of_the_compiler_ends_the_build_without_a_traceback(tmp_path):
    compiler = program(tmp_path / "c++", "echo 'a.cpp:1: error: broken' >&2; exit 1")
    folders = ["--build-lib", tmp_path / "lib", "--build-temp", tmp_path / "temp"]
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build", *folders],
        cwd=ROOT,
        env={**os.environ, "CXX": str(compiler), "PIXELKERNELS_CUDA": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "a.cpp:1: error: broken" in done.stdout
    assert "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("pixelkernels: the build ended with the error")


@pytest.mark.parametrize(
    ("answer", "expected"), [("echo 8.9; echo 12.0", "8.9"), ("exit 9", "9.0"), (None, "9.0")]
)
def test_developers_compile_for_their_first_gpu(answer, expected, monkeypatch, tmp_path):
    setup = importlib.import_module("setup")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if answer:
        program(tmp_path / "nvidia-smi", answer)
    assert setup.cuda_architectures("nvcc", developer=True) == [expected]


@pytest.mark.slow
@needs_nvcc
def test_cuda_assembles_without_spills_for_every_architecture(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    setup = importlib.import_module("setup")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    architectures = setup.cuda_architectures(shutil.which("nvcc"), developer=False)
    assert "9.0" in architectures
    assert any("+PTX" in name for name in architectures)
    # the relatives of these differ in their shared memory
    architectures = [name for name in architectures if setup.number(name) in ("80", "90", "120")]
    assert len(architectures) == 3
    include = [f"-isystem={path}" for path in include_paths()]

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    # PTX of the oldest is what every newer one assembles, and none has code of its own
    def to_ptx(source):
        ptx = tmp_path / f"{source.parent.parent.name}.{source.stem}.ptx"
        options = ("-std=c++17", "-O3", "--expt-relaxed-constexpr", *TARGET.split())
        run(
            "nvcc",
            *options,
            *include,
            f"-I{CSRC}",
            "-arch=compute_80",
            "-ptx",
            source,
            "-o",
            ptx,
        )
        return ptx

    def assemble(job):
        ptx, name = job
        code = f"sm_{setup.number(name)}"
        report = run(
            "ptxas", "-v", f"-arch={code}", ptx, "-o", tmp_path / f"{ptx.stem}.{code}.cubin"
        )
        spilled = [line for line in report.splitlines() if re.search(r"[1-9]\d* bytes spill", line)]
        assert spilled == [], f"{ptx.stem} {code}"

    with ThreadPoolExecutor(2) as pool:
        ptxs = list(pool.map(to_ptx, CSRC.glob("*/cuda/*.cu")))
        assert ptxs
        list(pool.map(assemble, [(ptx, name) for ptx in ptxs for name in architectures]))
