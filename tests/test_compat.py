"""Drop-ins against independent statements of the originals' formulas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from pixelkernels import testing
from pixelkernels.compat import (
    cas,
    discriminative,
    feelvos,
    kornia,
    monai,
    panet,
    pfenet,
    ritm,
    sam2,
    scipy,
)


def maps_as_written(points, batch, rows, cols, radius, scale, disks):
    """DistMaps from its description: squared distances to every point, padding 1e6, the least."""
    half = points.shape[1] // 2
    place = points[..., :2].double()
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    pixels = torch.stack([row, col], -1).double()
    squares = (pixels - (place * scale)[:, :, None, None]).square().sum(-1)
    if not disks:
        squares = squares / (radius * scale) ** 2
    squares[place.amax(-1) < 0] = 1e6
    least = squares.view(batch, 2, half, rows, cols).amin(2)
    return (least <= (radius * scale) ** 2).double() if disks else torch.tanh(2 * least.sqrt())


CLICKS = torch.tensor(
    [
        [[3, 4, 0], [9.5, 2.25, 2], [-1, -1, -1], [0, 15, 1], [-1, -1, -1], [-1, -1, -1]],
        # the first point of the second image lies above it, and is none the less a click
        [[-1, 5, 0], [-0.4, -0.3, 1], [11, 17, 2], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]],
    ]
)


@pytest.mark.parametrize("disks", [False, True])
@pytest.mark.parametrize(("radius", "scale"), [(5, 1.0), (260, 1.0), (3, 0.5)])
@pytest.mark.parametrize("width", [2, 3])
def test_ritm_distance_maps(disks, radius, scale, width):
    points = CLICKS[..., :width]
    found = ritm.DistMaps(radius, scale, cpu_mode=True, use_disks=disks)(
        torch.zeros(2, 3, 12, 18), points
    )
    expected = maps_as_written(points, 2, 12, 18, radius, scale, disks)
    assert found.dtype == torch.float32
    if disks:
        assert torch.equal(found.double(), expected)
    else:
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


class Clicker(SimpleNamespace):
    """RITM's keeps the target and where was no click yet, and its module has the class Click."""


class Click(NamedTuple):
    is_positive: bool
    coords: tuple[int, int]


def depths(error, padding):
    padded = np.pad(error, 1) if padding else error
    depth = ndimage.distance_transform_edt(padded)
    return depth[1:-1, 1:-1] if padding else depth


def click_as_written(clicker, prediction, padding=True):
    known = clicker.gt_mask != -1
    missed = (clicker.gt_mask == 1) & ~prediction & known
    wrong = (clicker.gt_mask != 1) & prediction & known
    sides = [depths(e, padding) * clicker.not_clicked_map for e in (missed, wrong)]
    positive = sides[0].max() > sides[1].max()
    side = sides[0] if positive else sides[1]
    row, column = np.argwhere(side == side.max())[0]
    return Click(bool(positive), (int(row), int(column)))


def blobs(seed, shape=(40, 50), threshold=0.0):
    noise = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(noise, 3) > threshold


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_ritm_next_click(seed, padding):
    target = blobs(seed).astype(np.int32)
    target[:, :4] = -1  # unknown: no error there
    clicker = Clicker(gt_mask=target, not_clicked_map=np.ones(target.shape, bool))
    prediction = blobs(seed + 100)
    for _ in range(3):
        found = ritm.get_next_click(clicker, prediction, padding=padding)
        assert found == click_as_written(clicker, prediction, padding)
        clicker.not_clicked_map[found.coords] = False


def test_ritm_a_perfect_prediction_and_a_tie_are_negative():
    clicker = Clicker(gt_mask=np.zeros((5, 6), int), not_clicked_map=np.ones((5, 6), bool))
    assert ritm.get_next_click(clicker, clicker.gt_mask == 1) == Click(False, (0, 0))
    clicker.gt_mask[1, 1] = 1
    other = np.zeros((5, 6), bool)
    other[3, 4] = True  # one pixel missed, one wrong
    assert ritm.get_next_click(clicker, other) == Click(False, (3, 4))


def test_ritm_next_points():
    target = torch.from_numpy(np.stack([blobs(1), blobs(2), blobs(3)]))[:, None].float()
    target[0, 0, 0] = -1  # for training, unknown is background
    pred = torch.from_numpy(np.stack([blobs(11), blobs(12), blobs(3)]))[:, None].float()
    pred[2] = target[2]
    points = torch.full((3, 8, 3), -1.0)
    seen = [set() for _ in range(2)]
    for _ in range(20):
        found = ritm.get_next_points(pred, target, points, 2)
        assert torch.equal(found[2], points[2])
        for image in range(2):
            is_object, predicted = target[image, 0] > 0.5, pred[image, 0]
            errors = (is_object & (predicted < 0.49), ~is_object & (predicted > 0.49))
            both = [depths(e.numpy(), True) for e in errors]
            positive = both[0].max() > both[1].max()
            slot = (4 if positive else 8) - 2
            row, column, order = found[image, slot].tolist()
            depth = both[0] if positive else both[1]
            assert depth[int(row), int(column)] > depth.max() / 2
            assert order == 2
            seen[image].add((row, column))
            rest = [i for i in range(8) if i != slot]
            assert torch.equal(found[image, rest], points[image, rest])
    assert min(map(len, seen)) > 5
    assert (points == -1).all()


@pytest.mark.parametrize("padding", [True, False])
def test_sam2_error_center(padding):
    target = torch.from_numpy(np.stack([blobs(i) for i in range(5)]))[:, None]
    pred = torch.from_numpy(np.stack([blobs(i + 20) for i in range(5)]))[:, None]
    pred[4] = target[4]
    points, labels = sam2.sample_one_point_from_error_center(target, pred, padding=padding)
    assert (points.dtype, labels.dtype) == (torch.float32, torch.int32)
    for image in range(5):
        clicker = Clicker(
            gt_mask=target[image, 0].numpy().astype(int), not_clicked_map=np.ones((40, 50), bool)
        )
        expected = click_as_written(clicker, pred[image, 0].numpy(), padding)
        assert points[image].tolist() == [[expected.coords[1], expected.coords[0]]]
        assert labels[image].tolist() == [int(expected.is_positive)]
    nothing, _ = sam2.sample_one_point_from_error_center(target, None, padding=padding)
    zeros = sam2.sample_one_point_from_error_center(target, target & ~target, padding=padding)[0]
    assert torch.equal(nothing, zeros)


def test_sam2_random_points():
    target = torch.from_numpy(np.stack([blobs(1), blobs(2), np.ones((40, 50), bool)]))[:, None]
    pred = torch.from_numpy(np.stack([blobs(21), blobs(2), np.ones((40, 50), bool)]))[:, None]
    points, labels = sam2.sample_random_points_from_errors(target, pred, num_pt=40)
    assert points.shape == (3, 40, 2)
    x, y = points.long().unbind(-1)
    for image, (of_target, of_pred) in enumerate(zip(target[:, 0], pred[:, 0], strict=True)):
        said, told = of_pred[y[image], x[image]], of_target[y[image], x[image]]
        if image == 0:
            assert (said != told).all()
            assert torch.equal(labels[image].bool(), told)
            assert len(set(zip(x[0].tolist(), y[0].tolist(), strict=True))) > 30
        elif image == 1:  # nothing is wrong: negatives of the background
            assert not told.any()
            assert not labels[image].any()
        else:
            assert points[image].abs().sum() == labels[image].sum() == 0


@pytest.mark.parametrize("sampling", [None, 2.5, (1.5, 0.7)])
def test_scipy_transform(sampling):
    image = blobs(5)
    found = scipy.distance_transform_edt(image, sampling=sampling)
    expected = ndimage.distance_transform_edt(image, sampling=sampling)
    assert found.dtype == np.float64
    if sampling is None:
        assert np.array_equal(found, expected)
        out = np.empty_like(expected)
        assert scipy.distance_transform_edt(image, distances=out) is None
        assert np.array_equal(out, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    distances, places = scipy.distance_transform_edt(image, sampling, return_indices=True)
    np.testing.assert_array_equal(distances, expected)
    assert places.shape == (2, *image.shape)
    for special in (np.ones((4, 5)), np.zeros((4, 5)), np.ones((3, 4, 5)) * blobs(1, (3, 4, 5))):
        found = scipy.distance_transform_edt(special)
        assert np.array_equal(found, ndimage.distance_transform_edt(special))


def test_monai_transform():
    image = np.stack([blobs(i) for i in range(3)]).astype(np.float32)
    expected = np.stack([ndimage.distance_transform_edt(x) for x in image])
    found = monai.distance_transform_edt(image)
    assert np.array_equal(found, expected)
    tensor = monai.distance_transform_edt(torch.from_numpy(image))
    assert torch.equal(tensor, torch.from_numpy(expected))
    spaced = monai.distance_transform_edt(torch.from_numpy(image), sampling=[2.0, 0.5])
    wanted = np.stack([ndimage.distance_transform_edt(x, sampling=(2, 0.5)) for x in image])
    np.testing.assert_allclose(spaced, wanted, rtol=1e-6)
    assert np.isinf(monai.distance_transform_edt(np.ones((1, 2, 2)))).all()
    with pytest.raises(ValueError, match="indices are not served"):
        monai.distance_transform_edt(image, return_indices=True)


def test_kornia_transform():
    image = torch.from_numpy(np.stack([[blobs(1, threshold=0.1)], [blobs(2, threshold=0.1)]]))
    found = kornia.distance_transform(image.float(), kernel_size=5)
    expected = [[ndimage.distance_transform_edt(~x[0].numpy())] for x in image]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-6)
    with pytest.raises(ValueError, match="kernel_size"):
        kornia.distance_transform(image.float(), kernel_size=4)


def test_pfenet_prior_with_a_masked_position_is_never_below_zero_before_scaling():
    query, supports = torch.randn(2, 16, 6, 6), torch.randn(3, 2, 16, 6, 6)
    masks = (torch.rand(3, 2, 1, 24, 24) > 0.4).float()
    masks[2, 1] = 0
    priors = []
    for support, mask in zip(supports, masks, strict=True):
        small = F.interpolate(mask, size=(6, 6), mode="bilinear", align_corners=True)
        q, s = query.flatten(2), (support * small).flatten(2)
        lengths = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None]
        best = ((s.mT @ q) / (lengths + 1e-7)).amax(1)
        low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)
        priors.append(((best - low) / (high - low + 1e-7)).view(2, 1, 6, 6))
    expected = torch.stack(priors).mean(0)
    found = pfenet.prior(query, list(supports), list(masks))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_prototypes():
    features, mask = torch.randn(2, 5, 6, 7), torch.rand(2, 1, 6, 7)
    pooled = (features * mask).sum((2, 3)) / (mask.sum((2, 3)) + 5e-4)
    torch.testing.assert_close(pfenet.weighted_gap(features, mask)[..., 0, 0], pooled)
    large = (torch.rand(1, 33, 41) > 0.5).float()
    up = F.interpolate(features[:1], size=(33, 41), mode="bilinear")
    wanted = (up * large).sum((2, 3)) / (large.sum() + 1e-5)
    prototype = panet.getFeatures(None, features[:1], large)
    torch.testing.assert_close(prototype, wanted, rtol=1e-4, atol=1e-6)
    cosine = F.cosine_similarity(features, prototype[..., None, None], dim=1) * 20
    torch.testing.assert_close(panet.calDist(None, features, prototype), cosine)


def discriminative_as_written(features, labels, ids, delta_var, delta_dist, reduction="cluster"):
    """The three terms for the clusters `ids` of one image, with Euclidean norms."""
    flat, flat_labels = features.double().flatten(1), labels.flatten()
    members = [flat[:, flat_labels == i] for i in ids]
    means = [m.mean(1) for m in members]
    hinges = [
        ((m - mean[:, None]).norm(dim=0) - delta_var).clamp(min=0) ** 2
        for m, mean in zip(members, means, strict=True)
    ]
    if reduction == "cluster":
        variance = sum(h.mean() for h in hinges) / len(ids)
    else:
        variance = torch.cat(hinges).mean()
    distance = sum(
        (2 * delta_dist - (a - b).norm()).clamp(min=0) ** 2
        for i, a in enumerate(means)
        for j, b in enumerate(means)
        if i != j
    ) / (len(ids) * (len(ids) - 1))
    return variance, distance, sum(mean.norm() for mean in means) / len(ids)


def test_discriminative_conventions():
    features = testing.features(2, 4, 16, 18)
    labels = testing.coherent_labels(2, 16, 18, 4)
    one_hot = F.one_hot(labels, 4).movedim(-1, 1).float()
    deltas = (0.1, 1.2)
    cluster, pixel = (
        torch.stack(
            [
                torch.stack(
                    discriminative_as_written(f, x, x.unique().tolist(), *deltas, reduction)
                )
                for f, x in zip(features, labels, strict=True)
            ]
        ).mean(0)
        for reduction in ("cluster", "pixel")
    )
    counts = [4, 4]
    cases = {
        "torch-em": (
            discriminative.ContrastiveLoss(*deltas, alpha=2.0)(features, labels[:, None] * 3 + 1),
            cluster @ torch.tensor([2, 1, 1e-3]).double(),
        ),
        "nyoki": (
            discriminative.nyoki_loss(features, one_hot, counts, *deltas),
            cluster @ torch.tensor([1, 0.5, 1e-3]).double(),
        ),
        "Wizaron": (
            discriminative.wizaron_loss(features, one_hot, counts, *deltas, 2),
            pixel @ torch.tensor([1, 1, 1e-3]).double(),
        ),
    }
    for name, (found, expected) in cases.items():
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6, msg=name)
    fewer = discriminative.nyoki_loss(features, one_hot, [2, 2], *deltas)
    two = torch.stack(
        [
            torch.stack(discriminative_as_written(f, x, [0, 1], *deltas))
            for f, x in zip(features, labels, strict=True)
        ]
    ).mean(0)
    torch.testing.assert_close(fewer.double(), two @ torch.tensor([1, 0.5, 1e-3]).double())


def test_released_cas_loss():
    masks = (torch.rand(3, 1, 9, 11) > 0.6).double()
    softmaxed = torch.randn(3, 2, 9, 11, dtype=torch.float64).softmax(1)
    inside, outside = masks + 3e-5, 1 - masks + 3e-5

    def mean(w):
        return (w * softmaxed).sum((2, 3), keepdim=True) / w.sum((2, 3), keepdim=True)

    spread = (inside * softmaxed - inside * mean(inside)).square().sum((2, 3))
    spread = (spread / (inside.sum((2, 3)) + 3e-5)).sum()
    apart = (mean(inside) - mean(outside)).square().sum()
    expected = (0.5 * spread - 0.5 * apart) / 40
    for gt in (masks, masks.expand(-1, 2, -1, -1)):
        torch.testing.assert_close(cas.lss()(gt, softmaxed), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_feelvos_nearest_neighbours(k):
    reference, query = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    labels = torch.zeros(5, 6, 1, dtype=torch.int64)
    labels[0, :2], labels[2:4] = 4, 2  # two pixels of 4, none of 1 and 3
    found, ids = feelvos.nearest_neighbor_features_per_object(reference, query, labels, k)
    assert ids.tolist() == [0, 1, 2, 3, 4]
    assert found.shape == (1, 5, 6, 5, 1)
    for i in ids.tolist():
        points = reference[labels[..., 0] == i]
        if len(points) == 0:
            assert (found[..., i, 0] == (1e20 if k == 1 else 0)).all()
            continue
        distances = (query[:, :, None] - points).square().sum(-1).sort(-1).values
        nearest = distances[..., [min(j, len(points) - 1) for j in range(k)]]
        torch.testing.assert_close(found[0, ..., i, 0], nearest.mean(-1))
    some = feelvos.nearest_neighbor_features_per_object(
        reference, query, labels, k, gt_ids=torch.tensor([4, 2])
    )[0]
    torch.testing.assert_close(some[..., 0, 0], found[..., 4, 0])
