"""What random samples have to be, whichever were drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sample_pixels(found: list[Tensor], args: list[Any], kwargs: dict[str, Any]) -> None:
    mask, count = args
    (drawn,) = found
    assert drawn.shape == (mask.shape[0], count)
    for pixels, inside in zip(drawn, (mask != 0).flatten(1), strict=True):
        check_distinct(pixels, inside)


def check_distinct(pixels: Tensor, inside: Tensor) -> None:
    """As many of those inside as there is room for, each once, and then -1."""
    here = pixels[pixels >= 0]
    assert len(here) == min(len(pixels), int(inside.sum()))
    assert torch.equal(pixels[: len(here)], here)
    assert (pixels[len(here) :] == -1).all()
    assert len(here.unique()) == len(here)
    assert inside[here].all()


def sample_reference(found: list[Tensor], args: list[Any], kwargs: dict[str, Any]) -> None:
    features, labels, classes, count = args
    points, kinds, *grads = found
    assert points.dtype == features.dtype
    assert kinds.shape == (labels.shape[0], classes * count)
    for b, own in enumerate(labels.flatten(1).long()):
        pixels = features.detach()[b].flatten(1).double()
        for c in range(classes):
            part = slice(c * count, (c + 1) * count)
            there = kinds[b, part] == c
            taken = min(count, int((own == c).sum()))
            assert there.sum() == taken
            assert there[:taken].all()
            assert (kinds[b, part][taken:] == -1).all()
            assert (points[b][:, part][:, taken:] == 0).all()
            check_columns(points.detach()[b][:, part][:, :taken].double(), pixels[:, own == c])
    for grad in grads:
        assert grad.shape == features.shape
        assert grad.isfinite().all()


def check_columns(drawn: Tensor, of: Tensor) -> None:
    """Every column is one of the others, as often at most."""
    if drawn.shape[0] == 0:
        return
    columns = [tuple(x) for x in drawn.nan_to_num(12345.0).mT.tolist()]
    left = [tuple(x) for x in of.nan_to_num(12345.0).mT.tolist()]
    for column in columns:
        assert column in left
        left.remove(column)


def explain(found: list[Tensor], args: list[Any], kwargs: dict[str, Any]) -> None:
    """The number of reasons against each backend: against eager there is none."""
    assert len(found) == 4
    assert found[3] == 0


CHECKS = {
    "explain": explain,
    "sample_pixels": sample_pixels,
    "sample_reference": sample_reference,
}
