"""What changes no bit of a result: threads, autocast, strides, modules, NaN in ignored pixels."""

from __future__ import annotations

import inspect

import pytest
import torch

from pixelkernels import testing
from pixelkernels.testing.arguments import Features
from pixelkernels.testing.op import named_outputs
from pixelkernels.testing.samples import OPS
from tests.helpers import INTERPRETED, all_sizes, assert_same, sampled

ALL = ("eager", "cpu", "triton", "cuda")
COMPILED = ("cpu", "triton", "cuda")


@sampled(*COMPILED, cost=2)
def test_same_on_every_run_and_thread_count(sample, backend, device):
    call = sample.call(None if INTERPRETED else sample.op.sizes.threads, device)
    first = call.results(backend)
    threads = torch.get_num_threads()
    try:
        for count in (1, threads, threads + 1):
            torch.set_num_threads(count)
            assert_same(call.results(backend), first)
    finally:
        torch.set_num_threads(threads)


@sampled(*ALL, cost=2, when=lambda op, case: op.differentiable)
def test_autocast_changes_nothing(sample, backend, device):
    for dtype in (torch.float32, torch.float16):
        call = sample.call(device=device, dtype=dtype)
        expected = call.results(backend)
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs = call.outputs(backend)
        assert_same(outputs, {name: expected[name] for name in outputs})


@sampled(*COMPILED, when=lambda op, case: op.differentiable)
def test_gradient_does_not_depend_on_what_else_needs_one(sample, backend, device):
    call = sample.call(device=device)
    together = call.results(backend)
    for name in call.differentiable:
        found = call.results(backend, alone=name)
        assert_same(found, {key: together[key] for key in found})


@sampled(*COMPILED, cost=2, when=lambda op, case: not op.differentiable)
def test_strides_of_masks_and_labels_change_nothing(sample, backend, device):
    for layout in testing.LAYOUTS:
        one, other = (sample.call(device=device, layout=x) for x in (layout, "contiguous"))
        assert_same(one.results(backend), other.results(backend))


@sampled(*COMPILED, when=lambda op, case: op.differentiable and op.keeps_layout)
def test_gradient_keeps_the_layout(sample, backend, device):
    for layout in ("contiguous", "channels_last", "transposed"):
        call = sample.call(device=device, layout=layout)
        results = call.results(backend)
        for name, x in call.named(Features).items():
            assert results[f"gradient in {name}"].stride() == x.stride(), name


def channels(call, name):
    """The dimension of the channels."""
    shape = call.op.kind(call.case, name).shape
    return max(shape.find(letter) for letter in "CD")


@sampled(*ALL, when=lambda op, case: op.ignored is not None)
def test_ignored_pixels_may_hold_nan(sample, backend, device):
    for dims in all_sizes(sample.op)[: 1 if INTERPRETED else 3]:
        call = sample.call(dims, device)
        ignored = call.op.ignored(call)
        if not ignored:
            pytest.skip("every pixel enters")
        entries = {
            name: pixels.unsqueeze(channels(call, name)).expand_as(call.arguments[name])
            for name, pixels in ignored.items()
        }
        spoiled = {
            name: call.arguments[name].masked_fill(x, torch.nan) for name, x in entries.items()
        }
        found, expected = call.replaced(**spoiled).results(backend), call.results(backend)
        for name, pixels in ignored.items():
            assert (found[f"gradient in {name}"][entries[name]] == 0).all(), name
            # a weight of 0 has a gradient if its features are finite
            if "gradient in weights" in found:
                assert (found["gradient in weights"][pixels] == 0).all()
                expected["gradient in weights"].masked_fill_(pixels, 0)
        assert_same(found, expected)


@sampled(*COMPILED, when=lambda op, case: op.module is not None)
def test_module_is_its_function(sample, backend, device):
    call = sample.call(device=device)
    required, options = call.op.split(call.arguments)
    module = call.op.module(**options, **call.generator(), backend=backend)
    assert_same(named_outputs(module(*required.values())), call.outputs(backend))
    defaults = inspect.signature(call.op.module).parameters
    for name, value in call.case.options.items():
        assert (f"{name}={value!r}" in repr(module)) == (value is not defaults[name].default)


NUMPY_MISTAKES = {
    f"{op.name}-{mistake.name}": (mistake, call)
    for op in OPS.values()
    for mistake, call in op.mistakes()
    if op.numpy and not {"backend", "generator", "random"} & call.arguments.keys()
    # what an array cannot be
    if mistake.name.split()[-1] not in ("device", "sparse", "Tensor")
}


@pytest.mark.parametrize("mistake", NUMPY_MISTAKES.values(), ids=NUMPY_MISTAKES)
def test_numpy_function_refuses_what_the_tensor_function_does(mistake):
    (_, error, message, _), call = mistake
    arrays = {name: x.numpy() for name, x in call.tensors.items()}
    with pytest.raises(error, match=message):
        call.op.numpy(**{**call.arguments, **arrays})


@sampled("cpu", when=lambda op, case: op.numpy and "random" not in case.options)
def test_numpy_function_is_the_tensor_function(sample, backend):
    for layout in testing.LAYOUTS:
        call = sample.call(sample.op.sizes.ordinary[1], layout=layout)
        arrays = {name: x.numpy() for name, x in call.tensors.items()}
        found = call.op.numpy(**{**call.arguments, **arrays})
        assert_same(named_outputs(found), call.outputs(backend))
