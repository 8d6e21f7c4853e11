"""README says what is so: its example runs, its tables are the code's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pixelkernels as pk
from pixelkernels._core import dispatch

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_examples_run():
    scope: dict = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(code, scope)
    assert scope["features"].grad.isfinite().all()


def test_the_table_of_ops_is_the_dispatchers():
    columns = ("eager", "cpu", "triton", "cuda")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|" + r" (yes|no) \|" * 4, README, re.M)
    assert rows
    for name, *cells in rows:
        available = dispatch.IMPLEMENTED.get(name, dispatch.BACKENDS)
        assert dict(zip(columns, cells, strict=True)) == {
            column: "yes" if column in available else "no" for column in columns
        }
    functions = {
        name
        for name in pk.__all__
        if inspect.isfunction(getattr(pk, name))
        and "backend" in inspect.signature(getattr(pk, name)).parameters
    }
    assert {name for name, *_ in rows} == functions


def test_every_environment_variable_is_documented():
    used = set()
    root = Path(__file__).parent.parent
    for path in [
        root / "setup.py",
        *root.glob("pixelkernels/**/*.py"),
        *root.glob("csrc/**/*.cpp"),
    ]:
        used |= set(re.findall(r"PIXELKERNELS_[A-Z]+(?:_[A-Z]+)*", path.read_text()))
    assert used <= set(re.findall(r"PIXELKERNELS_[A-Z]+(?:_[A-Z]+)*", README))
