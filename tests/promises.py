"""How the suites of all families look at what a call promises beside its result."""

from __future__ import annotations

import torch


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def peak_extra_bytes(run, *, warm_up=True) -> int:
    """How far the peak resident memory rises above what is resident now."""

    def resident(field):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

    if warm_up:
        run()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def replayed_from_a_cuda_graph(run):
    """The results of `run()` as a captured graph finds them again."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = flat(run())
    graph.replay()
    torch.cuda.synchronize()
    return captured
