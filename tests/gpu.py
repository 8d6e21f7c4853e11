"""`pytest -p tests.gpu`: the tests of the GPU backends alone, with failures written as they happen.

An illegal access breaks the CUDA context of its process for good. The worker then ends, so that
xdist replaces it, after it has written the failure to the file that GPU_FAILURES names.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from tests.helpers import keep_backends


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    keep_backends(config, items, "triton", "cuda")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    broken = context_error()
    if report.failed or broken:
        with Path(os.environ["GPU_FAILURES"]).open("a") as file:
            file.write(f"==== {item.nodeid}, {call.when}\n{report.longreprtext}\n{broken}\n")
    if broken:
        os._exit(1)
    return report


def context_error() -> str:
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return f"the CUDA context is broken: {error}"
    return ""
