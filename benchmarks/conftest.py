"""Options of `pytest benchmarks/`."""

from __future__ import annotations

import pytest
import torch

from benchmarks import environment


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pixelkernels")
    group.addoption("--all-workloads", action="store_true", help="not only the quick ones")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch sees no GPU")


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, object]
) -> None:
    machine_info["pixelkernels"] = environment.describe(config.getoption("--device"))
