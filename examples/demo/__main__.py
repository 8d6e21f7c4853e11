"""Train small networks on photographs, simulate clicks and transfer labels, each with the eager
backend and with the accelerated one. Print the comparison, write pictures and numbers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.command import imports_of_extra, positive, require_device


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: the backends disagree. Exits with 2 where the demo cannot start."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR",
        help="the folder for pictures and numbers (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=Path, metavar="DIR",
        help="your own JPEG and PNG photos, instead of those in the wheel of scikit-image",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=positive, default=25, metavar="N",
        help="training steps of each loss (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    require_device(parser, options.device)
    with imports_of_extra(parser):
        from . import photos
        from .demonstration import demonstrate
        from .steps import Mismatch
    try:
        chosen = photos.from_folder(options.images) if options.images else photos.packaged()
    except ValueError as error:
        parser.error(str(error))
    try:
        demonstrate(chosen, options.device, options.out, options.steps)
    except Mismatch as error:
        print(f"the backends disagree: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
