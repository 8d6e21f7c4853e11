"""Refusal of a command of `python -m pixelkernels`."""

from __future__ import annotations

import sys


def refuse(command: str, reason: str) -> int:
    """The exit status of a command that could not start, which says why."""
    print(f"python -m pixelkernels {command}: {reason}", file=sys.stderr)
    return 2
