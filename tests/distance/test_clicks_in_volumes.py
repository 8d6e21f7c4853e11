"""Clicks in volumes: their maps, those of SAM-Med3D on the deepest error, and simulated ones."""

from __future__ import annotations

import edt
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels import testing
from tests.helpers import backends, first_quick, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")
SHAPE = (7, 20, 23)


def volumes(seed: int) -> Tensor:
    """Four volumes of blobs, and an empty one."""
    labels = testing.coherent_labels(4, SHAPE[0] * SHAPE[1], SHAPE[2], 7, seed=seed)
    blobs = (labels == 1).view(4, *SHAPE)
    return torch.cat([blobs, torch.zeros_like(blobs[:1])])


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("size", first_quick((3, 5, 40), (1, 1, 1), (2, 70, 3)), ids=str)
def test_maps_are_distances_to_the_nearest_click(size, backend, device):
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(2, 50, 3, generator=generator) * 1.4 - 0.2) * torch.tensor(size)
    points[0] = points[0].round()
    labels = torch.randint(-1, 2, (2, 50), generator=generator)
    labels[1][labels[1] == 1] = 0
    options = {"spatial_dims": 3, "truncate": None, "backend": backend}
    maps = pk.click_maps(points.to(device), labels.to(device), size, **options)
    assert maps.shape == (2, 2, *size)
    voxels = torch.cartesian_prod(*(torch.arange(side) for side in size)).view(-1, 3).double()
    for image in range(2):
        for index, label in enumerate((1, 0)):
            clicks = points[image, labels[image] == label].double()
            nearest = (voxels[:, None] - clicks).square().sum(-1).sqrt()
            expected = torch.cat([nearest, torch.full((len(voxels), 1), torch.inf)], 1).amin(1)
            found = maps[image, index].cpu().double()
            torch.testing.assert_close(found, expected.view(size), rtol=1e-6, atol=1e-6)


def depths_by_edt(prediction: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """The depths of missed and of wrong voxels, in the steps of SAM-Med3D and the CVPR challenge.

    Both pad the errors and call edt with a black border.
    """
    depths = []
    for errors in (target & ~prediction, prediction & ~target):
        padded = np.pad(errors, 1).astype(np.uint8)
        depths.append(edt.edt(padded, black_border=True)[1:-1, 1:-1, 1:-1])
    return depths


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_click_is_on_the_deepest_error(backend, device):
    target, prediction = volumes(0), volumes(3)
    options = {"spatial_dims": 3, "backend": backend}
    click = pk.next_click(prediction.to(device), target.to(device), **options)
    assert click.points.shape == (5, 3)
    by_arrays = pkn.next_click(prediction.numpy(), target.numpy(), spatial_dims=3)
    for found, expected in zip(click, by_arrays, strict=True):
        assert np.array_equal(found.cpu().numpy(), expected)
    for i in range(5):
        depths = depths_by_edt(prediction[i].numpy(), target[i].numpy())
        positive = depths[0].max() > depths[1].max()
        deepest = depths[0 if positive else 1]
        assert click.labels[i] == positive
        assert click.valid[i] == (deepest.max() > 0)
        if click.valid[i]:
            first = np.unravel_index(deepest.argmax(), SHAPE)
            assert tuple(click.points[i].tolist()) == first


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_random_click_is_deeper_than_half(backend, device):
    target, prediction = volumes(0), volumes(3)
    options = {"spatial_dims": 3, "random": True, "backend": backend}
    for seed in range(5):
        generator = torch.Generator(device).manual_seed(seed)
        click = pk.next_click(
            prediction.to(device), target.to(device), generator=generator, **options
        )
        for i in range(5):
            missed, wrong = depths_by_edt(prediction[i].numpy(), target[i].numpy())
            most = max(missed.max(), wrong.max())
            depth = (missed if click.labels[i] else wrong)[tuple(click.points[i].tolist())]
            assert depth > most / 2 or not click.valid[i]


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
def test_not_clicked_is_never_clicked(backend, device):
    target, prediction = volumes(0).to(device), volumes(3).to(device)
    options = {"spatial_dims": 3, "backend": backend}
    allowed = torch.ones_like(target)
    for _ in range(3):
        click = pk.next_click(prediction, target, not_clicked=allowed, **options)
        chosen = (torch.arange(5), *click.points.cpu().unbind(1))
        assert (allowed.cpu()[chosen] | ~click.valid.cpu()).all()
        allowed[chosen] = False


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("strategy", first_quick("boundary", "background", "objects"))
def test_simulated_clicks_keep_their_distances(strategy, backend, device):
    target, others = volumes(0), volumes(3)
    points, labels = pk.simulate_clicks(
        target.to(device),
        3,
        4,
        spatial_dims=3,
        others=others.to(device),
        strategy=strategy,
        margin=2,
        spacing=4,
        band=6,
        generator=torch.Generator(device).manual_seed(1),
        backend=backend,
    )
    assert points.shape == (5, 7, 3)
    points, labels = points.cpu(), labels.cpu()
    assert ((labels == -1) == (points == -1).all(2)).all()
    assert (labels[4, :3] == -1).all()
    assert (labels[4, 3:] == 0).all()
    for i in range(5):
        to_edge = ndimage.distance_transform_edt(target[i])
        to_target = ndimage.distance_transform_edt(~target[i])
        for label in (1, 0):
            chosen = points[i, labels[i] == label]
            apart = torch.cdist(chosen.double(), chosen.double())
            assert (apart[~torch.eye(len(chosen), dtype=torch.bool)] >= 4).all()
            where = tuple(chosen.T.numpy())
            if label == 1:
                assert (to_edge[where] >= 2).all()
            elif i != 4:
                assert (to_target[where] >= 2).all()
                other = others[i].numpy()[where]
                assert ((to_target[where] <= 6) | other).all()


@not_interpreted
@pytest.mark.parametrize("backend", backends("cpu", "triton", "cuda"))
def test_simulated_clicks_are_those_of_eager(backend, device):
    found = []
    for name, where in ((backend, device), ("eager", "cpu")):
        generator = torch.Generator(where).manual_seed(4)
        found.append(
            pk.simulate_clicks(
                volumes(0).to(where), 3, 4, spatial_dims=3, generator=generator, backend=name
            )
        )
    if str(device) == "cpu":  # a device draws its own seeds
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_batch_of_volumes_needs_spatial_dims():
    mask = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^prediction: expected shape \[B, H, W\]"):
        pk.next_click(mask, mask)
    with pytest.raises(ValueError, match=r"^target: expected shape \[B, D, H, W\]"):
        pk.simulate_clicks(mask[0], 1, 1, spatial_dims=3)
    with pytest.raises(ValueError, match=r"^spatial_dims: expected one of 2, 3"):
        pk.next_click(mask, mask, spatial_dims=4)
    points, labels = torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^points: expected shape \[B, N, 2\] of \(row, column"):
        pk.click_maps(points, labels, (4, 5))
    with pytest.raises(ValueError, match=r"^size: expected 3 numbers, got 2"):
        pk.click_maps(points, labels, (4, 5), spatial_dims=3)
