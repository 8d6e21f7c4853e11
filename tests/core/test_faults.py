"""Broken surroundings: each case gives the right result, or an error that says what is wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import pixelkernels as pk
from pixelkernels._core import extension
from tests.helpers import run_python

PACKAGE = Path(extension.__file__).parents[1]
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
needs_library = pytest.mark.skipif(extension._C is None, reason="needs the compiled library")

# the backend that serves, compared with eager
WORKS = """
import numpy as np, torch, pixelkernels as pk, pixelkernels.numpy as pkn
from pixelkernels import testing
from pixelkernels._core import extension, info
f, labels = testing.features(2, 5, 60, 70), testing.random_labels(2, 60, 70, low=-1, high=7)
found, eager = (pk.region_stats(f, labels, 7, backend=name) for name in (None, "eager"))
torch.testing.assert_close(found.mean, eager.mean)
torch.testing.assert_close(found.variance, eager.variance)
mask = labels == 0
distance = pk.distance_transform(mask)
assert torch.equal(distance, pk.distance_transform(mask, backend="eager"))

def says_why(backend):
    "`info`, `explain`, `available_backends` and the error of a call give the same reason."
    (reason,) = info.collect()["backends"][backend]
    assert backend not in pk.available_backends()
    assert reason in pk.explain("region_stats", f, labels, 7)[backend]
    try:
        pk.region_stats(f, labels, 7, backend=backend)
    except pk.BackendUnavailable as error:
        assert reason in str(error), error
    else:
        raise AssertionError(f"{backend} served")
    print("why:", reason)
"""


def reasons(out: str) -> list[str]:
    return [line[5:] for line in out.splitlines() if line.startswith("why: ")]


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A copy of the package for a test to break, without the CUDA library."""

    def left_out(_: str, names: list[str]) -> list[str]:
        return [name for name in names if name in ("__pycache__", "_cuda.so", "compat")]

    shutil.copytree(PACKAGE, tmp_path / "pixelkernels", ignore=left_out)
    return tmp_path


def library(path: Path, source: str, *options: str) -> None:
    (path.parent / "one.cpp").write_text(source)
    command = ["g++", "-shared", "-fPIC", path.parent / "one.cpp", "-o", path, *options]
    subprocess.run(command, check=True, capture_output=True)


# ---- the CUDA library ----


@needs_compiler
def test_reason_why_a_cuda_library_does_not_load(installation):
    (installation / "cut short").write_bytes(b"\x7fELF")
    runtime = installation / "libcudart.so.99"
    library(runtime, "void f() {}", "-Wl,-soname,libcudart.so.99")
    library(installation / "of another CUDA", "", "-Wl,--no-as-needed", str(runtime))
    runtime.unlink()
    library(
        installation / "of another torch", 'extern "C" void torch_of_99(); auto f = torch_of_99;'
    )
    said = run_python(
        'import shutil, torch; torch.version.cuda = "13.0"\n'
        + WORKS
        + """
for kind in ("cut short", "of another CUDA", "of another torch"):
    shutil.copy(kind, "pixelkernels/_cuda.so")
    extension.REASONS["cuda"] = extension._load_cuda()
    pk.available_backends()
    reason = info.collect()["backends"]["cuda"][0]
    assert reason in pk.explain("region_stats", f, labels, 7)["cuda"]
    print("why:", reason)
""",
        installation,
    )
    short, other_cuda, other_torch = reasons(said)
    start = f"_cuda.so did not load under torch {torch.__version__}: "
    assert all(reason.startswith(start) for reason in (short, other_cuda, other_torch))
    assert "file too short" in short
    assert "libcudart.so.99: cannot open shared object file" in other_cuda
    assert "undefined symbol: torch_of_99" in other_torch


@pytest.mark.slow
def test_reason_under_a_torch_without_cuda(installation):
    (installation / "pixelkernels" / "_cuda.so").write_bytes(b"never looked at")
    code = "import torch; torch.version.cuda = None\n" + WORKS
    out = run_python(code + "print(info.text(info.collect()))", installation)
    assert f"torch {torch.__version__} is a build without CUDA" in out
    assert "did not load" not in out


# A library built with CUDA 13 loads under a torch of CUDA 12, because it contains its runtime. It
# needs a driver of its own major version, or a newer one.
OTHER_MAJOR = """
import types, torch, pixelkernels as pk
from pixelkernels._core import dispatch, extension, info
torch.version.cuda = "12.8"
extension.BUILD["cuda"] = "13.0"
extension.CUDA_ARCHITECTURES[:] = ["8.0", "9.0"]
extension.REASONS["cuda"] = ""
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
properties = types.SimpleNamespace(name="a GPU", major=9, minor=0)
torch.cuda.get_device_properties = lambda index: properties

class OnGPU(torch.Tensor):
    device = torch.device("cuda", 0)

f, labels = (torch.zeros(shape).as_subclass(OnGPU) for shape in ((1, 2, 3, 4), (1, 3, 4)))
for driver in (11000, 12080, 13000, 14010):
    torch._C._cuda_getDriverVersion = lambda: driver
    extension.driver_cuda.cache_clear()
    reasons = pk.explain("region_stats", f, labels)["cuda"]
    assert reasons == dispatch.machine_reasons("cuda"), (reasons, driver)
    assert ("cuda" in pk.available_backends()) == (not reasons)
    facts = info.collect()
    assert facts["backends"]["cuda"] == reasons
    print("why:", facts["versions"]["the driver's CUDA"], *reasons)
"""


@pytest.mark.slow
def test_reason_for_a_driver_older_than_the_cuda_library():
    older, old, same, newer = reasons(run_python(OTHER_MAJOR))
    for reason, driver in ((older, "11.0"), (old, "12.8")):
        assert reason.startswith(
            f"{driver} the CUDA library was built with CUDA 13.0 (torch with 12.8), the driver "
            f"runs CUDA up to {driver}: a newer driver is needed"
        )
    assert (same, newer) == ("13.0", "14.1")


def test_reason_without_a_driver():
    # the CUDA library loads, because it looks for the driver at its first use
    out = run_python(WORKS + "print(info.text(info.collect()))", CUDA_VISIBLE_DEVICES="")
    assert "torch sees no GPU" in out
    if not torch.cuda.is_available():
        assert "the driver's CUDA  no driver" in out


# ---- the CPU library ----

SAYS_NO_CPU = """
says_why("cpu")
try:
    pkn.distance_transform(mask.numpy())
except pk.BackendUnavailable as error:
    assert "pixelkernels._C" in str(error), error
else:
    raise AssertionError("served without the library")
"""


@needs_library
@needs_compiler
def test_reason_why_a_cpu_library_does_not_load(installation):
    (path,) = (installation / "pixelkernels").glob("_C*.so")
    library(path, 'extern "C" void torch_of_99(); auto f = torch_of_99;')
    (reason,) = reasons(run_python(WORKS + SAYS_NO_CPU, installation))
    assert f"pixelkernels._C did not load under torch {torch.__version__}: " in reason
    assert "undefined symbol: torch_of_99" in reason


@needs_library
def test_reason_without_a_cpu_library(installation):
    (path,) = (installation / "pixelkernels").glob("_C*.so")
    path.unlink()
    (reason,) = reasons(run_python(WORKS + SAYS_NO_CPU, installation))
    assert reason.startswith("not built: there is no compiled pixelkernels._C")


# ---- Triton's cache and its compilers ----

# a launch on a GPU begins with compilation
LAUNCH = """
import os, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import pixelkernels as pk
from pixelkernels._core.triton import launch
from a_kernel import kernel

def compiled(self, *args, **options):
    source = ASTSource(fn=self, signature={"p": "*fp32"}, constexprs={})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32))

triton.runtime.JITFunction.run = compiled
try:
    launch(kernel, 1, torch.zeros(1), torch.zeros(1))
except pk.BackendUnavailable as error:
    print("why:", error)
os.environ["TRITON_CACHE_DIR"] = "cache"
launch(kernel, 1, torch.zeros(1), torch.zeros(1))
print("compiled", sum(len(files) for _, _, files in os.walk("cache")))
"""
KERNEL = """
import triton, triton.language as tl

@triton.jit
def kernel(p):
    tl.store(p, 1.0)
"""


@pytest.fixture
def unwritable(tmp_path: Path) -> str:
    """A path where not even root can create a folder."""
    (tmp_path / "a file").touch()
    return str(tmp_path / "a file" / "cache")


@pytest.mark.slow
def test_reason_for_an_unwritable_cache_of_triton(tmp_path, unwritable):
    pytest.importorskip("triton")
    (tmp_path / "a_kernel.py").write_text(KERNEL)
    out = run_python(LAUNCH, tmp_path, TRITON_INTERPRET="0", TRITON_CACHE_DIR=unwritable)
    (why,) = reasons(out)
    assert "backend 'triton' cannot compile its kernels: NotADirectoryError" in why
    assert unwritable in why
    assert "TRITON_CACHE_DIR" in why
    assert int(out.split()[-1]) > 0


class Fails:
    """A kernel whose launch raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, grid: object) -> object:
        raise self.error


def test_launch_translates_only_the_errors_of_a_missing_compiler():
    launch = pytest.importorskip("pixelkernels._core.triton").launch
    with pytest.raises(pk.BackendUnavailable, match=r"Failed to find C compiler.*\(CC\)"):
        launch(Fails(RuntimeError("Failed to find C compiler.")), 1, torch.zeros(1))
    with pytest.raises(pk.BackendUnavailable, match=r"returned non-zero exit status 1.*\(CC\)"):
        launch(Fails(subprocess.CalledProcessError(1, ["gcc"])), 1, torch.zeros(1))
    for error in (RuntimeError("CUDA error: out of memory"), ValueError("one")):
        with pytest.raises(type(error), match=str(error)) as found:
            launch(Fails(error), 1, torch.zeros(1))
        assert found.value is error


@pytest.mark.slow
@needs_library
def test_works_without_compiler_and_cache_at_run_time(tmp_path, unwritable):
    """With Triton's interpreter, which compiles nothing."""
    pytest.importorskip("triton")
    code = """
assert "cpu" in pk.available_backends()
assert np.array_equal(pkn.distance_transform(mask.numpy()), distance.numpy())
few, f = labels[:, :6, :7], f[:, :2, :6, :7]
found, eager = (pk.region_stats(f, few, 7, backend=name) for name in ("triton", "eager"))
torch.testing.assert_close(found.mean, eager.mean)
"""
    (tmp_path / "empty").mkdir()
    run_python(
        WORKS + code,
        PATH=str(tmp_path / "empty"),
        CC="",
        CXX="",
        TRITON_INTERPRET="1",
        TRITON_CACHE_DIR=unwritable,
    )


def test_error_of_a_failed_allocation_has_the_shape():
    with pytest.raises(RuntimeError, match=r"cannot allocate a tensor of shape \[1000000, 1, 2"):
        pk.sample_pixels(torch.ones(1, 1, 1, dtype=torch.bool).expand(10**6, 1, 1), 2**31 - 2)
