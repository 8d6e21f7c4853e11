"""Devices for the parametrised suites, and uninitialised memory that shows."""

from __future__ import annotations

import pytest
import torch

# backend -> the device its tests run on; Triton's interpreter has a process of its own
# (test_triton_interpreter.py)
DEVICES = {"eager": "cpu", "cpu": "cpu", "triton": "cuda", "cuda": "cuda"}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# the longest come first, so that no process of several is left alone with them
LONGEST = ("test_triton_aot", "test_triton_interpreter", "test_build")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.module.__name__ not in LONGEST)


def backends(*names: str) -> list[object]:
    """Parameters for `backend`: those on a GPU skip, saying so, where there is none."""
    return [
        pytest.param(name, marks=[needs_gpu] if DEVICES[name] == "cuda" else []) for name in names
    ]


@pytest.fixture
def device(backend: str) -> str:
    return DEVICES[backend]


@pytest.fixture(autouse=True)
def poisoned_memory(request: pytest.FixtureRequest) -> object:
    """Fill what `empty` returns with NaN, so that an element left unwritten fails a test."""
    if torch.cuda.is_available() or "keeps_memory" in request.keywords:
        yield
        return
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
