"""Replacement of a project's functions, and its reversal."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, TracebackType
from typing import Any

PROJECTS = (
    "cfbi",
    "dino",
    "discriminative",
    "docs_correlation",
    "feelvos",
    "hdmnet",
    "kornia",
    "metavos",
    "monai",
    "panet",
    "persam",
    "pfenet",
    "ritm",
    "sam2",
    "sccan",
    "scipy",
    "spoco",
)


class Patch:
    """The replacements made by `patch`. `undo()`, or leaving a `with` block, reverts them."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, str, Any]] = []

    def swap(self, owner: Any, name: str, value: Any) -> None:
        self._saved.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        while self._saved:
            owner, name, value = self._saved.pop()
            setattr(owner, name, value)

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()


def patch(project: str, *names: str, package: str | None = None) -> Patch:
    """Replace a project's functions by those of `pixelkernels.compat.<project>`, also in its loaded
    modules that imported them by name.

    Args:
        project: a module of `pixelkernels.compat` that defines `REPLACES`.
        names: the functions to replace; none means all.
        package: the project's package, if it is not the usual one: RITM's code is `isegm`, and
            `gui.ritm` in Cutie.

    Raises ValueError for an unknown project or name. Raises ImportError or AttributeError, and
    replaces nothing, if the project lacks a function to replace.
    """
    if project not in PROJECTS:
        raise ValueError(f"project: expected one of {', '.join(PROJECTS)}, got {project!r}")
    ours = importlib.import_module(f"pixelkernels.compat.{project}")
    root = package or ours.PACKAGE
    targets = {target.partition(":")[2]: target for target in ours.REPLACES}
    replacements = []
    for name in names or targets:
        if name not in targets:
            raise ValueError(f"names: expected some of {', '.join(targets)}, got {name!r}")
        module = targets[name].partition(":")[0]
        owner, last = _owner(f"{root}.{module}" if module else root, name)
        replacements.append((owner, last, ours.REPLACES[targets[name]]))
    patched = Patch()
    for owner, name, value in replacements:
        original = vars(owner)[name]
        patched.swap(owner, name, value)
        if isinstance(owner, ModuleType):
            for other, alias in _importers(root, original):
                patched.swap(other, alias, value)
    return patched


def _owner(module: str, name: str) -> tuple[Any, str]:
    """The module or class that has the attribute, and the attribute's name in it."""
    try:
        owner: Any = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"patch: there is no module {module} to patch: {error}") from error
    *classes, last = name.split(".")
    for step in (*classes, last):
        if step not in vars(owner):
            raise AttributeError(f"patch: {module} has no {name}")
        if step in classes:
            owner = vars(owner)[step]
    return owner, last


def _importers(root: str, original: Any) -> list[tuple[ModuleType, str]]:
    """The loaded modules of a package that bind an object, and the name they bind it to."""
    return [
        (module, alias)
        for key, module in list(sys.modules.items())
        if module is not None and (key == root or key.startswith(f"{root}."))
        for alias, value in list(vars(module).items())
        if value is original
    ]
