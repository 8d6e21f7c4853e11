"""A PNG strip of the label transfer: the labelled photo, the other one, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .pictures import highlight, strip
from .stereo import Pair
from .transfer import Transfer

WRONG, UNKNOWN = (255, 0, 255), (128, 128, 128)


def write(out: Path, pair: Pair, done: Transfer) -> Path:
    left, right = pair.left.pixels, pair.right.pixels
    shares = list(done.share_right.values())
    panels = [
        ("left photo, labelled", highlight(left, done.left == 1)),
        ("right photo", right),
        ("true labels; grey: unknown", _unknown(highlight(right, done.truth == 1), done.truth)),
        ("label_transfer", highlight(right, done.found == 1)),
        (f"{shares[-1]:.1%} right; magenta: wrong", _mistakes(right, done.found, done.truth)),
        (f"copied in place: {shares[0]:.1%} right", _mistakes(right, done.left, done.truth)),
    ]
    path = out / "label-transfer.png"
    strip(panels).save(path)
    return path


def _mistakes(
    photo: NDArray[np.uint8], found: NDArray[np.int64], truth: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Wrong labels in a colour that the photo does not have."""
    pixels = _unknown(highlight(photo, found == 1), truth)
    pixels[(truth >= 0) & (found != truth)] = WRONG
    return pixels


def _unknown(pixels: NDArray[np.uint8], truth: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.where((truth >= 0)[..., None], pixels, np.asarray(UNKNOWN, np.uint8))
