"""Consecutive numbers for arbitrary labels."""

from __future__ import annotations

from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.operators import to_kernel_dtype
from . import ops


def compact_labels(
    labels: Tensor, *, ignore: tuple[int, ...] = (), backend: str | None = None
) -> tuple[Tensor, int]:
    """Renumber each image's labels to 0, 1, 2, ... in ascending order of the old ones.

    Args:
        labels: [B, H, W], integer or bool, any values.
        ignore: labels that become -1.

    Returns: (labels [B, H, W] int64, num_regions), with num_regions the largest number of labels of
    an image (at least 1), as an int: on a device this is the one function that waits for the
    device, and under torch.compile it breaks the graph.
    """
    check.mask("labels", labels)
    ignored = check.integer_list("ignore", ignore)
    if labels.device.type == "meta":
        raise ValueError("labels: expected a device that holds values, got meta")
    chosen = choose("compact_labels", (labels,), backend)
    compact, counts = ops.compact_labels(chosen, to_kernel_dtype(labels), ignored)
    return compact, max(int(counts.max()), 1) if counts.numel() else 1
