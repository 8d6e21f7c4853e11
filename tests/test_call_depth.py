"""From a public function to its first operator at most four files of the package are entered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels._core import dispatch

PACKAGE = Path(pk.__file__).parent
F = testing.features(1, 3, 8, 9)
Y = testing.random_labels(1, 8, 9, high=2)
W = testing.weights(1, 8, 9)
INDEX = torch.zeros(1, 5, dtype=torch.int64)
POINTS = torch.zeros(1, 1, 2)

CALLS: dict[str, Callable[[], Any]] = {
    "region_stats": lambda: pk.region_stats(F, Y, 2),
    "cas_loss": lambda: pk.cas_loss(F, Y, 2),
    "cas_loss released": lambda: pk.cas_loss(F, Y, 2, variant="released"),
    "metric_expression_loss": lambda: pk.metric_expression_loss(F, Y),
    "metric_expression_loss mined": lambda: pk.metric_expression_loss(F, Y, mining="hard"),
    "discriminative_loss": lambda: pk.discriminative_loss(F, Y, 2),
    "background_distance": lambda: pk.background_distance(F, W, normalize="minmax"),
    "masked_average_pool": lambda: pk.masked_average_pool(F, W, upsample="bilinear"),
    "compact_labels": lambda: pk.compact_labels(Y),
    "sample_pixels": lambda: pk.sample_pixels(Y, 5),
    "triplet_hinge": lambda: pk.triplet_hinge(F, INDEX, INDEX, INDEX),
    "is_triplet_loss": lambda: pk.is_triplet_loss(F, Y, num_samples=5),
    "matching_scores": lambda: pk.matching_scores(F, F, Y, 2, reduce="topk", k=2),
    "label_transfer": lambda: pk.label_transfer(F, F, Y, 2),
    "sample_reference": lambda: pk.sample_reference(F, Y, 2, 5),
    "prior_mask": lambda: pk.prior_mask(F, F, W),
    "prior_mask softmax": lambda: pk.prior_mask(F, F, W, reduce="softmax"),
    "pair_similarity_loss": lambda: pk.pair_similarity_loss(F, F, Y, Y),
    "click_maps": lambda: pk.click_maps(POINTS, INDEX[:, :1], (8, 9)),
    "distance_transform": lambda: pk.distance_transform(Y, squared=True),
    "next_click": lambda: pk.next_click(Y, Y, random=True),
    "simulate_clicks": lambda: pk.simulate_clicks(Y, 1, 1, others=Y),
}


def entered(call: Callable[[], Any]) -> tuple[set[str], set[str]]:
    """The package's files with a frame before the first operator, and in the whole call."""
    before: set[str] = set()
    all_files: set[str] = set()
    started = False

    class SeesOperators(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal started
            started |= func.namespace == "pixelkernels"
            return func(*args, **(kwargs or {}))

    def profile(frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            all_files.add(str(path.relative_to(PACKAGE)))
            if not started:
                before.add(str(path.relative_to(PACKAGE)))

    previous = sys.getprofile()
    with SeesOperators():
        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(previous)
    assert started, "no operator ran"
    return before, all_files


def test_every_function_is_called() -> None:
    assert {name.split()[0] for name in CALLS} == set(dispatch.IMPLEMENTED)


@pytest.mark.parametrize("name", CALLS)
def test_at_most_four_files_to_the_operator(name: str) -> None:
    with pk.use_backend("cpu"):
        before, _ = entered(CALLS[name])
    assert len(before) <= 4, sorted(before)
