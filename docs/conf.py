"""Sphinx's configuration: `make docs` builds the site into site/, with warnings as errors.

Nothing is fetched from elsewhere, neither by the build nor by a page.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tomllib

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# the extensions beside this file, and the package of this checkout
sys.path[:0] = [str(DOCS), str(ROOT)]

METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = METADATA["name"]
release = version = METADATA["version"]
copyright = "the pixelkernels authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "formulas",
    "links",
]

myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_html_meta = {"description": METADATA["description"]}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# NumPy's own alias is a union of its private classes
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 76
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_title = "pixelkernels"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_favicon = "_static/logo.svg"
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["navigation.html"]}
html_theme_options = {
    "logo": {"text": "pixelkernels", "image_light": "logo.svg", "image_dark": "logo.svg"},
    "github_url": METADATA["urls"]["Repository"],
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "pygments_light_style": "github-light",
    "pygments_dark_style": "github-dark",
    "footer_start": ["copyright"],
    "footer_end": [],
}
