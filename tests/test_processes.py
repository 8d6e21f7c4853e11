"""Many threads at once, and processes that were forked from one that had threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import run_python
from tests.test_faults import needs_library

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
BATCH, CHANNELS, SIDE = 2, 6, 48


def inputs():
    f = testing.features(BATCH, CHANNELS, SIDE, SIDE)
    labels = testing.random_labels(BATCH, SIDE, SIDE, low=-1, high=5)
    return f, labels, testing.weights(BATCH, SIDE, SIDE)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


# every public function, by what it gives for the same inputs
CALLS = {
    "region_stats": lambda f, y, w: pk.region_stats(f, y, 5),
    "cas_loss": lambda f, y, w: pk.cas_loss(f, y, 5),
    "metric_expression_loss": lambda f, y, w: pk.metric_expression_loss(f, y, mining="hard"),
    "discriminative_loss": lambda f, y, w: pk.discriminative_loss(f, y, 5),
    "background_distance": lambda f, y, w: pk.background_distance(f, w),
    "masked_average_pool": lambda f, y, w: pk.masked_average_pool(f, w),
    "compact_labels": lambda f, y, w: pk.compact_labels(y)[0],
    "click_maps": lambda f, y, w: pk.click_maps(y[:, :9, :2], y[:, :9, 0].clamp(0, 1), (SIDE, 50)),
    "distance_transform": lambda f, y, w: pk.distance_transform(y == 1),
    "next_click": lambda f, y, w: pk.next_click(y == 1, y),
    "simulate_clicks": lambda f, y, w: pk.simulate_clicks(y == 1, 3, 3, generator=seeded()),
    "matching_scores": lambda f, y, w: pk.matching_scores(f, f, y, 5, reduce="softmax"),
    "label_transfer": lambda f, y, w: pk.label_transfer(f, f, y, 5, reduce="topk", k=3),
    "sample_reference": lambda f, y, w: pk.sample_reference(f, y, 5, 4, generator=seeded()),
    "prior_mask": lambda f, y, w: pk.prior_mask(f, f, w),
    "pair_similarity_loss": lambda f, y, w: pk.pair_similarity_loss(f, f, y, y),
    "sample_pixels": lambda f, y, w: pk.sample_pixels(y == 1, 9, generator=seeded()),
    "triplet_hinge": lambda f, y, w: pk.triplet_hinge(f, *y[:, :3].clamp(min=0).unbind(1)),
    "is_triplet_loss": lambda f, y, w: pk.is_triplet_loss(f, y, generator=seeded()),
}
# what these give is made of others
OTHERS = ("available_backends", "explain", "use_backend")


def results(call, f, labels, w) -> list[torch.Tensor]:
    leaf = f.clone().requires_grad_()
    found = call(leaf, labels, w)
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    learned = [x for x in found if x.requires_grad]
    if learned:
        found += torch.autograd.grad([x.sum() for x in learned], leaf)
    return [x.detach() for x in found]


def test_the_list_is_whole():
    functions = {name for name in pk.__all__ if name[0].islower()}
    assert functions == {*CALLS, *OTHERS}


def test_threads_that_call_everything_at_once_get_what_one_gets():
    arguments = inputs()
    expected = {name: results(call, *arguments) for name, call in CALLS.items()}
    wrong: list[str] = []
    together = threading.Barrier(4)

    def work(first: int) -> None:
        try:
            together.wait()
            # so that different functions meet
            for i in range(2 * len(CALLS)):
                name = list(CALLS)[(5 * first + i) % len(CALLS)]
                found = results(CALLS[name], *arguments)
                for one, other in zip(found, expected[name], strict=True):
                    if not torch.equal(one, other):
                        wrong.append(name)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_a_backend_in_use_holds_for_all_threads():
    # it is a plain global, which torch.compile guards; that is documented
    seen: list[str | None] = []
    with pk.use_backend("eager"):
        thread = threading.Thread(target=lambda: seen.append(pk._core.dispatch.requested(None)))
        thread.start()
        thread.join()
    assert seen == ["eager"]


# ---- forked processes: of the parent's threads they have none ----

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
        signal.alarm(20)  # a child that waits for a thread it does not have waits forever
        os._exit(0 if call() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with status {status}"
"""


@needs_fork
@needs_library
def test_a_forked_process():
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
def test_workers_of_a_data_loader(tmp_path: Path):
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
