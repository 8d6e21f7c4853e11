"""Simulated clicks: their distances from the target and from each other, and how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

import pixelkernels as pk
from pixelkernels import testing
from tests.distance.literal import squared_distances
from tests.helpers import backends, first_quick, not_interpreted

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")


@not_interpreted
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("strategy", first_quick("mixed", "background", "objects", "boundary"))
def test_simulated_clicks_keep_their_distances(strategy, backend, device):
    labels = testing.coherent_labels(5, 90, 120, 6)
    target, others = labels == 0, (labels == 1) | (labels == 2)
    target[3] = False
    others[4] = False
    points, kinds = pk.simulate_clicks(
        target.to(device),
        6,
        7,
        others=others.to(device),
        strategy=strategy,
        margin=4,
        spacing=9,
        band=25,
        generator=torch.Generator(device).manual_seed(1),
        backend=backend,
    )
    assert points.shape == (5, 13, 2)
    assert points.dtype == kinds.dtype == torch.int64
    points, kinds = points.cpu(), kinds.cpu()
    assert (kinds[3, :6] == -1).all()
    assert (kinds[3, 6:] == 0).all()
    assert ((kinds == -1) == (points == -1).all(2)).all()
    for image in range(5):
        to_edge = ndimage.distance_transform_edt(target[image])
        to_target = np.sqrt(squared_distances(target[image].numpy()))
        for label in (1, 0):
            chosen = points[image, kinds[image] == label]
            rows, columns = chosen.T.numpy()
            assert (kinds[image, :6] != 0).all()
            assert (kinds[image, 6:] != 1).all()
            apart = torch.cdist(chosen.double(), chosen.double())
            assert (apart[~torch.eye(len(chosen), dtype=torch.bool)] >= 9).all()
            if label == 1:
                assert (to_edge[rows, columns] >= 4).all()
            elif image != 3:
                assert (to_target[rows, columns] >= 4).all()
                near = to_target[rows, columns] <= 25
                other = others[image].numpy()[rows, columns]
                if strategy == "objects":
                    assert other.all() if image != 4 else near.all()
                else:
                    assert (near | (other if strategy == "mixed" else False)).all()


@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
def test_simulated_clicks_depend_on_the_generator_alone(backend, device):
    target = (testing.coherent_labels(4, 60, 80, 3) == 1).to(device)

    def draw(seed, chosen):
        generator = torch.Generator(device).manual_seed(seed)
        return pk.simulate_clicks(target, 4, 4, generator=generator, backend=chosen)

    first, again, other = draw(3, backend), draw(3, "eager"), draw(4, backend)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_boundary_clicks_are_the_farthest():
    target = torch.zeros(1, 61, 61, dtype=torch.bool)
    target[:, 25:36, 25:36] = True
    points, _ = pk.simulate_clicks(
        target, 0, 5, strategy="boundary", band=20, generator=torch.Generator().manual_seed(0)
    )
    to_target = np.sqrt(squared_distances(target[0].numpy()))
    allowed = np.argwhere((to_target >= 5) & (to_target <= 20))
    for i in range(1, 5):
        earlier = points[0, :i].numpy()
        gaps = np.square(allowed[:, None] - earlier[None]).sum(-1).min(1)
        assert points[0, i].tolist() == allowed[gaps.argmax()].tolist()


def test_the_first_click_is_uniform():
    target = torch.ones(3000, 3, 4, dtype=torch.bool)
    points, _ = pk.simulate_clicks(target, 1, 0, generator=torch.Generator().manual_seed(0))
    counts = (points[:, 0, 0] * 4 + points[:, 0, 1]).bincount(minlength=12).double()
    chi_square = float((counts - 250).square().sum() / 250)
    assert chi_square < 31.3  # 11 degrees of freedom, one in a thousand
