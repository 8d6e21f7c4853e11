"""Import hygiene, each case in a fresh process."""

from __future__ import annotations

import ast
import importlib
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_python

PACKAGE = ROOT / "pixelkernels"


def test_import_neither_loads_triton_nor_starts_cuda():
    code = """
import sys, torch, pixelkernels
assert "triton" not in sys.modules, "triton was imported"
assert not torch.cuda.is_initialized(), "CUDA was initialised"
for optional in ("skimage", "PIL", "scipy", "torchvision", "torchmetrics", "matplotlib"):
    assert optional not in sys.modules, optional
"""
    run_python(code)


def test_works_without_triton_and_without_the_extension():
    code = """
import sys
sys.modules["triton"] = None
sys.modules["pixelkernels._C"] = None
import torch, pixelkernels as pk
f, labels = torch.randn(1, 2, 4, 4, requires_grad=True), torch.zeros(1, 4, 4, dtype=torch.int64)
pk.cas_loss(f, labels, 2).backward()
assert pk.available_backends() == ("eager",), pk.available_backends()
try:
    pk.cas_loss(f, labels, 2, backend="cpu")
except pk.BackendUnavailable as error:
    assert "_C" in str(error), error
"""
    run_python(code)


def test_first_call_may_be_compiled():
    code = """
import torch, pixelkernels as pk
f, labels = torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
loss = torch.compile(pk.cas_loss, fullgraph=True, backend="aot_eager")(f, labels, 2)
assert torch.equal(loss, pk.cas_loss(f, labels, 2))
"""
    run_python(code)


def imports(path: Path) -> set[str]:
    """What a file imports when it is loaded, relative imports resolved inside the package."""
    found = set()
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


APART = ("models", "compat")
FAMILIES = {p.name for p in PACKAGE.iterdir() if (p / "ops.py").exists()}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_who_may_import_whom(path):
    own = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        parts = name.split(".")
        other = parts[1] if parts[0] == "pixelkernels" and len(parts) > 1 else own
        if own in FAMILIES:
            assert other not in {*FAMILIES, *APART} - {own}, name
        if own == "models" and other != "models" and parts[1:3] != ["_core", "named_tuples"]:
            assert other in FAMILIES, name
            family = importlib.import_module(f"pixelkernels.{other}")
            assert parts[2] in family.__all__, f"{name} is not public"
        if other == "models":
            assert own in ("models", "compat"), name
        if not any(
            part.lstrip("_").startswith("triton") for part in path.relative_to(PACKAGE).parts
        ):
            assert parts[0] != "triton", f"{path} imports triton when it is loaded"
        if path.name in ("ops.py", "reference.py"):
            assert parts[0] in {"torch", "pixelkernels", *sys.stdlib_module_names}, name


def test_no_import_circle():
    """Modules can be sorted so that each comes after all that it imports when it is loaded."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = imports(path)
        # `from package import name` imports the package where the name is no module of it
        graph[module] = {
            found
            for name in names
            if (found := name if name in modules else name.rpartition(".")[0]) in modules
        }
    TopologicalSorter(graph).prepare()
