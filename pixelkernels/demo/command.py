"""The command itself: `python -m pixelkernels demo`.

Its needs beyond the library (scikit-image, Pillow, tqdm) are imported when it runs, so that the
other commands work without them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from pixelkernels._command import positive, refuse

EXTRAS = ("PIL", "skimage", "tqdm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR",
        help="where pictures and numbers go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=Path, metavar="DIR",
        help="JPEG and PNG photos of your own, instead of those that scikit-image ships",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=positive, default=25, metavar="N",
        help="training steps of each loss (default: %(default)s)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """0: done; 1: the backends disagree; 2: it could not start, and says why."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        return refuse("demo", "--device cuda: torch sees no GPU")
    try:
        from . import photos
        from .demonstration import demonstrate
        from .training import Mismatch
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        return refuse("demo", f"the demo needs {error.name}: pip install 'pixelkernels[demo]'")
    try:
        chosen = photos.from_folder(arguments.images) if arguments.images else photos.packaged()
    except ValueError as error:
        return refuse("demo", str(error))
    try:
        demonstrate(chosen, arguments.device, arguments.out, arguments.steps)
    except Mismatch as error:
        print(f"the backends disagree: {error}", file=sys.stderr)
        return 1
    return 0
