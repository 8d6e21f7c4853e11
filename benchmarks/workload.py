"""What a workload is: an operation at a size, its inputs, its peers and its floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .inputs import SEED, Inputs

FORWARD, BOTH = "forward", "forward+backward"


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


@dataclass(frozen=True)
class Floor:
    """What no implementation can avoid: bytes to and from memory, and arithmetic operations."""

    bytes: int
    operations: int


@dataclass(frozen=True, eq=False)
class Workload:
    """One operation at one size.

    `draw(variant, generator, shrink)` makes the inputs, with sides `shrink` times smaller in tests.
    `library(*tensors, backend=...)` and each peer's `call(*tensors)` give the same outputs.
    """

    name: str
    title: str
    family: str
    op: str
    source: str
    draw: Callable[[str, torch.Generator, int], Inputs]
    library: Callable[..., tuple[Tensor, ...]]
    peers: dict[str, Peer]
    floor: Callable[[Inputs, str], Floor]
    variants: tuple[str, ...] = ("coherent", "random")
    modes: tuple[str, ...] = (BOTH,)
    # part of the short default run
    quick: bool = False
    # pixels are chosen by rank: one at the cut may go either way in float32, with its gradient
    ranks: bool = False
    # what the outputs are checked against, given the inputs in float64; None: the eager backend
    oracle: Callable[..., tuple[Tensor, ...]] | None = None
    # of outputs that are random, their gradients and the inputs: what has to agree in their place
    compared: Callable[..., tuple[Tensor, ...]] | None = None
    # backends that take seconds or much memory at this size: tests check them on smaller inputs,
    # and nobody times them
    slow: tuple[str, ...] = ()

    def inputs(
        self,
        variant: str,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        shrink: int = 1,
    ) -> Inputs:
        generator = torch.Generator().manual_seed(SEED)
        return self.draw(variant, generator, shrink).to(device, dtype)


def size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
