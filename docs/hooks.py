"""What the site takes from outside docs/: the plots of the committed results."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Under the names that benchmarks/results/README.md gives them, which is a page here."""
    for path in sorted(RESULTS.glob("*/plots/*.png")):
        name = path.relative_to(RESULTS).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
