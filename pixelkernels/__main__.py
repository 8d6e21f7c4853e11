"""python -m pixelkernels info | bench"""

from __future__ import annotations

import argparse
import sys

from . import bench
from ._core import info


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixelkernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    facts = commands.add_parser("info", help="versions, devices, builds, and why a backend is off")
    facts.add_argument("--json", action="store_true", help="the same as JSON")
    bench.add_arguments(
        commands.add_parser(
            "bench",
            help="time the library beside what people use today",
            description="Time the library beside what people use today, from a checkout. Without "
            "options: every workload on its first input, with few repeats, printed.",
        )
    )
    options = parser.parse_args(arguments)
    if options.command == "info":
        info.show(options.json)
        return 0
    return bench.run(options)


if __name__ == "__main__":
    sys.exit(main())
