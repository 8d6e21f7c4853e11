"""Each step by itself on the trained features, forward and backward where it has gradients: equal
on both sides, then timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

import pixelkernels as pk

from .._core import dispatch
from . import measuring
from .scene import Scene
from .steps import STEPS, Step
from .training import SIDES, Mismatch

ROUNDS = 7

# of a floating point result's largest entry: the two sides sum a photo's pixels in different
# orders, in float32
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Cost:
    """Per side the time of one call, with its gradients if there are any, and its extra memory; and
    who served the accelerated side.
    """

    step: Step
    served_by: str
    milliseconds: dict[str, float]
    extra_mib: dict[str, float | None]


def compare_all(features: Tensor, scene: Scene, device: str) -> list[Cost]:
    return [
        compare(step, step.space(features), scene, device)
        for step in tqdm(STEPS, desc="timing the steps", unit="op")
    ]


def compare(step: Step, features: Tensor, scene: Scene, device: str) -> Cost:
    """Raises Mismatch."""
    features = features.detach().requires_grad_()
    calls: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        side: partial(_results, step, features, scene, backend) for side, backend in SIDES.items()
    }
    hold_together(step.name, *(call() for call in calls.values()))
    return Cost(
        step=step,
        served_by=dispatch.choose(step.name, (features, scene.mask), None),
        milliseconds=measuring.in_turn(calls, device, ROUNDS),
        extra_mib={side: measuring.extra_mib(call, device) for side, call in calls.items()},
    )


def hold_together(
    name: str, eager_results: tuple[Tensor, ...], accelerated_results: tuple[Tensor, ...]
) -> None:
    """Raises Mismatch unless integers are equal and floating point numbers close."""
    for eager, accelerated in zip(eager_results, accelerated_results, strict=True):
        if not eager.is_floating_point():
            different = int((eager != accelerated).sum())
            if different:
                raise Mismatch(
                    f"{name}: {different} of {eager.numel()} integers are not the eager ones"
                )
            continue
        error, largest = (eager - accelerated).abs().max(), eager.abs().max()
        # written so that NaN fails too
        if not error <= TOLERANCE * largest:
            raise Mismatch(
                f"{name}: a result or gradient is {float(error):.3g} from the eager one,"
                f" whose largest entry is {float(largest):.3g}"
            )


def _results(step: Step, features: Tensor, scene: Scene, backend: str | None) -> tuple[Tensor, ...]:
    """Of one call; with their gradients where they have any."""
    with pk.use_backend(backend):
        results = step.call(features, scene)
        if not step.differentiable:
            return results
        gradients = torch.autograd.grad(results, features, [torch.ones_like(r) for r in results])
    return *(result.detach() for result in results), *gradients
