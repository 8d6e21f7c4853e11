"""The kernels number metrics, transforms, reductions and encodings as Python lists them."""

from __future__ import annotations

import re

import pytest

from pixelkernels.distance.ops import ENCODINGS
from pixelkernels.similarity.ops import METRICS, REDUCES, TRANSFORMS
from tests.helpers import ROOT

CSRC = ROOT / "csrc"
SOURCES = {path: path.read_text() for path in CSRC.rglob("*.*") if path.is_file()}
PYTHON = {"Metric": METRICS, "Transform": TRANSFORMS, "Reduce": REDUCES, "Encoding": ENCODINGS}


def members(enumeration: str) -> list[list[str]]:
    """The names of the enumeration without their k, in lower case, for each of its definitions."""
    definition = re.compile(rf"\benum\s+class\s+{enumeration}\b[^{{;]*{{([^}}]*)}}")
    bodies = [body for text in SOURCES.values() for body in definition.findall(text)]
    uncommented = (re.sub(r"//.*|/\*.*?\*/", "", body) for body in bodies)
    return [
        [name.strip().removeprefix("k").lower() for name in body.split(",") if name.strip()]
        for body in uncommented
    ]


@pytest.mark.parametrize("enumeration", PYTHON)
def test_cpp_enumerations_are_those_of_python(enumeration):
    found = members(enumeration)
    assert found, f"no enum class {enumeration} below {CSRC}"
    expected = list(PYTHON[enumeration])
    for names in found:
        # one that only kernels use, such as Metric::kPrior, may follow
        assert names[: len(expected)] == expected
