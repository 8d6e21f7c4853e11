"""Whether the installed package is what its version says and computes what eager does.

It runs in the environment that a wheel was installed into, away from any checkout and with no
compiler on PATH: every public operation, forward and backward, on every backend that is usable.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels import testing
from pixelkernels._core import dispatch, extension

Operation = Callable[[str, str | None], list[Tensor]]
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "nvcc", "ninja")


def with_gradients(call: Callable[..., object], *inputs: Tensor) -> list[Tensor]:
    """The tensors that a call gives, and the gradients of their squares' sum in its inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    found = call(*leaves)
    tensors = [found] if isinstance(found, Tensor) else list(found)
    loss = sum(x.square().sum() for x in tensors if x.requires_grad)
    return [x.detach() for x in tensors] + list(torch.autograd.grad(loss, leaves))


def region_operations() -> dict[str, Operation]:
    f = testing.features(2, 5, 12, 10)
    w = testing.weights(2, 12, 10)
    labels = testing.random_labels(2, 12, 10, low=-1, high=4)

    def losses(name: str, *arguments: object) -> Operation:
        call = getattr(pk, name)

        def run(device: str, backend: str | None) -> list[Tensor]:
            own = [labels.to(device), *arguments]
            return with_gradients(lambda x: call(x, *own, backend=backend), f.to(device))

        return run

    def weighted(name: str) -> Operation:
        call = getattr(pk, name)
        return lambda device, backend: with_gradients(
            lambda x, y: call(x, y, backend=backend), f.to(device), w.to(device)
        )

    def compact(device: str, backend: str | None) -> list[Tensor]:
        compacted, count = pk.compact_labels(3 * labels.to(device), backend=backend)
        return [compacted, torch.tensor(count)]

    return {
        "region_stats": losses("region_stats", 4),
        "cas_loss": losses("cas_loss", 4),
        "metric_expression_loss": losses("metric_expression_loss"),
        "discriminative_loss": losses("discriminative_loss", 4),
        "background_distance": weighted("background_distance"),
        "masked_average_pool": weighted("masked_average_pool"),
        "compact_labels": compact,
    }


def distance_operations() -> dict[str, Operation]:
    points = torch.tensor([[[3, 4], [9, 7], [0, 0]], [[5, 5], [1, 8], [2, 2]]])
    labels = torch.tensor([[1, 0, -1], [1, 1, 0]])
    target = testing.coherent_labels(2, 24, 30, 3) == 1
    prediction = testing.coherent_labels(2, 24, 30, 3, seed=1) == 1
    # one pixel alone is far enough from the edge of this square, and of the others there is one
    square, other = torch.zeros(2, 1, 40, 40, dtype=torch.bool)
    square[:, 3:12, 3:12] = True
    other[:, 30, 31] = True

    def clicks(device: str, backend: str | None) -> list[Tensor]:
        return list(
            pk.simulate_clicks(
                square.to(device),
                1,
                1,
                others=other.to(device),
                strategy="objects",
                backend=backend,
            )
        )

    return {
        "click_maps": lambda device, backend: [
            pk.click_maps(points.to(device), labels.to(device), (12, 14), backend=backend)
        ],
        "distance_transform": lambda device, backend: [
            pk.distance_transform(target.to(device), backend=backend)
        ],
        "next_click": lambda device, backend: list(
            pk.next_click(prediction.to(device), target.to(device), backend=backend)
        ),
        "simulate_clicks": clicks,
    }


def similarity_operations() -> dict[str, Operation]:
    query = 0.4 * testing.features(2, 6, 9, 8)
    reference = 0.4 * testing.features(2, 6, 21, seed=1)
    support = 0.4 * testing.features(2, 6, 9, 8, seed=2)
    labels = torch.arange(42).view(2, 21) % 3
    x_labels = testing.random_labels(2, 9, 8, high=3)
    weights = testing.weights(2, 9, 8)

    def matched(name: str) -> Operation:
        call = getattr(pk, name)
        return lambda device, backend: with_gradients(
            lambda q, r: call(q, r, labels.to(device), 3, reduce="mean", backend=backend),
            *(query.to(device), reference.to(device)),
        )

    def prior(device: str, backend: str | None) -> list[Tensor]:
        # a weight scales both sides of a cosine, so that its gradient is rounding
        w = weights.to(device)
        return with_gradients(
            lambda q, s: pk.prior_mask(q, s, w, backend=backend),
            *(query.to(device), support.to(device)),
        )

    def pairs(device: str, backend: str | None) -> list[Tensor]:
        inputs = [query.to(device), reference.to(device)]
        own = [x_labels.to(device), labels.to(device)]
        return with_gradients(
            lambda x, y: pk.pair_similarity_loss(x, y, *own, backend=backend), *inputs
        )

    def sampled(device: str, backend: str | None) -> list[Tensor]:
        # more than there are, so that all are drawn, in an order of the backend's own
        features, own = query.to(device), x_labels.to(device)
        points, classes = pk.sample_reference(features, own, 3, 80, backend=backend)
        return [points.sort(dim=2).values, classes]

    return {
        "matching_scores": matched("matching_scores"),
        "label_transfer": matched("label_transfer"),
        "prior_mask": prior,
        "pair_similarity_loss": pairs,
        "sample_reference": sampled,
    }


def triplet_operations() -> dict[str, Operation]:
    f = testing.features(2, 5, 12, 10)
    sets = testing.random_labels(3, 2, 40, high=120)
    mask = testing.coherent_labels(2, 12, 10, 4) == 1

    def hinge(device: str, backend: str | None) -> list[Tensor]:
        rows = sets.to(device)
        return with_gradients(lambda x: pk.triplet_hinge(x, *rows, backend=backend), f.to(device))

    def loss(device: str, backend: str | None) -> list[Tensor]:
        def call(x: Tensor) -> Tensor:
            generator = torch.Generator(device).manual_seed(0)
            return pk.is_triplet_loss(
                x, mask.to(device), num_samples=30, generator=generator, backend=backend
            )

        with testing.same_draws("eager"):
            return with_gradients(call, f.to(device))

    def pixels(device: str, backend: str | None) -> list[Tensor]:
        return [pk.sample_pixels(mask.to(device), 120, backend=backend).sort(dim=1).values]

    return {"triplet_hinge": hinge, "is_triplet_loss": loss, "sample_pixels": pixels}


def check_operations() -> dict[str, list[str]]:
    """Every public operation, on its default backend and every usable one, beside eager: which
    backends each was compared on."""
    operations = {
        **region_operations(),
        **distance_operations(),
        **similarity_operations(),
        **triplet_operations(),
    }
    public = {
        name
        for name in pk.__all__
        if inspect.isfunction(getattr(pk, name))
        and "backend" in inspect.signature(getattr(pk, name)).parameters
    }
    assert public == set(operations), public ^ set(operations)
    compared = {}
    for name, run in operations.items():
        usable = [
            backend
            for backend in pk.available_backends()
            if backend != "eager" and backend in dispatch.IMPLEMENTED.get(name, dispatch.BACKENDS)
        ]
        for backend in (None, *usable):
            device = "cuda" if backend in ("cuda", "triton") else "cpu"
            for actual, expected in zip(run(device, backend), run(device, "eager"), strict=True):
                torch.testing.assert_close(
                    actual, expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
                )
        compared[name] = usable
    return compared


def refusal(call: Callable[[], object]) -> str:
    """Why a backend does not serve."""
    try:
        call()
    except pk.BackendUnavailable as error:
        return str(error)
    raise AssertionError("a backend served without its library")


def check_arrays() -> None:
    mask = np.zeros((2, 9, 11), bool)
    mask[:, 4, 5] = True
    if extension._C is None:
        assert "not built" in refusal(lambda: pkn.distance_transform(mask))
    else:
        expected = pk.distance_transform(torch.from_numpy(mask), backend="eager")
        assert np.array_equal(pkn.distance_transform(mask), expected.numpy())


def check_libraries(version: str) -> None:
    """The libraries that the local version promises are loaded, the others say why they are not."""
    base, _, local = version.partition("+")
    reasons, build = extension.REASONS, extension.BUILD
    if not local:
        assert "not built" in reasons["cpu"], reasons
        mask = torch.zeros(1, 2, 2, dtype=torch.bool)
        assert "not built" in refusal(lambda: pk.distance_transform(mask, backend="cpu"))
    else:
        assert reasons["cpu"] == "", reasons
        assert build["version"] == base, build
        assert build["built_against_torch"].startswith(build["runs_from_torch"]), build
    if not local.startswith("cu"):
        assert "not built" in reasons["cuda"], reasons
        assert not build.get("cuda"), build
    else:
        without = f"torch {torch.__version__} is a build without CUDA"
        assert reasons["cuda"] == ("" if torch.version.cuda else without), reasons
        assert "cu" + build["cuda"].replace(".", "") == local, build
        assert build["cuda_architectures"].count("+PTX") == 1, build


def check_information(version: str) -> None:
    """What `info` prints, read back, is what is so."""
    command = [sys.executable, "-m", "pixelkernels", "info"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    facts = json.loads(subprocess.check_output([*command, "--json"]))
    assert facts["versions"]["pixelkernels"] == version, facts["versions"]
    assert {name for name, why in facts["backends"].items() if not why} == set(
        pk.available_backends()
    ), facts["backends"]
    for name, reason in extension.REASONS.items():
        assert not reason or reason in facts["backends"][name], facts["backends"]


def main() -> None:
    package = Path(pk.__file__).resolve()
    assert package.is_relative_to(Path(sys.prefix).resolve()), f"{package} is not installed"
    assert not any(map(shutil.which, COMPILERS)), "there is a compiler on PATH"
    version = metadata.version("pixelkernels")
    check_libraries(version)
    check_information(version)
    check_arrays()
    compared = check_operations()
    reasons = {name: why or "loaded" for name, why in extension.REASONS.items() if name != "eager"}
    print(
        f"{version}, Python {sys.version.split()[0]}, torch {torch.__version__}: "
        f"{len(compared)} operations as eager computes them, "
        f"{sum(map(len, compared.values()))} comparisons of named backends "
        f"{sorted(set().union(*compared.values()))}; "
        + "; ".join(f"{name}: {why}" for name, why in reasons.items())
    )


if __name__ == "__main__":
    main()
