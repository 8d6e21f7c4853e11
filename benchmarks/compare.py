"""Compare two result files, or two folders of them: python -m benchmarks.compare A B."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

SAME = ("workload", "variant", "mode", "name")
FACTS = ("machine", "torch_threads", "torch", "triton", "driver", "commit", "date")
Row = dict[str, Any]
Key = tuple[str, ...]


def comparison(a: Path, b: Path) -> str:
    """The rows of both results side by side, mean ratios, and the rows of only one of them.

    Raises ValueError, with the path, if a result cannot be read.
    """
    about_a, rows_a = load(a)
    about_b, rows_b = load(b)
    joined = [(rows_a[key], rows_b[key]) for key in rows_a if key in rows_b]
    parts = ["\n".join([*_about("A", about_a), *_about("B", about_b)])]
    if joined:
        parts += [_side_by_side(joined), _means(joined)]
    else:
        parts.append("no row is in both")
    parts += _only("A", rows_a, rows_b) + _only("B", rows_b, rows_a)
    return "\n\n".join(parts)


def load(path: Path) -> tuple[dict[Path, Row], dict[Key, Row]]:
    """The environment of each file of a result, and the rows of all files."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: the folder has no result files (*.json)")
    about: dict[Path, Row] = {}
    rows: dict[Key, Row] = {}
    for file in files:
        try:
            content = json.loads(file.read_text())
            about[file] = dict(content["environment"])
            new = {tuple(row[part] for part in SAME): row for row in content["rows"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: expected a file written by benchmarks.run") from error
        if twice := rows.keys() & new.keys():
            raise ValueError(f"{file}: {' '.join(min(twice))} is in another file of its folder")
        rows |= new
    return about, rows


def _about(which: str, about: dict[Path, Row]) -> list[str]:
    lines = []
    for file, facts in about.items():
        known = ", ".join(f"{name} {facts[name]}" for name in FACTS if facts.get(name))
        lines.append(f"{which}: {file}: {known}")
    return lines


def _side_by_side(joined: Iterable[tuple[Row, Row]]) -> str:
    header = ["", "A, ms", "B, ms", "B / A", "A, extra MiB", "B, extra MiB"]
    lines: list[list[str]] = []
    above = None
    for a, b in joined:
        heading = f"{a['workload']}, {a['variant']}, {a['mode']}"
        if heading != above:
            lines.append([heading])
            above = heading
        ratio = f"{_ratio(a, b):.2f}" if "ms" in a and "ms" in b else "-"
        name = f"  {'*' if a['side'] == 'library' else ' '} {a['name']}"
        lines.append([name, _ms(a), _ms(b), ratio, _memory(a), _memory(b)])
    return aligned(header, lines)


def _means(joined: Iterable[tuple[Row, Row]]) -> str:
    """The mean of the peers, whose code did not change, shows the drift of the machine."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for a, b in joined:
        if "ms" in a and "ms" in b:
            sides = ratios.setdefault(a["family"], {"library": [], "peer": []})
            sides[a["side"]].append(_ratio(a, b))
    header = ["geometric mean of B / A", "* library", "rows", "peers", "rows"]
    lines = [
        [family, *(cell for values in sides.values() for cell in _mean(values))]
        for family, sides in ratios.items()
    ]
    return aligned(header, lines)


def _mean(ratios: list[float]) -> tuple[str, str]:
    return f"{geometric_mean(ratios):.3f}" if ratios else "-", str(len(ratios))


def _only(which: str, rows: dict[Key, Row], others: dict[Key, Row]) -> list[str]:
    found: dict[str, list[str]] = {}
    for *where, name in rows:
        if (*where, name) not in others:
            found.setdefault(", ".join(where), []).append(name)
    lines = [f"  {where}: {', '.join(names)}" for where, names in found.items()]
    return ["\n".join([f"only in {which}:", *lines])] if lines else []


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table with aligned columns; a row with fewer cells is printed as it is."""
    full = [header, *(row for row in rows if len(row) == len(header))]
    widths = [max(len(row[column]) for row in full) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        first = f"{row[0]:<{widths[0]}}"
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=False)]
        lines.append("  ".join([first, *cells]).rstrip())
    return "\n".join(lines)


def _ratio(a: Row, b: Row) -> float:
    return float(b["ms"]["p50"] / a["ms"]["p50"])


def _ms(row: Row) -> str:
    return f"{row['ms']['p50']:.3f}" if "ms" in row else "not timed"


def _memory(row: Row) -> str:
    extra = row.get("extra_mib")
    return "-" if extra is None else f"{extra:.1f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    options = parser.parse_args(arguments)
    try:
        print(comparison(options.a, options.b))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
