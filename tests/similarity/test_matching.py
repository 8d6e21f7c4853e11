"""What holds for matching scores and label transfer alone."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from tests.helpers import backends

ALL = backends("eager", "cpu", "triton")


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("reduce", ["max", "mean", "topk"])
def test_class_of_nan_loses_to_one_of_minus_infinity(reduce, classes, backend, device):
    points = torch.tensor([[[torch.nan, -torch.inf, -torch.inf]]], device=device)
    k = {"k": 2} if reduce == "topk" else {}
    for last in (2, classes - 1):  # in another block of classes, too
        labels = torch.tensor([[0, last, last]], device=device)
        best, scores = pk.label_transfer(
            *(torch.ones(1, 1, 4, device=device), points, labels, classes),
            reduce=reduce,
            backend=backend,
            **k,
        )
        assert scores[0, 0].isnan().all()
        assert (best == last).all()
