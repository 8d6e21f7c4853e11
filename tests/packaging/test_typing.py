"""What type checkers tell a user: of the right calls of every public name in typing_case.py, which
`make lint` checks, and of the mistakes in typing_mistakes.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pixelkernels
from pixelkernels import compat, numpy
from tests.helpers import ROOT

models = pytest.importorskip("pixelkernels.models", exc_type=ModuleNotFoundError)
CASE = Path(__file__).with_name("typing_case.py")
MISTAKES = Path(__file__).with_name("typing_mistakes.py")
MODULES = {"pk": pixelkernels, "models": models, "arrays": numpy, "compat": compat}
BIN = Path(sys.executable).parent
CHECKERS = {
    "mypy": [BIN / "mypy"],
    "pyright": [BIN / "basedpyright", "--level", "error", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("alias", MODULES)
def test_every_public_name_is_type_checked(alias):
    used = set(re.findall(rf"\b{alias}\.(\w+)", CASE.read_text()))
    assert set(MODULES[alias].__all__) <= used


def test_package_is_marked_as_typed():
    assert (Path(pixelkernels.__file__).parent / "py.typed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers_find_every_mistake_of_a_user(checker):
    done = subprocess.run([*CHECKERS[checker], MISTAKES], cwd=ROOT, capture_output=True, text=True)
    reported = re.findall(rf"{MISTAKES.name}:(\d+)(?::\d+ -|:) error", done.stdout)
    lines = MISTAKES.read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# wrong" in line]
    assert sorted(set(map(int, reported))) == wrong, done.stdout
