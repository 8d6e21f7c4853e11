"""README and the pages of the site: their examples run, and they agree with the code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pixelkernels as pk
from pixelkernels import compat
from pixelkernels import numpy as arrays
from pixelkernels._core import dispatch
from pixelkernels.compat._patch import PROJECTS
from tests.helpers import ROOT

image = pytest.importorskip("matplotlib.image")
pytest.importorskip("scipy")
models = pytest.importorskip("pixelkernels.models", exc_type=ModuleNotFoundError)

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
# an example, and the text block that may follow it: what it prints
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.M | re.S)


def run_examples(page: str) -> None:
    scope: dict[str, object] = {}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        for code, expected in EXAMPLE.findall(page):
            printed = StringIO()
            with redirect_stdout(printed):
                exec(code, scope)
            if expected:
                assert printed.getvalue() == expected
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if EXAMPLE.search(page)])
def test_examples_of_a_page_run(name: str) -> None:
    run_examples(PAGES[name])


def test_examples_of_readme_run_and_print_what_it_says() -> None:
    assert EXAMPLE.search(README)
    run_examples(README)


def test_every_operation_has_an_example() -> None:
    operations = {name for name in pk.__all__ if name.islower()} - {"use_backend"}
    examples = "".join(code for page in PAGES.values() for code, _ in EXAMPLE.findall(page))
    assert {name for name in operations if f"pk.{name}(" not in examples} == set()


def test_every_page_is_in_the_navigation_once() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", PAGES["index.md"], re.M | re.S)
    entries = [line for line in "".join(trees).splitlines() if line and not line.startswith(":")]
    listed = [re.sub(r"^.*<(.+)>$", r"\1", entry) + ".md" for entry in entries]
    assert sorted(["index.md", *listed]) == sorted(PAGES)


DOCUMENTED = re.findall(r"^\.\. auto\w+:: (\S+)$", "\n".join(PAGES.values()), re.M)
DROP_INS = {
    path.stem: importlib.import_module(f"pixelkernels.compat.{path.stem}")
    for path in (ROOT / "pixelkernels" / "compat").glob("[a-z]*.py")
}


def test_reference_documents_exactly_the_public_names_once() -> None:
    modules = {"pixelkernels": pk, "pixelkernels.models": models, "pixelkernels.numpy": arrays}
    modules["pixelkernels.compat"] = compat
    public = {f"{where}.{name}" for where, module in modules.items() for name in module.__all__}
    # module docstrings, which describe what the functions of a page share
    public |= modules.keys() - {"pixelkernels"}
    public |= {f"pixelkernels.{name}" for name in ("regions", "distance", "similarity", "triplet")}
    public |= {f"pixelkernels.compat.{name}" for name in DROP_INS}
    assert len(DOCUMENTED) == len(set(DOCUMENTED))
    assert {name for name in DOCUMENTED if not is_drop_in(name)} == public


def is_drop_in(name: str) -> bool:
    return name.startswith("pixelkernels.compat.") and name.count(".") == 3


def test_reference_documents_every_drop_in_where_it_is_defined() -> None:
    documented = {name for name in DOCUMENTED if is_drop_in(name)}
    for name in documented:
        module, _, last = name.rpartition(".")
        assert getattr(importlib.import_module(module), last).__module__ == module, name
    replacements = {
        f"{value.__module__}.{value.__qualname__}"
        for module in DROP_INS.values()
        for value in getattr(module, "REPLACES", {}).values()
    }
    named = set(re.findall(r"pixelkernels\.compat\.\w+\.\w+", PAGES["drop-ins.md"]))
    assert replacements | named <= documented


@pytest.mark.parametrize("project", PROJECTS)
def test_every_drop_in_is_in_the_table_of_its_project(project: str) -> None:
    ours = importlib.import_module(f"pixelkernels.compat.{project}")
    rows = [line for line in PAGES["drop-ins.md"].splitlines() if f'`patch("{project}")`' in line]
    replaced = {row.split("|")[2].strip(" `"): row.split("|")[3].strip(" `") for row in rows}
    expected = {}
    for target, value in ours.REPLACES.items():
        module, _, name = target.partition(":")
        original = ".".join(filter(None, (ours.PACKAGE, module, name)))
        # methods cannot be imported
        is_method = "." in name
        expected[original] = "" if is_method else f"{value.__module__}.{value.__qualname__}"
    assert replaced == expected


FUNCTIONS = {
    name
    for name in pk.__all__
    if inspect.isfunction(getattr(pk, name))
    and "backend" in inspect.signature(getattr(pk, name)).parameters
}


def test_table_of_ops_and_backends_agrees_with_the_dispatcher() -> None:
    columns = ("eager", "cpu", "triton", "cuda")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|" + r" (yes|no) \|" * 4, PAGES["backends.md"], re.M)
    assert {name for name, *_ in rows} == FUNCTIONS
    for name, *cells in rows:
        available = dispatch.IMPLEMENTED.get(name, dispatch.BACKENDS)
        assert cells == ["yes" if column in available else "no" for column in columns], name


def test_every_environment_variable_is_documented() -> None:
    variable = re.compile(r"PIXELKERNELS_[A-Z]+(?:_[A-Z]+)*")
    sources = [
        ROOT / "setup.py",
        *ROOT.glob("pixelkernels/**/*.py"),
        *ROOT.glob("csrc/**/*.cpp"),
        *ROOT.glob("csrc/**/*.h"),
    ]
    used = {name for path in sources for name in variable.findall(path.read_text())}
    assert used <= set(variable.findall(PAGES["install.md"]))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pictures_are_up_to_date(tmp_path: Path) -> None:
    drawn = load(DOCS / "pictures.py").write(tmp_path)
    assert {path.name for path in drawn} == {path.name for path in (DOCS / "pictures").iterdir()}
    for path in drawn:
        old, new = (image.imread(p) for p in (DOCS / "pictures" / path.name, path))
        assert old.shape == new.shape, f"{path.name}: run docs/pictures.py"
        # rounding differs between machines
        assert abs(old - new).mean() < 0.02, f"{path.name}: run docs/pictures.py"


def test_docstrings_become_restructured_text() -> None:
    restructured = load(DOCS / "docstrings.py").restructured
    docstring = """The product <q, r> of `q_i` and [B, L*n] points, a|b:

    pixels = code[mask * 2]

Args:
    scale, shift: numbers,
        or tensors <= 1.
    k: `k_best`'s.

Returns:
    A scalar.
Memory: 8 bytes. Source: eq. 1_a.

Example:

    >>> pk.f(2 * 3)
"""
    assert restructured(docstring) == (
        r"""The product <q, r> of ``q_i`` and [B, L\*n] points, a\|b:

.. code-block:: none

    pixels = code[mask * 2]

:param scale: numbers, or tensors <= 1.
:param shift: numbers, or tensors <= 1.
:param k: ``k_best``\ 's.

**Returns**: A scalar.

**Memory**: 8 bytes. **Source**: eq. 1\_a.

**Example**:

.. code-block:: pycon

    >>> pk.f(2 * 3)"""
    )
