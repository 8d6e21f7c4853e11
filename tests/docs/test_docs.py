"""README and the pages of the site: their examples run, and they agree with the code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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
CODE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
SNIPPET = re.compile(r'^ *--8<-- "(.+?)(?::([\w-]+))?"$', re.M)


def own_examples(page: str) -> list[str]:
    """Without those that the page includes from README, which are tested there."""
    return [code for code in CODE.findall(page) if not SNIPPET.search(code)]


def run_examples(examples: list[str]) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        for code in examples:
            exec(code, scope)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    return scope


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if own_examples(page)])
def test_examples_of_a_page_run(name: str) -> None:
    run_examples(own_examples(PAGES[name]))


def test_examples_of_readme_run() -> None:
    scope = run_examples(CODE.findall(README))
    assert scope["features"].grad.isfinite().all()


def test_every_operation_has_an_example() -> None:
    operations = {name for name in pk.__all__ if name.islower()} - {"use_backend"}
    examples = "".join(code for page in PAGES.values() for code in own_examples(page))
    assert {name for name in operations if f"pk.{name}(" not in examples} == set()


def test_every_page_is_in_the_navigation() -> None:
    nav = re.search(r"^nav:\n(.*?)^\S", (ROOT / "mkdocs.yml").read_text(), re.M | re.S)
    assert nav
    listed = re.findall(r"\S+\.md", nav[1])
    assert sorted(listed) == sorted(PAGES)


def test_reference_pages_document_exactly_the_public_names() -> None:
    documented = re.findall(r"^::: (\S+)$", "\n".join(PAGES.values()), re.M)
    assert len(documented) == len(set(documented))
    modules = {"pixelkernels": pk, "pixelkernels.models": models, "pixelkernels.numpy": arrays}
    modules["pixelkernels.compat"] = compat
    public = {f"{where}.{name}" for where, module in modules.items() for name in module.__all__}
    # module docstrings, which describe what the functions of a page share
    public |= modules.keys() - {"pixelkernels"}
    public |= {f"pixelkernels.{name}" for name in ("regions", "distance", "similarity", "triplet")}
    public |= {
        f"pixelkernels.compat.{path.stem}"
        for path in (ROOT / "pixelkernels" / "compat").glob("[a-z]*.py")
    }
    assert set(documented) == public


def test_included_sections_exist() -> None:
    for page in PAGES.values():
        for file, section in SNIPPET.findall(page):
            text = (ROOT / file).read_text()
            if section:
                begin, end = (text.index(f"8<-- [{side}:{section}]") for side in ("start", "end"))
                assert begin < end


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


def test_table_of_ops_in_readme_agrees_with_the_dispatcher() -> None:
    columns = ("eager", "cpu", "triton", "cuda")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|" + r" (yes|no) \|" * 4, README, re.M)
    assert {name for name, *_ in rows} == FUNCTIONS
    for name, *cells in rows:
        available = dispatch.IMPLEMENTED.get(name, dispatch.BACKENDS)
        assert cells == ["yes" if column in available else "no" for column in columns], name


def test_every_environment_variable_is_in_readme() -> None:
    variable = re.compile(r"PIXELKERNELS_[A-Z]+(?:_[A-Z]+)*")
    sources = [
        ROOT / "setup.py",
        *ROOT.glob("pixelkernels/**/*.py"),
        *ROOT.glob("csrc/**/*.cpp"),
        *ROOT.glob("csrc/**/*.h"),
    ]
    used = {name for path in sources for name in variable.findall(path.read_text())}
    assert used <= set(variable.findall(README))


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


def test_docstrings_become_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("griffe") is None:
        griffe = ModuleType("griffe")
        griffe.Extension = griffe.Object = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "griffe", griffe)
    markdown = load(DOCS / "docstrings.py").markdown
    docstring = """The product <q, r> of `q_i` and [B, L*n] points.

    pixels = code[mask * 2]

Args:
    scale, shift: numbers,
        or tensors <= 1.
    k: `k_best`.

Returns:
    A scalar.
Memory: 8 bytes. Source: eq. 1.
"""
    assert markdown(docstring) == (
        r"""The product &lt;q, r&gt; of `q_i` and \[B, L\*n\] points.

    pixels = code[mask * 2]

Args:
    scale: numbers, or tensors &lt;= 1.
    shift: numbers, or tensors &lt;= 1.
    k: `k_best`.

**Returns**: A scalar.

**Memory**: 8 bytes. **Source**: eq. 1."""
    )
