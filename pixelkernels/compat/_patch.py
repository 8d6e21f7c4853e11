"""Replacement of a project's functions, and its reversal."""

from __future__ import annotations

import importlib
import inspect
import sys
from inspect import Parameter, Signature
from types import ModuleType, TracebackType
from typing import Any

PROJECTS = (
    "bam",
    "cfbi",
    "clickseg",
    "contrastiveseg",
    "dedode",
    "dino",
    "discriminative",
    "docs_correlation",
    "feelvos",
    "hdmnet",
    "kornia",
    "loftr",
    "metavos",
    "metric_learning",
    "monai",
    "panet",
    "persam",
    "pfenet",
    "ritm",
    "sam2",
    "sam3",
    "sccan",
    "scipy",
    "skimage",
    "spoco",
    "torchmetrics",
)
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


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
        names: the functions to replace; none means all. A function that several modules define is
            replaced in all of them; `module:name`, a key of `REPLACES`, means one.
        package: the project's package, if it is not the usual one: RITM's code is `isegm`, and
            `gui.ritm` in Cutie.

    Raises ValueError for an unknown project or name. Raises ImportError or AttributeError, and
    replaces nothing, if the project lacks a function to replace; TypeError, and replaces nothing,
    if it has a function of that name whose calls do not fit ours.
    """
    if project not in PROJECTS:
        raise ValueError(f"project: expected one of {', '.join(PROJECTS)}, got {project!r}")
    ours = importlib.import_module(f"pixelkernels.compat.{project}")
    root = package or ours.PACKAGE
    known = dict.fromkeys(target.partition(":")[2] for target in ours.REPLACES)
    chosen = []
    for name in names or known:
        found = [target for target in ours.REPLACES if name in (target, target.partition(":")[2])]
        if not found:
            raise ValueError(f"names: expected some of {', '.join(known)}, got {name!r}")
        chosen += found
    replacements = []
    for target in dict.fromkeys(chosen):
        module, _, name = target.partition(":")
        module = f"{root}.{module}".rstrip(".")
        owner, last = _owner(module, name)
        value = ours.REPLACES[target]
        _check_calls(f"{module}.{name}", vars(owner)[last], value, isinstance(owner, type))
        replacements.append((owner, last, value))
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


def _check_calls(path: str, original: Any, ours: Any, is_method: bool) -> None:
    """Raise TypeError if the original, or a public method that both have, allows a call that ours
    does not. An original without a signature is not checked."""
    if isinstance(ours, type):
        for name, method in vars(ours).items():
            if inspect.isfunction(method) and name[0] != "_" and hasattr(original, name):
                _check_calls(f"{path}.{name}", getattr(original, name), method, True)
    try:
        theirs = signature_of(original, is_method)
    except (TypeError, ValueError):
        return
    allowed = signature_of(ours, is_method)
    if not allows(allowed, theirs):
        raise TypeError(
            f"patch: {path}{theirs} allows calls that its replacement, {allowed}, does not"
        )


def signature_of(function: Any, is_method: bool) -> Signature:
    """Without annotations, and without the first parameter of a method."""
    parameters = list(inspect.signature(function).parameters.values())[is_method:]
    return Signature([p.replace(annotation=p.empty) for p in parameters])


def allows(ours: Signature, theirs: Signature) -> bool:
    """Whether `ours` allows every call of `theirs`, as far as `theirs` names its parameters."""
    own, original = ours.parameters, theirs.parameters
    positional, expected = (
        [name for name, p in x.items() if p.kind in POSITIONAL] for x in (own, original)
    )
    required, given = (
        {name for name, p in x.items() if p.default is p.empty and p.kind not in VARIADIC}
        for x in (own, original)
    )
    named = {name for name, p in original.items() if p.kind not in VARIADIC}
    return (
        positional[: len(expected)] == expected
        and named <= own.keys()
        and (required <= given or len(named) < len(original))
    )


def _importers(root: str, original: Any) -> list[tuple[ModuleType, str]]:
    """The loaded modules of a package that bind an object, and the name they bind it to."""
    return [
        (module, alias)
        for key, module in list(sys.modules.items())
        if module is not None and (key == root or key.startswith(f"{root}."))
        for alias, value in list(vars(module).items())
        if value is original
    ]
