"""Inputs at the edge: nothing to compute from, bad input, offsets past 2^31, extra memory."""

from __future__ import annotations

import inspect

import pytest
import torch

import pixelkernels as pk
from pixelkernels._core import dispatch
from pixelkernels.testing.arguments import Features
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.samples.regions import masked_average_pool
from tests.helpers import INTERPRETED, peak_extra_bytes, sampled

ALL = ("eager", "cpu", "triton", "cuda")
MISTAKES = {
    f"{op.name}-{mistake.name}": (mistake, call)
    for op in OPS.values()
    for mistake, call in op.mistakes()
}


def test_the_registry_has_every_public_function_and_argument():
    functions = {name for name in pk.__all__ if name[0].islower()}
    assert functions - {"available_backends", "explain", "use_backend"} == set(OPS)
    assert set(dispatch.IMPLEMENTED) == set(OPS)
    for op in OPS.values():
        assert {*op.arguments, "backend"} == set(inspect.signature(op.function).parameters)


@sampled(*ALL, when=lambda op, case: op.nothing if case.nothing is None else case.nothing)
def test_nothing_to_compute_from_gives_the_defined_value(sample, backend, device):
    small = sample.tiny
    calls = [sample.call(small, device, nothing=True)]
    letters = calls[0].letters
    for empty in sample.op.sizes.empty:
        if empty.keys() & letters:
            calls.append(sample.call({**small, **empty}, device))
    for call in calls:
        results = call.results(backend)
        defined = call.case.nothing or call.op.nothing
        if not len(call.first):
            defined = call.case.no_images or defined
        outputs = [x for name, x in results.items() if not name.startswith("gradient")]
        for x, value in zip(outputs, defined, strict=True):
            assert (x == value).all()
        if call.op is masked_average_pool:  # whose eps defines a gradient in weights of 0
            del results["gradient in weights"]
        for name, x in results.items():
            if name.startswith("gradient"):
                assert (x == 0).all(), name


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_bad_input_names_the_argument(mistake):
    (_, error, message, _), call = mistake
    with pytest.raises(error, match=message):
        call.op.function(**call.arguments)


def far(x: torch.Tensor) -> torch.Tensor:
    """The same values, with channels and images 2^31 elements apart."""
    *_, height, width = x.shape
    strides = [2**31] * (x.dim() - 2) + [width, 1]
    storage = torch.empty(2**31 + height * width, dtype=x.dtype, device=x.device)
    # pages of the allocation that no pixel lies in are never touched on the CPU
    return storage.as_strided(x.shape, strides).copy_(x)


@pytest.mark.keeps_memory
@sampled(*ALL, cost=2, when=lambda op, case: op.differentiable)
def test_offsets_past_int32(sample, backend, device):
    # the interpreter touches every page
    for images, channels in ((1, 2),) if INTERPRETED else ((1, 2), (2, 1)):
        dims = {**sample.tiny, "B": images, "C": channels, "D": channels, "H": 16, "W": 8}
        call = sample.call(dims, device, dtype=torch.float16)
        moved = {name: far(x) for name, x in call.named(Features).items() if x.dim() == 4}
        found, expected = call.replaced(**moved).results(backend), call.results(backend)
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x, equal_nan=True)


@pytest.mark.keeps_memory
@sampled("cpu", cost=2, when=lambda op, case: op.memory is not None)
def test_extra_memory_is_bounded(sample, backend):
    assert_extra_memory_is_bounded(sample, backend, "contiguous")


@pytest.mark.keeps_memory
@sampled("cpu", cost=3, when=lambda op, case: op.memory and op.letters & {"C", "D"})
def test_extra_memory_of_channels_last_is_bounded(sample, backend):
    assert_extra_memory_is_bounded(sample, backend, "channels_last")


def assert_extra_memory_is_bounded(sample, backend, layout):
    call = sample.call(sample.op.sizes.large, layout=layout)
    allowed = call.op.memory(call)
    assert peak_extra_bytes(lambda: call.outputs(backend)) <= allowed.forward

    def with_gradient():
        leaves = {name: x.detach().requires_grad_() for name, x in call.differentiable.items()}
        outputs = call.outputs(backend, **leaves).values()
        loss = sum(x.where(x.isfinite(), 0).sum() for x in outputs if x.requires_grad)
        torch.autograd.grad(loss, list(leaves.values()))

    if call.differentiable:
        assert peak_extra_bytes(with_gradient) <= allowed.both
