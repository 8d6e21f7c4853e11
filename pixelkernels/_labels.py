"""Labels as the kernels of every family take them."""

from __future__ import annotations

import torch
from torch import Tensor


def plain(labels: Tensor) -> Tensor:
    """The same labels, contiguous, in a dtype that kernels are compiled for."""
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        labels = labels.long()
    return labels.contiguous()
