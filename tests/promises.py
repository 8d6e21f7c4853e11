"""How the suites of all families look at what a call promises beside its result."""

from __future__ import annotations

import torch

from tests.helpers import equal, flat, peak_extra_bytes  # noqa: F401


def results(call, arguments):
    """What a call gives for one seed, and the gradients of the sum of its floats' squares."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in arguments]
    torch.manual_seed(0)
    found = flat(call(*leaves))
    floats = [x for x in found if x.requires_grad]
    if not floats:
        return found
    loss = sum(x.square().sum() for x in floats)
    used = [x for x in leaves if x.is_floating_point()]
    return [*found, *torch.autograd.grad(loss, used)]


def compiles_whole(call, *cases) -> bool:
    """Whether one compiled graph of dynamic shapes gives the bits of the call, for all cases."""
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    return all(equal(results(compiled, case), results(call, case)) for case in cases)


def keeps_its_bits(call, arguments) -> bool:
    """From run to run, and for any number of threads."""
    first = results(call, arguments)
    threads = torch.get_num_threads()
    try:
        for count in (1, threads, threads + 1):
            torch.set_num_threads(count)
            if not equal(first, results(call, arguments)):
                return False
    finally:
        torch.set_num_threads(threads)
    return True


def ignores_autocast(call, arguments, device) -> bool:
    """For these arguments, and for them in bfloat16; the backward is outside, as torch wants it."""

    def cast(*tensors):
        with torch.autocast(device, dtype=torch.bfloat16):
            return call(*tensors)

    low = [x.bfloat16() if x.is_floating_point() else x for x in arguments]
    return all(equal(results(cast, case), results(call, case)) for case in (arguments, low))


def replayed_from_a_cuda_graph(run):
    """The results of `run()` as a captured graph finds them again."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = flat(run())
    graph.replay()
    torch.cuda.synchronize()
    return captured
