"""A workload: an operation at one size, with inputs, peers and a floor."""

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
    """Another implementation of a workload: `call(*tensors)` returns its outputs."""

    call: Callable[..., tuple[Tensor, ...]]
    compiled: bool = False
    # the code reads values back from the device, so no CUDA graph can capture it
    synchronizes: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    # an optional package that the call imports
    package: str | None = None
    # it allocates device memory without torch, so its memory cannot be measured
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
        except Exception as error:  # a package built for another torch may raise anything
            return f"not available: {self.package} cannot be imported: {error}".splitlines()[0]
        return None


def with_compiled(**calls: Callable[..., Any]) -> dict[str, Peer]:
    """Each call twice: as eager code and under torch.compile."""
    peers = {}
    for name, call in calls.items():
        label = name.replace("_", " ")
        peers[f"eager {label}"] = Peer(call)
        peers[f"torch.compile({label})"] = Peer(call, compiled=True)
    return peers


def as_tuple(call: Callable[..., Tensor], **options: Any) -> Callable[..., tuple[Tensor]]:
    """A function of one output, which it returns as a tuple."""
    return lambda *tensors, **more: (call(*tensors, **options, **more),)


@dataclass(frozen=True)
class Floor:
    """The least memory traffic in bytes and the least arithmetic of any implementation."""

    bytes: int
    operations: int


@dataclass(frozen=True, eq=False)
class Workload:
    """One operation at one size.

    `draw(variant, generator, shrink)` makes the inputs; tests divide the sides by `shrink`.
    `library(*tensors, backend=...)` and each peer's `call(*tensors)` return the same outputs.
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
    # included in --quick
    quick: bool = False
    # pixels are selected by rank: rounding may exchange those at the cut, with their gradients
    ranks: bool = False
    # computes the expected outputs from float64 inputs; None: the eager backend
    oracle: Callable[..., tuple[Tensor, ...]] | None = None
    # for random outputs: maps outputs, gradients and inputs to what must agree instead
    compared: Callable[..., tuple[Tensor, ...]] | None = None
    # backends that take seconds or much memory at this size: tested on smaller inputs, never timed
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
