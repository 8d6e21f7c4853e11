"""The library's functions that the demo shows, and the comparison of both backends on each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import pixelkernels as pk
from benchmarks.measure import extra_memory
from pixelkernels._core import dispatch

from .scene import Scene, click_maps, simulate_clicks

# the argument of `use_backend`: None is the dispatcher's own choice
BACKENDS: dict[str, str | None] = {"eager": "eager", "accelerated": None}

ROUNDS = 7  # of timed calls

# relative to a result's largest entry: the backends add a photo's pixels in different orders
TOLERANCE = 1e-4

Results = TypeVar("Results", bound="tuple[Tensor, ...]")


class Mismatch(RuntimeError):
    """The accelerated result differs from the eager one."""


@dataclass(frozen=True)
class Step:
    """A function of the library, applied to a network's features or to the photos' objects.

    Attributes:
        name: the function's public name.
        call: (features, scene) -> the results; for a loss, one scalar.
        trains: whether the demo trains a network with it, as a loss.
        differentiable: whether the results have gradients; clicks and masks have none.
        space: the network's output -> the features that `call` takes.
    """

    name: str
    call: Callable[[Tensor, Scene], tuple[Tensor, ...]]
    trains: bool = False
    differentiable: bool = True
    space: Callable[[Tensor], Tensor] = lambda features: features


def _is_triplet_loss(features: Tensor, f1: Tensor, f2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """`is_triplet_loss` on pixels that were drawn before."""
    return 0.5 * (pk.triplet_hinge(features, f1, f2, b1) + pk.triplet_hinge(features, b1, b2, f2))


STEPS = (
    Step(
        "cas_loss",
        lambda features, scene: (pk.cas_loss(features, scene.regions, scene.num_regions),),
        trains=True,
        space=lambda features: features.softmax(1),
    ),
    Step(
        "metric_expression_loss",
        lambda features, scene: (pk.metric_expression_loss(features, scene.mask, normalize=True),),
        trains=True,
    ),
    Step(
        "discriminative_loss",
        lambda features, scene: (
            pk.discriminative_loss(features, scene.regions, scene.num_regions),
        ),
        trains=True,
    ),
    Step(
        "triplet_hinge",
        lambda features, scene: (_is_triplet_loss(features, *scene.pixels),),
        trains=True,
    ),
    Step(
        "region_stats",
        lambda features, scene: pk.region_stats(features, scene.regions, scene.num_regions)[1:],
    ),
    Step(
        "background_distance",
        lambda features, scene: (pk.background_distance(features, scene.background),),
    ),
    Step(
        "masked_average_pool",
        lambda features, scene: (pk.masked_average_pool(features, scene.background),),
    ),
    Step(
        "simulate_clicks",
        lambda _, scene: simulate_clicks(scene.mask),
        differentiable=False,
    ),
    Step(
        "click_maps",
        lambda _, scene: (click_maps(scene.points, scene.click_labels, scene.mask.shape[-1]),),
        differentiable=False,
    ),
    Step(
        "distance_transform",
        lambda _, scene: (pk.distance_transform(scene.mask, squared=True),),
        differentiable=False,
    ),
    Step(
        "next_click",
        lambda _, scene: pk.next_click(torch.zeros_like(scene.mask), scene.mask),
        differentiable=False,
    ),
)

# the features of the network trained with this loss show saliency and serve all timings
SALIENCY_LOSS = "metric_expression_loss"


@torch.no_grad()
def saliency(features: Tensor, scene: Scene) -> Tensor:
    """[B, H, W] in [0, 1]: MEnet eq. 5 on unit vectors, which its loss compares."""
    return pk.background_distance(F.normalize(features), scene.background, normalize="minmax")


@dataclass(frozen=True)
class Cost:
    """The backend that the dispatcher chose; and, eager and accelerated, the time of one call with
    its gradients and its extra memory.
    """

    step: Step
    served_by: str
    milliseconds: dict[str, float]
    extra_mib: dict[str, float | None]


def compare(step: Step, features: Tensor, scene: Scene, device: str) -> Cost:
    """Raises Mismatch."""
    features = features.detach().requires_grad_()
    calls: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        name: partial(_results, step, features, scene, backend)
        for name, backend in BACKENDS.items()
    }
    require_equal(step.name, *(call() for call in calls.values()))
    return Cost(
        step=step,
        served_by=dispatch.choose(step.name, (features, scene.mask), None),
        milliseconds=_median_milliseconds(calls, device),
        extra_mib={name: extra_mib(call, device) for name, call in calls.items()},
    )


def compare_all(features: Tensor, scene: Scene, device: str) -> list[Cost]:
    return [
        compare(step, step.space(features), scene, device)
        for step in tqdm(STEPS, desc="timing the steps", unit="op")
    ]


def _results(step: Step, features: Tensor, scene: Scene, backend: str | None) -> tuple[Tensor, ...]:
    """The results of one call, and their gradients if they have any."""
    with pk.use_backend(backend):
        results = step.call(features, scene)
        if not step.differentiable:
            return results
        gradients = torch.autograd.grad(results, features, [torch.ones_like(r) for r in results])
    return *(result.detach() for result in results), *gradients


def on_both_backends(call: Callable[[], Results]) -> list[Results]:
    """The eager results and the accelerated ones."""
    results = []
    for backend in BACKENDS.values():
        with pk.use_backend(backend):
            results.append(call())
    return results


def require_equal(
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
        # `not <=` instead of `>`, so that NaN fails
        if not error <= TOLERANCE * largest:
            raise Mismatch(
                f"{name}: a result or gradient is {float(error):.3g} from the eager one,"
                f" whose largest entry is {float(largest):.3g}"
            )


def milliseconds(call: Callable[[], object], device: str) -> float:
    """Wall time of one call, until the device has finished it."""
    _synchronize(device)
    begin = time.perf_counter()
    call()
    _synchronize(device)
    return 1e3 * (time.perf_counter() - begin)


def _median_milliseconds(
    calls: Mapping[str, Callable[[], object]], device: str
) -> dict[str, float]:
    """The calls alternate, so that load on the machine slows all of them alike."""
    for call in calls.values():
        call()
    rounds = [
        {name: milliseconds(call, device) for name, call in calls.items()} for _ in range(ROUNDS)
    ]
    return {name: statistics.median(times[name] for times in rounds) for name in calls}


def extra_mib(call: Callable[[], object], device: str) -> float | None:
    """MiB that a call holds at its peak beyond what was in use before; None where that is unknown.

    The median of three, because other threads of the process allocate too.
    """
    measured = [extra_memory(call, device) for _ in range(3)]
    return None if None in measured else statistics.median(measured)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
