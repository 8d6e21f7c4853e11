"""Many threads at once, and processes that were forked from one that had threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import pixelkernels as pk
from pixelkernels.testing.samples import OPS
from tests.core.test_faults import needs_library
from tests.helpers import Sample, assert_same, run_python

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_concurrent_calls_give_what_one_gives():
    calls = [Sample(op, op.quick_cases[0]).call() for op in OPS.values() if "cpu" in op.backends]
    expected = [call.results("cpu") for call in calls]
    errors: list[str] = []
    barrier = threading.Barrier(4)

    def work(first: int) -> None:
        try:
            barrier.wait()
            # each thread begins elsewhere, so that different functions run at once
            for i in range(2 * len(calls)):
                index = (5 * first + i) % len(calls)
                assert_same(calls[index].results("cpu"), expected[index])
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_use_backend_holds_for_all_threads():
    seen: list[str | None] = []
    with pk.use_backend("eager"):
        thread = threading.Thread(target=lambda: seen.append(pk._core.dispatch.requested(None)))
        thread.start()
        thread.join()
    assert seen == ["eager"]


# ---- forked processes, which have none of the threads of their parent ----

PARENT = """
import os, signal, sys, numpy as np, torch
import pixelkernels as pk, pixelkernels.numpy as pkn
from pixelkernels import testing
torch.set_num_threads(2)
f = testing.features(4, 8, 200, 200)
labels = testing.random_labels(4, 200, 200, high=7)
mask = (labels == 0).numpy()
distance, stats = pkn.distance_transform(mask), pk.region_stats(f, labels, 7)
clicks = pkn.next_click(mask, labels.numpy())
assert np.array_equal(pk.distance_transform(torch.from_numpy(mask)).numpy(), distance)

def in_a_child(call):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for a thread of its parent never ends
        os._exit(0 if call() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with status {status}"
"""


@needs_fork
@needs_library
def test_forked_process_computes():
    run_python(
        PARENT
        + """
def arrays():
    found = pkn.next_click(mask, labels.numpy())
    return np.array_equal(pkn.distance_transform(mask), distance) and all(
        np.array_equal(one, other) for one, other in zip(found, clicks))

def tensors_on_one_thread():
    torch.set_num_threads(1)
    found = pk.region_stats(f.requires_grad_(), labels, 7)
    found.variance.sum().backward()
    distances = pk.distance_transform(torch.from_numpy(mask))
    return (torch.equal(found.mean, stats.mean) and bool(f.grad.isfinite().all())
            and np.array_equal(distances.numpy(), distance))

in_a_child(arrays)
in_a_child(tensors_on_one_thread)
"""
    )


@needs_fork
@needs_library
def test_forked_workers_of_a_data_loader_compute(tmp_path: Path):
    run_python(
        PARENT
        + """
class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        i %= 4
        return (torch.from_numpy(pkn.distance_transform(mask[i])),
                pk.region_stats(f[i : i + 1], labels[i : i + 1], 7).mean[0],
                pk.distance_transform(labels[i] == 0))

loader = torch.utils.data.DataLoader(
    Images(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=30)
count = 0
for arrays, means, tensors in loader:
    assert np.array_equal(arrays.numpy(), distance)
    assert torch.equal(means, stats.mean)
    assert torch.equal(arrays, tensors)
    count += 1
assert count == 2
"""
    )
