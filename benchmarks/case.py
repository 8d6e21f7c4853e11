"""A workload on one input, with a check of every implementation against a float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelkernels._core import dispatch

from .inputs import SEED, Inputs
from .workload import BOTH, FORWARD, Workload

Call = Callable[..., tuple[Tensor, ...]]
Result = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

# The library may err by this many times the error of the oracle's code in float32, plus rounding.
SLACK = 2
# The error allowed for a peer, relative to the largest value.
PEER_TOLERANCE = 1e-4
# The error allowed for the gradient of a ranking, as a relative norm: rounding may exchange pixels
# at the cut.
CUT_TOLERANCE = 1e-2


class WrongResult(AssertionError):
    """The result differs from the oracle's, so the time would be meaningless."""


@dataclass(frozen=True)
class Side:
    """A library backend or a peer."""

    name: str
    kind: str
    call: Call
    # the backend that the library chooses itself
    default: bool = False
    synchronizes: bool = False
    own_memory: bool = False
    # why it cannot run on this machine, or None
    missing: str | None = None


def library_sides(workload: Workload, inputs: Inputs, *, slow: bool = False) -> list[Side]:
    """The backends that support these inputs; those listed as slow only with `slow`."""
    default = dispatch.choose(workload.op, inputs.tensors, None)
    return [
        Side(backend, "library", _with_backend(workload, backend), default=backend == default)
        for backend in dispatch.BACKENDS
        if not dispatch.why_not(backend, workload.op, inputs.tensors)
        and (slow or backend not in workload.slow)
    ]


def peer_sides(workload: Workload, device: str, *, compiled: bool = True) -> list[Side]:
    return [
        Side(
            name,
            "peer",
            peer.build(),
            synchronizes=peer.synchronizes,
            own_memory=peer.own_memory,
            missing=peer.missing(),
        )
        for name, peer in workload.peers.items()
        if device in peer.devices and (compiled or "torch.compile" not in name)
    ]


def _with_backend(workload: Workload, backend: str) -> Call:
    return lambda *tensors: workload.library(*tensors, backend=backend)


class Case:
    """The inputs, exact results and error budgets of a workload."""

    def __init__(self, workload: Workload, variant: str, inputs: Inputs) -> None:
        self.workload, self.variant = workload, variant
        self.inputs = inputs.leaves()
        oracle = workload.oracle or _with_backend(workload, "eager")
        run = self._forward
        if BOTH in workload.modes:
            outputs, _ = self._forward(oracle, self.inputs)
            generator = torch.Generator().manual_seed(SEED)
            self._cotangents = [_cotangent(output, generator) for output in outputs]
            run = self._both
        double = inputs.double().leaves()
        self._exact = self._compared(run(oracle, double), double)
        rounded = self._compared(run(oracle, self.inputs), self.inputs)
        self._budgets = [_budgets(*pair) for pair in zip(rounded, self._exact, strict=True)]

    def bind(self, side: Side, mode: str) -> Callable[[], Result]:
        """The call to time: it takes no arguments."""
        if mode == FORWARD:
            return lambda: self._forward(side.call, self.inputs)
        return lambda: self._both(side.call, self.inputs)

    def check(self, side: Side, mode: str) -> None:
        """Raise WrongResult if an output or gradient exceeds its error budget."""
        outputs, gradients = self.bind(side, mode)()
        results = self._compared((outputs, gradients), self.inputs)
        number = len(results) - (0 if self.workload.compared else len(gradients))
        for position, (result, exact, (library_budget, peer_budget)) in enumerate(
            zip(results, self._exact, self._budgets, strict=False)
        ):
            what = f"output {position}" if position < number else "gradient"
            if result.shape != exact.shape:
                raise WrongResult(f"{what} is {list(result.shape)}, not {list(exact.shape)}")
            error = _difference(result, exact)
            if self.workload.ranks and position >= number:
                distance, allowed = float(error.norm()), CUT_TOLERANCE * float(exact.norm())
            else:
                distance = _largest(error)
                allowed = library_budget if side.kind == "library" else peer_budget
            if not distance <= allowed:
                raise WrongResult(f"{what} is off by {distance:.3g}, allowed {allowed:.3g}")

    def _compared(self, result: Result, inputs: Inputs) -> tuple[Tensor, ...]:
        if self.workload.compared:
            return self.workload.compared(*result, *inputs.tensors)
        outputs, gradients = result
        return (*outputs, *gradients)

    def _forward(self, call: Call, inputs: Inputs) -> Result:
        with torch.no_grad():
            return call(*inputs.tensors), ()

    def _both(self, call: Call, inputs: Inputs) -> Result:
        outputs = call(*inputs.tensors)
        cotangents = self._cotangents
        if inputs.tensors[0].dtype == torch.float64:
            cotangents = [cotangent.double() for cotangent in cotangents]
        return outputs, torch.autograd.grad(outputs, inputs.differentiated(), cotangents)


def _cotangent(output: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient of an output: 1 for a scalar loss, noise for anything else."""
    if output.dim() == 0:
        return torch.ones_like(output)
    return torch.randn(output.shape, generator=generator).to(output)


def _budgets(rounded: Tensor, exact: Tensor) -> tuple[float, float]:
    """The largest errors allowed for the library and for a peer."""
    if not exact.is_floating_point():
        return 0.0, 0.0
    largest = _largest(exact[exact.isfinite()])
    # some oracles always return float64
    error = _largest(_difference(rounded.float(), exact))
    return SLACK * (error + torch.finfo(torch.float32).eps * largest), PEER_TOLERANCE * largest


def _difference(result: Tensor, exact: Tensor) -> Tensor:
    """result - exact in float64; equal infinities differ by 0."""
    result, exact = result.detach().double(), exact.detach().double()
    return torch.where(result == exact, 0, result - exact)


def _largest(values: Tensor) -> float:
    return float(values.detach().abs().max()) if values.numel() else 0.0
