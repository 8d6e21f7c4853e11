"""Triton's kernels of the similarity family with other limits than the default ones."""

from __future__ import annotations

import pytest
import torch

from pixelkernels.similarity import ops, reference
from pixelkernels.similarity import triton as kernels
from pixelkernels.similarity.triton import topk
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees
from tests.helpers import Sample, backends, first_quick

TRITON = pytest.mark.parametrize("backend", backends("triton"))


@TRITON
@pytest.mark.parametrize("metric", first_quick(*ops.METRICS))
def test_more_best_points_than_the_registers_hold(metric, backend, device, monkeypatch):
    monkeypatch.setattr(topk, "MOST_KEPT", 2)
    call = Sample(OPS["matching_scores"], f"{metric}-identity-topk").call(device=device)
    assert_agrees(call.replaced(k=20), backend)


@TRITON
@pytest.mark.parametrize("scale", [0.25, 0.0, -0.25])
@pytest.mark.parametrize("metric", ["dot", "sqeuclidean"])
@pytest.mark.parametrize("reduce", ["max", "min", "topk"])
def test_of_equal_points_the_first_is_taken(metric, reduce, scale, backend, device, monkeypatch):
    """Small integers keep similarities exact."""
    # the best points in registers, or found by repeated scans
    monkeypatch.setattr(topk, "MOST_KEPT", 64 if scale else 0)
    generator = torch.Generator().manual_seed(0)
    query, points = (
        torch.randint(-1, 2, (1, 2, 1, n), generator=generator).float().to(device) for n in (9, 90)
    )
    order = torch.randperm(90, generator=generator).to(device)[None]
    offsets = torch.tensor([[0, 3, 3, 80]], device=device)
    k = 7 if reduce == "topk" else 0
    codes = (ops.METRICS.index(metric), 0, ops.REDUCES.index(reduce), k)
    a, b = torch.tensor([scale, 0.0], device=device)
    scores, labels, edge, index = kernels.matching_scores(
        query, points, order, offsets, None, a, b, *codes
    )
    s = reference.similarity(query.flatten(2), points.flatten(2)[..., order[0]], metric)[0]
    smaller = bool(reference.smaller_is_better(metric, a))
    for c in range(3):
        begin, end = offsets[0, c : c + 2].tolist()
        if begin == end:
            assert (index[0, c] == -1).all()
            assert (scores[0, c] == (torch.inf if smaller else -torch.inf)).all()
            continue
        ascending = (scale < 0) != (reduce == "min")
        if reduce == "topk":
            ascending = scale < 0 or metric == "sqeuclidean"
        best = s[begin:end].sort(dim=0, descending=not ascending, stable=True)
        last = min(max(k, 1), end - begin) - 1
        assert torch.equal(index[0, c, 0], (begin + best.indices[last]).int())
        if reduce == "topk":
            assert torch.equal(edge[0, c, 0], best.values[last])
        torch.testing.assert_close(scores[0, c, 0], scale * best.values[: last + 1].mean(0))
    present = (offsets.diff() > 0).view(1, 3)
    assert torch.equal(labels, reference.best_labels(scores, present, torch.tensor(smaller)))
