"""A peer: one way to do a workload with what people write or call today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Peer:
    """One way to do a workload without the library: `call(*tensors)` gives its outputs."""

    call: Callable[..., tuple[Tensor, ...]]
    compiled: bool = False
    # the code asks the device for values, so it cannot be captured in a CUDA graph
    waits: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    # imported by the call, and optional
    package: str | None = None
    # its memory on the device comes from an allocator of its own, which nobody here can ask
    own_memory: bool = False

    def build(self) -> Callable[..., tuple[Tensor, ...]]:
        return torch.compile(self.call, dynamic=False) if self.compiled else self.call

    def missing(self) -> str | None:
        """Why it cannot run on this machine, or None."""
        if self.package is None:
            return None
        if find_spec(self.package) is None:
            return f"not available: the package {self.package} is not installed"
        try:
            import_module(self.package)
        except Exception as error:  # what a package built for another torch raises is its own
            return f"not available: {self.package} cannot be imported: {error}".splitlines()[0]
        return None


def with_compiled(**calls: Callable[..., Any]) -> dict[str, Peer]:
    """Each call as eager code, and compiled."""
    peers = {}
    for name, call in calls.items():
        label = name.replace("_", " ")
        peers[f"eager {label}"] = Peer(call)
        peers[f"torch.compile({label})"] = Peer(call, compiled=True)
    return peers
