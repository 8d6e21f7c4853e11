"""Adds the plots of the committed results, which lie outside docs/, to the site."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """At the paths that benchmarks/results/README.md, which is a page of the site, refers to."""
    for path in sorted(RESULTS.glob("*/plots/*.png")):
        name = path.relative_to(RESULTS).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
