"""Click maps: exact at whole points, and the values that only they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pixelkernels as pk
from pixelkernels.distance import reference
from pixelkernels.testing.samples import OPS
from tests.helpers import Sample, backends

ALL = backends("eager", "cpu", "triton", "cuda")


def clicks(device="cpu", **dims):
    """The points and labels of a sample: inside and outside, at whole and broken places, padded."""
    call = Sample(OPS["click_maps"], "whole").call(
        {"B": 2, "N": 12, "H": 48, "W": 65, **dims}, device
    )
    return call.arguments["points"], call.arguments["labels"]


@pytest.mark.parametrize("backend", ALL)
def test_click_maps_of_whole_points_are_exact(backend, device):
    points, labels = clicks(device, N=40, H=70, W=200)
    points = points.round().long()
    maps = pk.click_maps(points, labels, (70, 200), truncate=None, backend=backend)
    for image in range(2):
        for channel, label in enumerate((1, 0)):
            sites = points[image, labels[image] == label].cpu().numpy()
            pixels = np.argwhere(np.ones((70, 200)))
            d2 = np.square(pixels[:, None] - sites[None]).sum(-1).min(1).reshape(70, 200)
            expected = np.sqrt(d2.astype(np.float32))
            np.testing.assert_allclose(maps[image, channel].cpu().numpy(), expected, rtol=2e-7)


@pytest.mark.parametrize("backend", ALL)
def test_disks_hold_their_border(backend, device):
    points = torch.tensor([[[20, 30]]], device=device)
    labels = torch.ones(1, 1, dtype=torch.bool, device=device)
    disk = pk.click_maps(points, labels, (50, 60), encoding="disk", radius=5, backend=backend)
    assert disk[0, 0].sum() == 81
    assert disk[0, 0, 20, 35] == disk[0, 0, 17, 26] == 1
    assert (disk[0, 1] == 0).all()
    wide = pk.click_maps(points, labels, (50, 60), encoding="disk", radius=2**40, backend=backend)
    assert (wide[0, 0] == 1).all()


@pytest.mark.parametrize("backend", ALL)
def test_padding_may_hold_anything(backend, device):
    points, labels = clicks(device)
    expected = pk.click_maps(points, labels, (48, 65), backend=backend)
    points[labels == -1] = torch.nan
    assert torch.equal(pk.click_maps(points, labels, (48, 65), backend=backend), expected)


@pytest.mark.parametrize("backend", backends("triton", "cuda"))
def test_wrong_values_are_absent_on_a_device(backend, device):
    if device == "cpu":
        pytest.skip("CPU tensors are checked; see test_click_at_nan_is_absent")
    points, labels = clicks(device)
    expected = pk.click_maps(points[:, 2:], labels[:, 2:], (48, 65), backend=backend)
    points[:, 0, 1], labels[:, 0] = torch.nan, 1
    labels[:, 1] = 5
    actual = pk.click_maps(points, labels, (48, 65), backend=backend)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("backend", ALL)
def test_clicks_far_outside_and_all_in_one_place(backend, device):
    points = torch.tensor([[[1e6, -1e6], [torch.inf, 3.0]], [[7.0, 7.0], [7.0, 7.0]]])
    labels = torch.tensor([[1, 0], [1, 1]])
    maps = pk.click_maps(
        points.to(device), labels.to(device), (20, 70), truncate=None, backend=backend
    )
    exact = reference.click_maps(points.double(), labels, 1, 20, 70, "euclidean", 0.0, torch.inf)
    torch.testing.assert_close(maps.cpu().double(), exact, rtol=1e-6, atol=0)


def test_results_carry_no_graph():
    points, labels = clicks()
    maps = pk.click_maps(points.requires_grad_(), labels, (20, 30))
    assert not maps.requires_grad
    bias = torch.zeros(1, requires_grad=True)  # as the learnable bias of f-BRS
    (maps + bias).sum().backward()
    assert bias.grad == maps.numel()


def test_wrong_labels_raise_inside_a_compiled_graph():
    compiled = torch.compile(pk.click_maps, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"labels: expected 1 .* got 7"):
        compiled(torch.zeros(2, 3, 2), torch.full((2, 3), 7), (4, 5))


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_tiny_and_huge_radii(backend):
    points, labels = torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1, dtype=torch.int64)

    def maps(radius, encoding):
        options = {"encoding": encoding, "radius": radius, "backend": backend}
        return pk.click_maps(points, labels, (4, 5), **options)[0]

    here = torch.zeros(4, 5)
    here[1, 2] = 1
    for radius in (1e-30, 1e-300):
        assert torch.equal(maps(radius, "disk")[0], here)
        assert torch.equal(maps(radius, "gaussian")[0], here)
        assert torch.equal(maps(radius, "tanh")[0], 1 - here)
    for radius in (1e30, 1e300):
        positive, negative = maps(radius, "disk")
        assert (positive == 1).all()
        assert (negative == 0).all()  # there is no negative click
        assert torch.equal(maps(radius, "gaussian")[1], torch.zeros(4, 5))
        assert torch.equal(maps(radius, "tanh")[1], torch.ones(4, 5))


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_limit_past_float32_is_none(backend):
    points, labels = clicks()
    found, expected = (
        pk.click_maps(points, labels, (4, 5), truncate=x, backend=backend) for x in (1e300, None)
    )
    assert torch.equal(found, expected)


def test_maps_without_columns_take_no_time():
    maps = pk.click_maps(*clicks(), (2**31 - 2, 0))
    assert maps.shape == (2, 2, 2**31 - 2, 0)
