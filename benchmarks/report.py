"""Write the committed results into the pages that show them.

    python -m benchmarks.report [--check]

README.md gets a summary, docs/benchmarks.md and docs/<family>.md a table per family,
docs/models.md the reference networks, docs/drop-ins.md the drop-ins, and
benchmarks/results/README.md every row. All stand between comments such as
`<!-- benchmarks:begin -->` and `<!-- benchmarks:end -->`.
--check writes nothing and exits 1 if a page is out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import summary, tables
from benchmarks.ops import FAMILIES

ROOT = Path(__file__).resolve().parents[1]


def replaced(page: str, block: str, name: str, kind: str = "benchmarks") -> str:
    """The page with the text between the markers of that kind replaced."""
    begin, end = (f"<!-- {kind}:{which} -->" for which in ("begin", "end"))
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"{name}: expected one line {begin} and, after it, one line {end}")
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{block}\n\n{end}{rest.split(end)[1]}"


def update(root: Path, *, check: bool) -> list[str]:
    """Update the pages under `root` unless `check`; the names of those that were out of date."""
    directory = root / "benchmarks" / "results"
    results, docs = tables.load(directory), root / "docs"
    blocks = {
        root / "README.md": {
            "why": summary.why(directory),
            "speed": summary.speed(directory),
            "drop-ins": summary.drop_ins(directory),
        },
        docs / "benchmarks.md": {
            "benchmarks": tables.workloads(results),
            "sweep": tables.sweep(directory),
            "cores": tables.cores(directory),
        },
        docs / "models.md": {"models": tables.networks(directory)},
        docs / "drop-ins.md": {"compat": tables.drop_ins(directory)},
        directory / "README.md": {"benchmarks": tables.full(results)},
    }
    for family in FAMILIES:
        own = [(name, content) for name, content in results if Path(name).name == family]
        blocks[docs / f"{family}.md"] = {"benchmarks": tables.workloads(own)}
    texts = {}
    for path, kinds in blocks.items():
        name = str(path.relative_to(root))
        if not path.exists():
            raise ValueError(f"{name}: there is no such page")
        texts[path] = path.read_text()
        for kind, block in kinds.items():
            texts[path] = replaced(texts[path], block, name, kind)
    stale = [path for path, text in texts.items() if path.read_text() != text]
    if not check:
        for path in stale:
            path.write_text(texts[path])
    return [str(path.relative_to(root)) for path in stale]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if out of date")
    options = parser.parse_args(arguments)
    try:
        stale = update(ROOT, check=options.check)
    except ValueError as error:
        sys.exit(f"report.py: {error}")
    for name in stale:
        print(f"{name}: {'out of date; run make report' if options.check else 'written'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
