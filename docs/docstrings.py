"""Docstrings as reStructuredText, for autodoc.

The package's docstrings are plain text in which only backticks are markup. One entry of "Args:" may
describe several arguments, and "Returns:", "Memory:" and "Source:" may open a paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LEADS = "Returns|Yields|Raises|Memory|Source|Example"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}


def _process(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    lines[:] = restructured("\n".join(lines)).split("\n")


def restructured(docstring: str) -> str:
    blocks = re.split(r"\n[ \t]*\n", docstring.strip("\n"))
    return "\n\n".join(part for block in blocks for part in _parts(block))


def _parts(block: str) -> Iterator[str]:
    """The paragraphs for the text between two empty lines."""
    lines = block.split("\n")
    head = re.fullmatch(r"(\w[\w ]*):", lines[0])
    below = list(takewhile(lambda line: line.startswith("    "), lines[1:]))
    if lines[0].startswith("    "):  # code, or a table
        language = "pycon" if lines[0].lstrip().startswith(">>>") else "none"
        yield f".. code-block:: {language}\n\n{block}"
    elif head and below:
        body = [line[4:] for line in below]
        if head[1] == "Args":
            yield "\n".join(_arguments(body))
        elif re.fullmatch(LEADS, head[1]):
            yield f"**{head[1]}**: {_escaped(_joined(body))}"
        else:
            yield f"**{head[1]}**:"
            yield "\n".join(f"- ``{name}``: {_escaped(text)}" for name, text in _items(body))
        if len(below) + 1 < len(lines):
            yield from _parts("\n".join(lines[len(below) + 1 :]))
    else:
        for paragraph in re.split(rf"\n(?=(?:{LEADS}): )", block):
            text = _escaped(paragraph)
            yield re.sub(rf"(^|(?<=\. ))({LEADS}):(?= |$)", r"\1**\2**:", text)


def _arguments(lines: list[str]) -> Iterator[str]:
    """One field per argument."""
    for names, text in _items(lines):
        for name in names.split(", "):
            yield f":param {name}: {_escaped(text)}"


def _items(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(names, text) of "names: text" lines with their continuation lines."""
    for item in re.split(r"\n(?! )", "\n".join(lines)):
        names, _, text = item.partition(":")
        yield names, _joined(text.split("\n"))


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines).strip()


def _escaped(text: str) -> str:
    """With everything escaped that is not in backticks, and what is in them as a literal."""
    parts = re.split(r"`([^`]*)`", text)
    parts[::2] = [re.sub(r"[\\*_|]|::$", lambda m: f"\\{m[0]}", part) for part in parts[::2]]
    # a space behind the backslash ends the markup and is not shown
    parts[1::2] = [f"``{part}``\\ " for part in parts[1::2]]
    return re.sub(r"\\ (?=[\s.,:;)]|$)", "", "".join(parts))
