"""Docstrings as Markdown, for mkdocstrings.

The package's docstrings are plain text in which only backticks are markup: Markdown would drop
asterisks, underscores and angle brackets from their formulas. One entry of "Args:" may describe
several arguments, and "Returns:", "Memory:" and "Source:" may open a paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from griffe import Extension, Object

ESCAPES = {char: f"\\{char}" for char in "\\*_{}[]#"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
LEADS = "Returns|Yields|Memory|Source"


class PlainText(Extension):
    """Rewrites every docstring after griffe has read the package."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    blocks = re.split(r"\n[ \t]*\n", docstring.strip("\n"))
    return "\n\n".join(part for block in blocks for part in _parts(block))


def _parts(block: str) -> Iterator[str]:
    """The Markdown blocks for the text between two empty lines."""
    lines = block.split("\n")
    head = re.fullmatch(r"(\w[\w ]*):", lines[0])
    below = list(takewhile(lambda line: line.startswith("    "), lines[1:]))
    if lines[0].startswith("    "):  # code, or a table
        yield block
    elif head and below:
        body = [line[4:] for line in below]
        if head[1] == "Args":
            yield "\n".join(["Args:", *_arguments(body)])
        elif re.fullmatch(LEADS, head[1]):
            yield f"**{head[1]}**: {_escaped(_joined(body))}"
        else:
            yield f"**{head[1]}**:"
            yield "\n".join(f"- `{name}`: {_escaped(text)}" for name, text in _items(body))
        if len(below) + 1 < len(lines):
            yield from _parts("\n".join(lines[len(below) + 1 :]))
    else:
        for paragraph in re.split(rf"\n(?=(?:{LEADS}): )", block):
            text = _escaped(paragraph)
            yield re.sub(rf"(^|(?<=\. ))({LEADS}): ", r"\1**\2**: ", text)


def _arguments(lines: list[str]) -> Iterator[str]:
    """One item per argument."""
    for names, text in _items(lines):
        for name in names.split(", "):
            yield f"    {name}: {_escaped(text)}"


def _items(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(names, text) of "names: text" lines with their continuation lines."""
    for item in re.split(r"\n(?! )", "\n".join(lines)):
        names, _, text = item.partition(":")
        yield names, _joined(text.split("\n"))


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines).strip()


def _escaped(text: str) -> str:
    """With everything escaped that is not in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"[\\*_{}\[\]#&<>]", lambda m: ESCAPES[m[0]], part) for part in parts[::2]]
    return "".join(parts)
