"""python -m pixelkernels info"""

from __future__ import annotations

import argparse

from ._core import info


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pixelkernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    facts = commands.add_parser("info", help="versions, devices, builds, and why a backend is off")
    facts.add_argument("--json", action="store_true", help="the same as JSON")
    info.show(parser.parse_args(arguments).json)


if __name__ == "__main__":
    main()
