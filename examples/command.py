"""What the command lines of the examples share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PACKAGES = ("PIL", "matplotlib", "scipy", "skimage", "torchmetrics", "torchvision", "tqdm")


def positive(text: str) -> int:
    """The type of an option that takes an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def require_device(parser: argparse.ArgumentParser, device: str) -> None:
    """Exit with status 2 and the reason if torch cannot use the device."""
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")


@contextmanager
def imports_of_extra(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Exit with status 2 and the extra to install if an import inside the block is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in (
            "PIL",
            "matplotlib",
            "scipy",
            "skimage",
            "torchmetrics",
            "torchvision",
            "tqdm",
        ):
            raise
        parser.error(f"it needs {package}: pip install -e '.[examples]'")
