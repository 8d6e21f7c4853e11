"""Consecutive numbers for arbitrary labels."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.operators import to_kernel_dtype
from . import ops


@check.renamed(ignore="ignore_index")
def compact_labels(
    labels: Tensor,
    *,
    ignore_index: int | Iterable[int] | None = None,
    backend: str | None = None,
) -> tuple[Tensor, int]:
    """Renumber the labels of each image to 0, 1, 2, ..., in ascending order.

    Args:
        labels: [B, H, W], integer or bool, any values.
        ignore_index: the label, or labels, that become -1.

    Returns: (labels [B, H, W] int64, num_regions). num_regions is an int, the largest number of
    distinct labels in an image, at least 1. Reading it synchronises with the device, which no other
    function but `mutual_matches` does, and breaks the graph under torch.compile.

    Example:

        >>> labels = torch.tensor([[[7, 7, 255, 3]]])
        >>> compact, num_regions = pk.compact_labels(labels, ignore_index=255)
        >>> compact.tolist(), num_regions
        ([[[1, 1, -1, 0]]], 2)
    """
    check.mask("labels", labels)
    ignored = check.label_list("ignore_index", ignore_index)
    if labels.device.type == "meta":
        raise ValueError("labels: expected a device that holds values, got meta")
    chosen = choose("compact_labels", (labels,), backend)
    compact, counts = ops.compact_labels(chosen, to_kernel_dtype(labels), ignored)
    return compact, max(int(counts.max()), 1) if counts.numel() else 1
