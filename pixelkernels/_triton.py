"""What the Triton launchers of every family share. It imports no triton itself."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def next_power_of_2(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def launch(kernel: Any, programs: int, like: Tensor, *args: Any, **options: Any) -> None:
    """Run `programs` programs on the device of `like`."""
    on_device: Any = contextlib.nullcontext()
    if like.device.type == "cuda":
        on_device = torch.cuda.device(like.device)
    with on_device:
        kernel[(programs,)](*args, **options)
