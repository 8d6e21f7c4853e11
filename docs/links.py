"""Links from code in the text to the reference, and to other projects' manuals."""

from __future__ import annotations

import pkgutil
import re
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from torch.distributed import ProcessGroup

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.environment import BuildEnvironment

# inventories/ has the few names that the site refers to: a build needs no network
MANUALS = {
    "torch": "https://docs.pytorch.org/docs/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "python": "https://docs.python.org/3/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
}
DOCS = Path(__file__).resolve().parent
INVENTORIES = DOCS / "inventories"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", _write_inventories, priority=100)
    app.connect("missing-reference", _public_reference)
    app.add_transform(LinkedCode)
    return {"parallel_read_safe": True}


def _write_inventories(app: Sphinx, config: Config) -> None:
    config.intersphinx_mapping = {}
    Path(app.doctreedir).mkdir(parents=True, exist_ok=True)
    for name, address in MANUALS.items():
        head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n# zlib\n"
        path = Path(app.doctreedir) / f"{name}.inv"
        entries = (INVENTORIES / f"{name}.txt").read_bytes()
        path.write_bytes(head.encode() + zlib.compress(entries))
        config.intersphinx_mapping[name] = (address, str(path))


def _documented() -> dict[str, Any]:
    """The names that the pages in api/ document, with the objects."""
    pages = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    names = re.findall(r"^\.\. auto\w+:: (\S+)$", pages, re.M)
    return {name: pkgutil.resolve_name(name) for name in names}


def _called() -> dict[str, str]:
    """What text calls a name -> where the reference documents it."""
    names = {name: name for name in DOCUMENTED}
    for name in DOCUMENTED:
        module, _, last = name.rpartition(".")
        if module == "pixelkernels" and not isinstance(DOCUMENTED[name], ModuleType):
            names[last] = names[f"pk.{last}"] = name
        elif module == "pixelkernels.models":
            names[last] = name
    for path in INVENTORIES.iterdir():
        for line in path.read_text().splitlines():
            names[line.split()[0]] = line.split()[0]
    return names


def _resolve_types() -> None:
    """So that signatures name the types that they are written with."""
    # NDArray[T] is an ndarray of any shape, which is three times as long
    sys.modules["pixelkernels.numpy"].NDArray = np.ndarray  # type: ignore[attr-defined]
    for obj in DOCUMENTED.values():
        if isinstance(obj, ModuleType):
            continue
        # imported for type checkers alone
        sys.modules[obj.__module__].ProcessGroup = ProcessGroup  # type: ignore[attr-defined]
        if isinstance(obj, type) and issubclass(obj, tuple):
            obj.__new__.__annotations__ = get_type_hints(obj)


DOCUMENTED = _documented()
NAMES = _called()
# where an object is defined -> where the reference documents it
DEFINED = {
    f"{obj.__module__}.{obj.__qualname__}": name
    for name, obj in DOCUMENTED.items()
    if not isinstance(obj, ModuleType)
}
_resolve_types()


class LinkedCode(SphinxTransform):
    """Makes code that is a public name a link."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            target = NAMES.get(node.astext())
            if target and not isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                link = addnodes.pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True,
                    refwarn=True, refdoc=self.env.docname,
                )  # fmt: skip
                node.replace_self(link)
                link += node


def _public_reference(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """For a type in a signature, which names the module that defines it."""
    target = DEFINED.get(node["reftarget"])
    if target is None:
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)
