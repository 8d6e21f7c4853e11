"""Swapping a project's functions for these, and back."""

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
    """What `patch` has swapped; `undo()` or leaving a `with` block puts it back."""

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
    """Swap a project's functions for those of `pixelkernels.compat.<project>`, also in those of its
    loaded modules that have imported them by name.

    Args:
        project: a module of `pixelkernels.compat` that says what it replaces.
        names: of the project's functions that are to be replaced; none for all.
        package: the project's package, where it is not the usual one: RITM's code is `isegm`, in
            Cutie it is `gui.ritm`.

    Raises ValueError for another project or name, and ImportError or AttributeError, with nothing
    swapped, where the project does not have what would be replaced.
    """
    if project not in PROJECTS:
        raise ValueError(f"project: expected one of {', '.join(PROJECTS)}, got {project!r}")
    ours = importlib.import_module(f"pixelkernels.compat.{project}")
    root = package or ours.PACKAGE
    places = {place.partition(":")[2]: place for place in ours.REPLACES}
    found = []
    for name in names or places:
        if name not in places:
            raise ValueError(f"names: expected some of {', '.join(places)}, got {name!r}")
        module = places[name].partition(":")[0]
        owner, last = _owner(f"{root}.{module}" if module else root, name)
        found.append((owner, last, ours.REPLACES[places[name]]))
    patched = Patch()
    for owner, name, value in found:
        original = vars(owner)[name]
        patched.swap(owner, name, value)
        if isinstance(owner, ModuleType):
            for other, alias in _importers(root, original):
                patched.swap(other, alias, value)
    return patched


def _owner(module: str, name: str) -> tuple[Any, str]:
    """What has the attribute, a module or a class, and the attribute's own name."""
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
    """The loaded modules of a package that know an object by name, and the name."""
    return [
        (module, alias)
        for key, module in list(sys.modules.items())
        if module is not None and (key == root or key.startswith(f"{root}."))
        for alias, value in list(vars(module).items())
        if value is original
    ]
