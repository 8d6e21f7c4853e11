"""Draw the committed results: speed-ups, the roofline, how cost grows.

    python -m benchmarks.plots [--check]

Writes benchmarks/results/<machine>/plots/{speed,roofline,scaling}.{png,svg} from the JSON files of
that machine alone. Each picture names a hash of what it was drawn from; --check writes nothing and
exits 1 if results have changed since, or a picture is missing or has no results any more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks import plots_growth, plots_speed
from benchmarks.run import RESULTS

Row = dict[str, Any]
# what the JSON files of one machine hold, by the files' names
Results = dict[str, Row]
DRAW: dict[str, Callable[[Results], Figure]] = {
    "speed": plots_speed.speed,
    "roofline": plots_speed.roofline,
    "scaling": plots_growth.scaling,
}
FORMS = (".png", ".svg")
# With no date and no version of Matplotlib in the files, only what is drawn decides their bytes.
ANONYMOUS = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
STYLE = {
    "svg.hashsalt": "pixelkernels",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def sources(machine: Path) -> dict[str, Results]:
    """What each picture of a machine is drawn from; no entry where there are no results."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(machine.glob("*.json"))}
    families = {name: content for name, content in found.items() if "ceilings" in content}
    growth = machine / "scaling" / "scaling.json"
    pictures = {"speed": families, "roofline": families} if families else {}
    if growth.exists():
        pictures["scaling"] = {"scaling": json.loads(growth.read_text())}
    return pictures


def mark(results: Results) -> str:
    """What a picture says it was drawn from."""
    text = json.dumps(results, sort_keys=True)
    return f"drawn from results with SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"


def write(picture: str, results: Results, stem: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = DRAW[picture](results)
        for form in FORMS:
            about = {**ANONYMOUS[form], "Description": mark(results)}
            figure.savefig(stem.with_suffix(form), metadata=about)


def update(results: Path, *, check: bool) -> list[str]:
    """Draw what is under `results`; or, with `check`, only the names of the pictures that are
    not what the results say."""
    stale = []
    for machine in sorted(path for path in results.iterdir() if path.is_dir()):
        folder, wanted = machine / "plots", sources(machine)
        expected = {folder / f"{name}{form}": name for name in wanted for form in FORMS}
        stray = {path for form in FORMS for path in folder.glob(f"*{form}")} - set(expected)
        marks = {name: mark(content).encode() for name, content in wanted.items()}
        stale += sorted(stray) + [
            path
            for path, name in expected.items()
            if not path.exists() or marks[name] not in path.read_bytes()
        ]
        if check:
            continue
        if wanted:
            folder.mkdir(exist_ok=True)
        for name, content in wanted.items():
            write(name, content, folder / name)
        for path in stray:
            path.unlink()
    return [str(path.relative_to(results)) for path in stale]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if out of date")
    options = parser.parse_args(arguments)
    stale = update(RESULTS, check=options.check)
    for name in stale:
        did = "out of date; run make report" if options.check else "updated"
        print(f"benchmarks/results/{name}: {did}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
