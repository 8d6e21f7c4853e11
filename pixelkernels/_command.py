"""What the commands of `python -m pixelkernels` share."""

from __future__ import annotations

import argparse
import sys


def refuse(command: str, reason: str) -> int:
    """The exit status of a command that could not start, which says why."""
    print(f"python -m pixelkernels {command}: {reason}", file=sys.stderr)
    return 2


def positive(text: str) -> int:
    """An argument's number, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number
