"""The examples in the docstrings of public functions and modules run and print what they say."""

from __future__ import annotations

import doctest

import pytest
import torch

import pixelkernels as pk

# use_backend and explain show a call of the caller's own
NAMES = [
    name
    for name in pk.__all__
    if name in pk._core.dispatch.IMPLEMENTED
    or (isinstance(getattr(pk, name), type) and issubclass(getattr(pk, name), torch.nn.Module))
]


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name: str) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(
        getattr(pk, name), name, globs={"pk": pk, "torch": torch}
    )
    assert test.examples, "no example"
    report: list[str] = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)
