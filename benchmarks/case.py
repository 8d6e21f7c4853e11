"""One workload on one input, ready to measure: every side checked against the float64 oracle."""

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

# The library's errors stay within this many times those of eager float32 code, plus a rounding.
SLACK = 2
# A peer may be less exact; this, of the largest value, tells it from one that does something else.
PEER_TOLERANCE = 1e-4
# One pixel at the cut of a ranking, among thousands, moves the gradient by less (relative norm).
CUT_TOLERANCE = 1e-2


class WrongResult(AssertionError):
    """A side does not compute what the oracle computes, so its time would mean nothing."""


@dataclass(frozen=True)
class Side:
    """A library backend or a peer."""

    name: str
    kind: str
    call: Call
    # what the library takes when no backend is asked for
    default: bool = False
    waits: bool = False
    own_memory: bool = False
    # why it cannot run on this machine
    missing: str | None = None


def library_sides(workload: Workload, inputs: Inputs, *, slow: bool = False) -> list[Side]:
    """The backends that can serve the workload on these inputs, the slow ones only if asked for."""
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
            waits=peer.waits,
            own_memory=peer.own_memory,
            missing=peer.missing(),
        )
        for name, peer in workload.peers.items()
        if device in peer.devices and (compiled or not peer.compiled)
    ]


def _with_backend(workload: Workload, backend: str) -> Call:
    return lambda *tensors: workload.library(*tensors, backend=backend)


class Case:
    """Inputs, oracle and error budget of a workload; `bind` gives the calls to time."""

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
        """The call to time, without arguments."""
        if mode == FORWARD:
            return lambda: self._forward(side.call, self.inputs)
        return lambda: self._both(side.call, self.inputs)

    def check(self, side: Side, mode: str) -> None:
        """Raise WrongResult if a result of the side is off the oracle by more than the budget."""
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
        return outputs, torch.autograd.grad(outputs, inputs.wanted(), cotangents)


def _cotangent(output: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient that arrives at an output: 1 at a loss, noise elsewhere."""
    if output.dim() == 0:
        return torch.ones_like(output)
    return torch.randn(output.shape, generator=generator).to(output)


def _budgets(rounded: Tensor, exact: Tensor) -> tuple[float, float]:
    """The error that the library may make, and the one that a peer may make."""
    if not exact.is_floating_point():
        return 0.0, 0.0
    largest = _largest(exact[exact.isfinite()])
    # an oracle may return float64 whatever it was given
    error = _largest(_difference(rounded.float(), exact))
    return SLACK * (error + torch.finfo(torch.float32).eps * largest), PEER_TOLERANCE * largest


def _difference(result: Tensor, exact: Tensor) -> Tensor:
    """result - exact in float64, and 0 where both are the same infinity."""
    result, exact = result.detach().double(), exact.detach().double()
    return torch.where(result == exact, 0, result - exact)


def _largest(values: Tensor) -> float:
    return float(values.detach().abs().max()) if values.numel() else 0.0
