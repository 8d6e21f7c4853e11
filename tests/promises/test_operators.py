"""What torch does with a call: compile it, fake it, map it, capture it, differentiate it twice."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import pixelkernels as pk
from pixelkernels.testing.arguments import How
from tests.helpers import INTERPRETED, assert_same, needs_gpu, sampled

COMPILED = ("cpu", "triton", "cuda")


class Recorded(TorchDispatchMode):
    """The operators of this library that run inside, once for each set of options."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "pixelkernels":
            options = tuple(x for x in args if not isinstance(x, torch.Tensor))
            copies = tree_map_only(torch.Tensor, lambda x: x.detach().clone(), args)
            learned = [isinstance(x, torch.Tensor) and x.requires_grad for x in args]
            self.calls.setdefault((function, repr(options), *learned), (copies, learned))
        return function(*args, **(kwargs or {}))


# without the one that traces and differentiates, as test_compiles_to_one_graph does
UNTRACED = ("test_schema", "test_autograd_registration", "test_faketensor")


def check_operator(function, args, learned):
    """opcheck; with a gradient for the arguments that had one in the call."""
    checks = {"test_utils": UNTRACED} if INTERPRETED else {}
    torch.library.opcheck(function, args, **checks)
    if not any(learned):
        return
    leaves = tuple(
        x.clone().requires_grad_() if wants else x for x, wants in zip(args, learned, strict=True)
    )
    returned = [x for x in tree_leaves(function(*args)) if isinstance(x, torch.Tensor)]
    # opcheck differentiates the sum of the outputs and cannot begin it with an integer one
    if not returned[0].is_floating_point():
        checks = {"test_utils": UNTRACED}
    torch.library.opcheck(function, leaves, **checks)


@sampled(*COMPILED, cost=2)
def test_operators_pass_opcheck(sample, backend, device):
    for layout in ("transposed",) if INTERPRETED else ("contiguous", "transposed"):
        with Recorded() as recorded:
            sample.call(sample.tiny, device, layout=layout).results(backend)
        for (function, *_), (args, learned) in recorded.calls.items():
            check_operator(function, args, learned)


@contextmanager
def seeded():
    """The global generators in a known state: a graph takes no other."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("dynamic", [True, False])
@sampled(*COMPILED, cost=2, when=lambda op, case: op.compiles)
def test_compiles_to_one_graph(sample, backend, device, dynamic):
    torch._dynamo.reset()
    function = sample.op.function
    # aot_eager traces, fakes and differentiates as inductor does, without its C++ compiler
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    # the fake kernels of Triton are those of the compiled operators
    for dims in (sample.tiny,) if INTERPRETED else sample.op.sizes.small[: 1 + dynamic]:
        call = sample.call(dims, device)
        drawing = {"generator": None} if call.op.draws else {}
        with seeded():
            expected = call.results(backend, **drawing)
        with seeded():
            found = call.through(compiled).results(backend, **drawing)
        for name, x in expected.items():
            # tracing decomposes some of torch's own operations, which are rounded differently then
            torch.testing.assert_close(found[name], x, rtol=1e-6, atol=1e-6)


@sampled(*COMPILED, when=lambda op, case: op.differentiable and op.once_differentiable)
def test_second_derivative_raises(sample, backend, device):
    call = sample.call(sample.tiny, device)
    leaves = {name: x.requires_grad_() for name, x in call.differentiable.items()}
    outputs = call.outputs(backend, **leaves)
    loss = sum(x.where(x.isfinite(), 0).square().sum() for x in outputs.values() if x.requires_grad)
    gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    for gradient in gradients:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward(retain_graph=True)


@sampled("cpu", when=lambda op, case: op.compiles)
def test_vmap_falls_back_to_eager(sample, backend, device):
    call = sample.call(device=device)
    calls = [call, call.mapped(lambda x: x.flip(-1) if x.dim() else x)]
    names = tuple(call.tensors)
    stacked = [torch.stack([one.arguments[name] for one in calls]) for name in names]

    def run(*tensors):
        return call.outputs(None, **dict(zip(names, tensors, strict=True)))

    mapped = torch.func.vmap(run, randomness="same")(*stacked)
    for i, one in enumerate(calls):
        for name, expected in one.outputs("eager").items():
            torch.testing.assert_close(mapped[name][i], expected)


def test_vmap_takes_bool_masks():
    prediction, target = torch.rand(2, 3, 1, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    mapped = torch.func.vmap(pk.next_click)(prediction, target)
    for i, expected in enumerate(map(pk.next_click, prediction, target)):
        assert all(torch.equal(x[i], y) for x, y in zip(mapped, expected, strict=True))


def facts(outputs):
    return {name: (x.shape, x.dtype) for name, x in outputs.items()}


@sampled("eager", when=lambda op, case: op.compiles)
def test_meta_tensors_give_shapes_and_dtypes(sample, backend):
    one_channel = {**sample.tiny, "C": 1, "D": 1}  # which torch reduces otherwise there
    for dims in (None, one_channel):
        call = sample.call(dims)
        found = call.mapped(lambda x: x.to("meta")).outputs()
        assert facts(found) == facts(call.outputs(backend))
        assert all(x.is_meta for x in found.values())


@sampled(*COMPILED, when=lambda op, case: op.compiles)
def test_fake_tensors_of_more_elements_than_int32_counts(sample, backend, device):
    """Shapes and dtypes are those of eager on meta tensors."""
    call = sample.call(sample.tiny, device)
    drawing = {"generator": None} if call.op.draws else {}
    sizes = dict.fromkeys("CDHWPQXY", 512) | {"B": 9000}

    def grown(device):
        how = How({**sample.tiny, **sizes, **call.case.dims})
        shapes = {name: call.op.kind(call.case, name).sizes(how) for name in call.tensors}
        return call.replaced(
            **{
                name: torch.empty(shape, dtype=call.arguments[name].dtype, device=device)
                for name, shape in shapes.items()
            }
        )

    with FakeTensorMode():
        found = grown(device).results(backend, **drawing)
    expected = grown("meta").results("eager", **drawing)
    assert facts(found) == facts(expected)


@needs_gpu
@sampled("triton", "cuda", when=lambda op, case: op.compiles)
def test_captures_in_a_cuda_graph(sample, backend, device):
    call = sample.call(device=device)
    drawing = {"generator": None} if call.op.draws else {}
    call.results(backend, **drawing)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call.results(backend, **drawing)
    graph.replay()
    torch.cuda.synchronize()
    if not sample.op.draws:  # which draws anew
        assert_same(captured, call.results(backend))
