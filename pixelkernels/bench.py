"""The command itself: `python -m pixelkernels bench`.

What measures is `benchmarks/` of the repository, which no wheel carries: it is imported when the
command runs, and this module has the options alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pixelkernels._command import refuse

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("scipy", "tqdm")
FAMILIES = ("regions", "distance", "similarity", "triplet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick", action="store_true", help="a few workloads of each family, very few repeats"
    )
    extent.add_argument(
        "--full", action="store_true",
        help="all inputs, many repeats, as published: written to benchmarks/results/<machine>/",
    )  # fmt: skip
    extent.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"),
        help="measure nothing: compare two result files, or two folders of them",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)"
    )
    parser.add_argument("--family", choices=FAMILIES, help="the workloads of one family")
    parser.add_argument("--only", metavar="NAME", help="the workloads whose name contains NAME")
    parser.add_argument(
        "--out", type=Path, metavar="PATH",
        help="write the rows of this run here: one FILE.json, or a folder for one per family",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="begin no further workload after this long"
    )


def run(arguments: argparse.Namespace) -> int:
    """0: done; 1: a side of the library was not timed; 2: it could not start, and says why."""
    if not (ROOT / "benchmarks" / "run.py").is_file():
        return refuse(
            "bench",
            "it measures with benchmarks/, which is no part of the installed package: "
            "run it from a checkout of the repository, installed with pip install -e .",
        )
    # before a folder of this name that whoever calls it from elsewhere may have
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import run as benchmarks
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        return refuse("bench", f"it needs {error.name}: pip install 'pixelkernels[bench]'")
    return benchmarks.run(arguments)
