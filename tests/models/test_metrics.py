"""The papers' metrics on examples computed by hand."""

from __future__ import annotations

import pytest
import torch

metrics = pytest.importorskip("pixelkernels.models.metrics", exc_type=ModuleNotFoundError)


def test_overlap_metrics():
    target = torch.tensor([[1, 1, 0, 0, 0, 0]]).bool()
    found = torch.tensor([[1, 0, 1, 0, 0, 0]]).bool()
    assert metrics.jaccard(found, target) == pytest.approx(1 / 3)
    assert metrics.pixel_precision(found, target) == pytest.approx(4 / 6)
    assert metrics.foreground_background_iou(found, target) == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert metrics.mean_iou([found, target], [target, target]) == pytest.approx(2 / 3)


def test_clicks_to_reach_an_iou():
    ious = torch.tensor([[0.2, 0.9], [0.8, 0.5], [0.3, 0.1]])
    assert metrics.clicks_to_reach(ious, 0.8).tolist() == [2, 1]
    assert metrics.clicks_to_reach(ious, 0.95).tolist() == [3, 3]


def test_saliency_measures():
    saliency = torch.tensor([[[0.9, 0.8, 0.1, 0.2]]])
    target = torch.tensor([[[1, 0, 1, 0]]])
    found = metrics.saliency_measures(saliency, target)
    assert found["MAE"] == pytest.approx((0.1 + 0.8 + 0.9 + 0.2) / 4)
    # twice the mean is 1.0, the upper limit of the threshold
    dark = metrics.saliency_measures(saliency * 0.5, target)
    assert dark["adaptive F-beta"] == pytest.approx(found["adaptive F-beta"], abs=1e-6)
    one_pixel = metrics.saliency_measures(torch.tensor([[[0.8, 0.1, 0.0, 0.0]]]), target)
    precision, recall = 1, 0.5
    expected = 1.3 * precision * recall / (0.3 * precision + recall)
    assert one_pixel["adaptive F-beta"] == pytest.approx(expected, rel=1e-6)
