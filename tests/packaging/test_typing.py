"""typing_case.py, which `make lint` type-checks as a user's code, calls every public name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pixelkernels
from pixelkernels import compat, numpy

models = pytest.importorskip("pixelkernels.models", exc_type=ModuleNotFoundError)
CASE = Path(__file__).with_name("typing_case.py")
MODULES = {"pk": pixelkernels, "models": models, "arrays": numpy, "compat": compat}


@pytest.mark.parametrize("alias", MODULES)
def test_every_public_name_is_type_checked(alias):
    used = set(re.findall(rf"\b{alias}\.(\w+)", CASE.read_text()))
    assert set(MODULES[alias].__all__) <= used


def test_package_is_marked_as_typed():
    assert (Path(pixelkernels.__file__).parent / "py.typed").exists()
