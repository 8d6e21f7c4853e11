"""Memory that shows when it was never written, and the order of the suites."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests import cuda_on_cpu
from tests.helpers import DEVICES, INTERPRETED, keep_backends

# the same examples on every run and machine
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")

if INTERPRETED:
    from tests import triton_check

    triton_check.activate()

# of glibc's malloc.h
M_PERTURB = -6
# the longest come first, so that no worker is left alone with one of them at the end
LONGEST = ("test_triton_aot", "test_build")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A process that interprets Triton, or emulates CUDA, runs the tests of that backend alone."""
    if INTERPRETED or cuda_on_cpu.VARIANT:
        keep_backends(config, items, "triton" if INTERPRETED else "cuda")
    if INTERPRETED and not triton_check.INTERPRETS:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="Triton 3.6 interprets with NumPy before 2.4"))
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def device(backend: str) -> str:
    return DEVICES[backend]


@pytest.fixture(scope="session")
def emulator() -> cuda_on_cpu.Emulator | None:
    return cuda_on_cpu.Emulator() if cuda_on_cpu.VARIANT else None


@pytest.fixture(autouse=True)
def seeded_emulator(request: pytest.FixtureRequest, emulator: cuda_on_cpu.Emulator | None) -> None:
    if emulator:
        emulator.seed(request.node.nodeid)


def fill_malloc(byte: int) -> None:
    """Have glibc fill what malloc returns with the complement of a byte; 0 leaves it as it is."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_PERTURB, byte)


@pytest.fixture(autouse=True)
def poisoned_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fill new memory, so that an element that no kernel writes fails its test.

    Torch fills the memory of new tensors with NaN, on a CPU and on a GPU: every output and every
    scratch tensor. Where there is a GPU it only warns of operations without a deterministic form,
    because eager uses some of them there. glibc fills the rest, the outputs of the array functions
    and C++'s own workspaces, with bytes that are 3.4e38 in float32. The shared memory of a GPU is
    not covered.
    """
    if "keeps_memory" in request.keywords:
        yield
        return
    fill_malloc(0x80)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    fill_malloc(0)
