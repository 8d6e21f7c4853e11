"""The file by which `make lint` checks what users' type checkers see leaves out no public name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pixelkernels
from pixelkernels import compat, numpy

models = pytest.importorskip("pixelkernels.models", exc_type=ModuleNotFoundError)
CASE = Path(__file__).parent / "typing_case.py"
MODULES = {"pk": pixelkernels, "models": models, "arrays": numpy, "compat": compat}


@pytest.mark.parametrize("alias", MODULES)
def test_every_public_name_is_checked(alias):
    used = set(re.findall(rf"\b{alias}\.(\w+)", CASE.read_text()))
    assert set(MODULES[alias].__all__) <= used


def test_the_package_says_that_it_is_typed():
    assert (Path(pixelkernels.__file__).parent / "py.typed").exists()
