"""TeX formulas as MathML, which browsers draw without a script.

STIX Two Math comes along, reduced to the characters of formulas: many phones have no font for
mathematics. The font is that of ziamath, which is not used otherwise.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from fontTools import subset
from latex2mathml.converter import convert

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Latin, Greek, punctuation, arrows, operators, brackets, italic Latin and Greek letters
CHARACTERS = (
    (0x20, 0x7E),
    (0xA0, 0xFF),
    (0x391, 0x3F5),
    (0x2016, 0x2044),
    (0x210E, 0x210E),
    (0x2190, 0x2194),
    (0x2200, 0x22FF),
    (0x2308, 0x230B),
    (0x27E8, 0x27E9),
    (0x1D434, 0x1D467),
    (0x1D6E2, 0x1D71B),
)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("build-finished", _write_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mathml(formula: str, display: str = "inline") -> str:
    markup = convert(formula, display=display)
    if "\\" in markup:
        raise ValueError(f"unknown command in the formula {formula}")
    # a browser, unlike TeX, would stretch the first bar of a norm to the height of the line
    return markup.replace("<mo>&#x02016;", '<mo stretchy="false">&#x02016;')


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _write_font(app: Sphinx, error: Exception | None) -> None:
    target = Path(app.outdir) / "_static" / "formulas.woff"
    if error or app.builder.format != "html":
        return
    options = subset.Options(flavor="woff", layout_features=["ssty"])
    with as_file(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf") as path:
        font = subset.load_font(str(path), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[c for first, last in CHARACTERS for c in range(first, last + 1)])
    subsetter.subset(font)
    subset.save_font(font, str(target), options)
