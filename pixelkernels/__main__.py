"""python -m pixelkernels info | demo | train | bench"""

from __future__ import annotations

import argparse
import sys

from . import bench
from ._core import info
from .demo import command as demo
from .train import command as train


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixelkernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    facts = commands.add_parser("info", help="versions, devices, builds, and why a backend is off")
    facts.add_argument("--json", action="store_true", help="the same as JSON")
    demo.add_arguments(
        commands.add_parser("demo", help="train on photographs, eager and accelerated")
    )
    train.add_arguments(commands.add_parser("train", help="train one of the reference networks"))
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
    return {"demo": demo, "train": train, "bench": bench}[options.command].run(options)


if __name__ == "__main__":
    sys.exit(main())
