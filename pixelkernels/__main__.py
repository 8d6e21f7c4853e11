"""The command `pixelkernels`, also `python -m pixelkernels`."""

from __future__ import annotations

import argparse

from . import __version__
from ._core import info


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="pixelkernels", description="What this installation of pixelkernels can do here."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    facts = commands.add_parser("info", help="versions, devices, builds, and why a backend is off")
    facts.add_argument("--json", action="store_true", help="the same as JSON")
    info.show(parser.parse_args(arguments).json)


if __name__ == "__main__":
    main()
