"""The compiled libraries: only the stable ABI, every architecture, loadable without a GPU."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.cpp_extension import include_paths

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
