"""One test for each place where a drop-in could easily differ from the original it replaces.

What is expected is a number worked out by hand, or the original's formula in plain torch.
"""

from __future__ import annotations

from math import sqrt, tanh

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelkernels.compat import cas, feelvos, kornia, monai, panet, pfenet, ritm, sam2, scipy
from pixelkernels.compat.discriminative import ContrastiveLoss, nyoki_loss, wizaron_loss
from tests.test_compat import Click, Clicker

NONE = (-1, -1)  # padding among RITM's points


def maps(points, size=(24, 24), radius=5, **options):
    """DistMaps of one image, [2, *size]; the first half of the points is positive."""
    image = torch.zeros(1, 3, *size)
    return ritm.DistMaps(radius, **options)(image, torch.as_tensor(points)[None])[0]


@pytest.mark.parametrize(
    ("point", "pixel", "away"),
    [((-1, 5), (0, 5), 1), ((3, -1), (3, 0), 1), ((-0.4, 0.0), (0, 0), 0.4)],
)
def test_ritm_a_point_with_one_negative_coordinate_is_a_click(point, pixel, away):
    assert maps([point, NONE])[0][pixel].item() == pytest.approx(tanh(2 * away / 5), abs=1e-6)
    assert maps([point, NONE], use_disks=True)[0][pixel] == 1


@pytest.mark.parametrize("point", [(-0.4, -0.3), NONE, (-7, -0.001)])
def test_ritm_a_point_with_both_coordinates_negative_is_padding(point):
    assert (maps([point, point]) == 1).all()
    assert (maps([point, point], use_disks=True) == 0).all()


def test_ritm_no_click_is_one_for_tanh_and_zero_for_disks():
    for disks in (False, True):
        positive, negative = maps([NONE, (3, 4)], use_disks=disks)
        assert (positive == (0 if disks else 1)).all()
        assert negative[3, 4] == (1 if disks else 0)


def test_ritm_disks_include_their_border():
    disk = maps([(12, 12), NONE], use_disks=True)[0]
    assert disk.sum() == 81
    assert disk[[12, 7, 15, 8], [17, 12, 16, 9]].all()  # exactly 5 away


@pytest.mark.parametrize("cpu_mode", [False, True])
def test_ritm_points_are_not_rounded(cpu_mode):
    found = maps([(2.5, 3.25), NONE], cpu_mode=cpu_mode)[0]
    assert found[2, 3].item() == pytest.approx(tanh(2 * sqrt(0.5**2 + 0.25**2) / 5), abs=1e-6)
    assert found[3, 4].item() == pytest.approx(tanh(2 * sqrt(0.5**2 + 0.75**2) / 5), abs=1e-6)
    disk = maps([(5.5, 5.5), NONE], radius=1, use_disks=True, cpu_mode=cpu_mode)[0]
    assert disk.nonzero().tolist() == [[5, 5], [5, 6], [6, 5], [6, 6]]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "float16", "float64"])
def test_ritm_points_of_any_dtype(dtype):
    points = torch.tensor([[3, 4], [9, 2], [0, 15], [7, 7]])
    found = maps(points.to(getattr(torch, dtype)))
    assert found.dtype == torch.float32
    assert torch.equal(found, maps(points.float()))
    assert found[0, 3, 5].item() == pytest.approx(tanh(2 / 5), abs=1e-6)


def test_ritm_the_order_of_clicks_plays_no_part():
    points = torch.tensor([[3.0, 4], NONE, [0, 15], NONE])
    ordered = torch.cat([points, torch.tensor([-1, 7, 0, -1])[:, None]], 1)
    assert torch.equal(maps(ordered), maps(points))


def click(target, predicted, clicked=(), padding=True):
    """The next click; the clicker also has what RITM's keeps of the pixels that count."""
    target, allowed = np.asarray(target), np.ones(np.shape(target), bool)
    for pixel in clicked:
        allowed[pixel] = False
    clicker = Clicker(gt_mask=target, not_clicked_map=allowed, not_ignore_mask=target != -1)
    return ritm.get_next_click(clicker, np.asarray(predicted, bool), padding=padding)


def rectangle(rows, columns, shape=(9, 10)):
    mask = np.zeros(shape, int)
    mask[slice(*rows), slice(*columns)] = 1
    return mask


FULL = np.ones((5, 7), int)


@pytest.mark.parametrize("padding", [True, False])
def test_ritm_a_perfect_prediction_clicks_the_corner_even_of_an_object(padding):
    assert click(FULL, FULL, padding=padding) == Click(False, (0, 0))


def test_ritm_the_first_of_the_deepest_pixels_in_row_major_order():
    error = rectangle((2, 6), (3, 9))  # deepest: rows 3 and 4, columns 4 to 7
    assert click(error, 0 * error) == Click(True, (3, 4))
    assert click(0 * error, error) == Click(False, (3, 4))
    # of two squares the one further down begins further left
    assert click(rectangle((1, 4), (6, 9)) | rectangle((5, 8), (0, 3)), 0 * error).coords == (2, 7)


def test_ritm_the_border_is_background_with_padding_alone():
    half = rectangle((0, 4), (0, 10))
    assert click(half, 0 * half) == Click(True, (1, 1))
    assert click(half, 0 * half, padding=False).coords == (0, 0)
    assert click(FULL, 0 * FULL) == Click(True, (2, 2))
    assert click(FULL, 0 * FULL, padding=False) == Click(True, (0, 0))  # no depth is defined
    assert click(0 * FULL, FULL, padding=False) == Click(False, (0, 0))


def test_ritm_an_ignored_pixel_is_no_error_for_the_clicker():
    assert click(-FULL, 0 * FULL) == click(-FULL, FULL) == Click(False, (0, 0))
    target = FULL.copy()
    target[:, 3] = -1
    assert click(target, 0 * FULL) == Click(True, (1, 1))  # and it ends the errors beside it
    assert click(np.where(target == 1, 0, -1), FULL) == Click(False, (1, 1))


def test_ritm_clicked_pixels_leave_the_choice_but_not_the_error():
    error = rectangle((1, 6), (1, 6), (7, 7))
    assert click(error, 0 * error) == Click(True, (3, 3))
    assert click(error, 0 * error, [(3, 3), (2, 2)]) == Click(True, (2, 3))
    assert click(error, 0 * error, list(np.ndindex(7, 7))) == Click(False, (0, 0))


POINTS = torch.arange(18.0).view(1, 6, 3)


def next_points(target, predicted, index=1):
    target, predicted = (torch.as_tensor(x).float()[None, None] for x in (target, predicted))
    return ritm.get_next_points(predicted, target, POINTS, index)


def test_ritm_trainer_a_probability_of_exactly_the_threshold_is_no_error():
    assert torch.equal(next_points(FULL, 0.49 * FULL), POINTS)
    assert torch.equal(next_points(0 * FULL, 0.49 * FULL), POINTS)
    assert next_points([[1]], [[0.4899]])[0, 2].tolist() == [0, 0, 1]
    assert next_points([[0]], [[0.4901]])[0, 5].tolist() == [0, 0, 1]


def test_ritm_trainer_an_ignored_pixel_is_background():
    assert next_points(-np.ones((3, 3)), np.ones((3, 3)))[0, 5].tolist() == [1, 1, 1]
    assert torch.equal(next_points(-np.ones((3, 3)), np.zeros((3, 3))), POINTS)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_ritm_trainer_the_slot_is_overwritten(index):
    for target, slot in ((torch.ones(3, 3), 3 - index), (torch.zeros(3, 3), 6 - index)):
        expected = POINTS.clone()
        expected[0, slot] = torch.tensor([1, 1, index])
        assert torch.equal(next_points(target, 1 - target, index), expected)
    assert torch.equal(POINTS.flatten(), torch.arange(18.0))


def test_ritm_trainer_a_tie_is_negative():
    found = next_points(rectangle((1, 4), (1, 4)), rectangle((5, 8), (5, 8)))
    assert found[0, 5].tolist() == [6, 6, 1]


def test_ritm_trainer_clicks_are_deeper_than_half_the_depth():
    error = rectangle((1, 5), (2, 6))  # depth 1 on its border, 2 inside
    seen = {tuple(next_points(error, 0 * error)[0, 2].tolist()) for _ in range(80)}
    assert seen == {(2, 3, 1), (2, 4, 1), (3, 3, 1), (3, 4, 1)}


def masks(*images):
    return torch.from_numpy(np.stack([np.asarray(x, bool) for x in images]))[:, None]


@pytest.mark.parametrize("name", ["one_point_from_error_center", "random_points_from_errors"])
def test_sam2_a_point_is_column_and_row(name):
    point, label = getattr(sam2, f"sample_{name}")(masks(rectangle((2, 3), (6, 7))), None)
    assert (point.tolist(), label.tolist()) == ([[[6, 2]]], [[1]])
    assert (point.dtype, label.dtype) == (torch.float32, torch.int32)


@pytest.mark.parametrize(("padding", "place"), [(True, 2), (False, 0)])
def test_sam2_a_perfect_prediction_a_tie_and_an_error_everywhere(padding, place):
    one, other = rectangle((0, 1), (0, 1), (5, 7)), rectangle((4, 5), (6, 7), (5, 7))
    target = masks(FULL, 0 * FULL, one, FULL, 0 * FULL)
    predicted = masks(FULL, 0 * FULL, other, 0 * FULL, FULL)
    points, labels = sam2.sample_one_point_from_error_center(target, predicted, padding=padding)
    assert points[:, 0].tolist() == [[0, 0], [0, 0], [6, 4], [place, place], [place, place]]
    assert labels[:, 0].tolist() == [0, 0, 0, 1, 0]


def test_sam2_random_points_of_a_perfect_prediction_are_of_the_background():
    target = masks(1 - rectangle((4, 5), (7, 8)), np.ones((9, 10)))
    points, labels = sam2.sample_random_points_from_errors(target, target, num_pt=3)
    assert points.tolist() == [[[7, 4]] * 3, [[0, 0]] * 3]
    assert not labels.any()


def test_scipy_and_monai_take_roots_in_float64():
    image = np.ones((2, 5001))
    image[0, 0] = 0
    expected = sqrt(5000**2 + 1)  # of more than float32 holds
    assert scipy.distance_transform_edt(image)[1, 5000] == expected
    assert monai.distance_transform_edt(image[None])[0, 1, 5000] == pytest.approx(expected, 1e-12)


def test_monai_a_channel_without_a_zero_is_infinitely_far():
    """SciPy, which the original asks on the CPU, measures to a pixel that is not there."""
    image = torch.ones(3, 4, 5)
    image[1, 0, 0] = image[2] = 0
    for found in (monai.distance_transform_edt(x) for x in (image, image.numpy())):
        assert [found[i, 3, 4].item() for i in range(3)] == [float("inf"), 5, 0]


def test_kornia_is_the_exact_distance_to_what_is_not_zero():
    """Where nothing is, the original gives 0, and its gradient is one of convolutions."""
    image = torch.zeros(1, 3, 40, 50, requires_grad=True)
    with torch.no_grad():
        image[0, 0, 3, 4], image[0, 1, 39, 49] = -0.25, 7
    found = kornia.distance_transform(image)
    assert not found.requires_grad
    assert found[0, 0, [3, 3, 0, 33, 8], [4, 5, 0, 44, 16]].tolist() == [0, 1, 5, 50, 13]
    assert found[0, 1, 0, 0].item() == np.float32(sqrt(39**2 + 49**2))
    assert found[0, 2].isinf().all()


UNIT = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]).T[None, :, None]  # [1, 2, 1, 3]


def prior(support, mask, query=UNIT):
    mask = torch.as_tensor(mask, dtype=torch.float32)[None, None]
    return pfenet.prior(query, [support], [mask])[0, 0]


def test_pfenet_the_maximum_is_below_zero_only_where_nothing_is_masked():
    opposite = -UNIT[..., :1].expand(-1, -1, -1, 2)  # cosines -1, -0.6 and 0
    torch.testing.assert_close(prior(opposite, [[1, 1]]), torch.tensor([[0, 0.4, 1]]))
    assert prior(opposite, [[1, 0]]).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("size", [(3, 3), (7, 5)])
def test_pfenet_an_empty_mask_is_exactly_zero(size):
    query, support = torch.randn(2, 1, 8, 3, 3)
    assert (prior(support, torch.zeros(size), query) == 0).all()


@pytest.mark.parametrize("channels", [3, 64, 300])
def test_pfenet_a_constant_similarity_is_exactly_zero(channels):
    query = torch.randn(1, channels, 1, 1).repeat(1, 1, 7, 9)
    assert (prior(torch.randn(1, channels, 7, 9), torch.ones(7, 9), query) == 0).all()


def test_pfenet_eps_is_added_to_the_product_of_the_norms():
    query = torch.tensor([[[[1.0, 1e-7, 0.0]]]])  # 1e-7 / (1e-7 + eps) is one half
    found = prior(torch.ones(1, 1, 1, 3), torch.ones(1, 3), query)
    torch.testing.assert_close(found, torch.tensor([[1, 0.5, 0]]))


def test_pfenet_prototypes_of_empty_and_tiny_masks():
    mask = torch.zeros(3, 1, 4, 5)
    mask[1, 0, 2, 2], mask[2] = 5e-4, 1
    found = pfenet.weighted_gap(torch.full((3, 1, 4, 5), 2.0), mask)
    assert found[0].tolist() == [[[0]]]
    torch.testing.assert_close(found.flatten(), torch.tensor([0, 1, 40 / (20 + 5e-4)]))


@pytest.mark.parametrize("size", [(41, 33), (13, 50), (5, 7), (3, 2), (1, 1)])
def test_panet_pools_as_if_features_were_upsampled(size):
    features, mask = torch.randn(1, 6, 5, 7).double(), (torch.rand(1, *size) > 0.4).double()
    large = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    expected = (large * mask).sum((2, 3)) / (mask.sum() + 1e-5)
    torch.testing.assert_close(panet.getFeatures(None, features, mask), expected)
    torch.testing.assert_close(panet.getFeatures(None, features, mask.bool()), expected)


def test_panet_prototypes_of_empty_and_tiny_masks():
    features, mask = torch.full((1, 2, 3, 3), 2.0), torch.zeros(1, 12, 12)
    assert panet.getFeatures(None, features, mask).tolist() == [[0, 0]]
    mask[0, 6, 6] = 1e-5
    torch.testing.assert_close(panet.getFeatures(None, features, mask), torch.ones(1, 2))


def nearest(reference, labels, query, k=1):
    """Of scalar embeddings: distances, one row for each object, and the objects' labels."""
    reference, query = (torch.tensor(x)[None, :, None].double() for x in (reference, query))
    found, ids = feelvos.nearest_neighbor_features_per_object(
        reference, query, torch.tensor(labels)[None, :, None], k
    )
    return found[0, 0, :, :, 0].T.tolist(), ids.tolist()


def test_feelvos_an_absent_object_is_padding_away_and_minus_one_is_no_object():
    found = nearest([0.0, 5.0, 1.0], [0, 3, -1], [1.0, 2.0])
    assert found == ([[1, 4], [1e20] * 2, [1e20] * 2, [16, 9]], [0, 1, 2, 3])


def test_feelvos_missing_neighbours_are_padded_by_the_farthest():
    found = nearest([0.0, 5.0, 7.0], [0, 1, 1], [4.0], k=4)[0]
    assert found == [[16], [(1 + 9 + 9 + 9) / 4]]


def regions(batch):
    gt = (torch.rand(batch, 1, 9, 11) > 0.6).double()
    return gt, torch.randn(batch, 2, 9, 11).double().softmax(1)


def test_cas_one_mask_or_the_same_mask_twice():
    gt, softmaxed = regions(2)
    assert torch.equal(cas.lss()(gt, softmaxed), cas.lss()(gt.repeat(1, 2, 1, 1), softmaxed))


@pytest.mark.parametrize("batch", [1, 3])
def test_cas_the_divisor_is_forty_whatever_the_batch_is(batch):
    gt, softmaxed = torch.tensor([[[1.0, 0]]]), torch.tensor([[[0.9, 0.2]], [[0.1, 0.8]]])
    loss = cas.lss()(*(x.expand(batch, -1, -1, -1) for x in (gt, softmaxed)))
    assert loss.item() == pytest.approx(batch * -0.5 * (0.7**2 + 0.7**2) / 40, rel=1e-3)


@pytest.mark.parametrize("weight", [3e-5, 1 + 3e-5])
def test_cas_an_empty_region_is_not_nan(weight):
    gt, softmaxed = torch.full((2, 1, 9, 11), weight - 3e-5).double(), regions(2)[1]
    loss = cas.lss()(gt, softmaxed.requires_grad_())
    # every pixel has this weight in the foreground, and both means are the image's
    spread = softmaxed.var((2, 3), correction=0).sum() * 99 * weight**2 / (99 * weight + 3e-5)
    torch.testing.assert_close(loss, 0.5 * spread / 40, rtol=1e-6, atol=0)
    assert torch.autograd.grad(loss, softmaxed)[0].isfinite().all()


def test_cas_the_background_has_no_spread_term():
    gt = torch.tensor([1, 0]).double().repeat_interleave(16).view(1, 1, 4, 8)
    noise, flat = torch.tensor([0.1, -0.1]).double().repeat(16).view_as(gt), 0.2 + 0.7 * gt
    still, outside, inside = (
        cas.lss()(gt, torch.cat([x, 1 - x], 1)).item()
        for x in (flat, flat + noise * (1 - gt), flat + noise * gt)
    )
    assert outside == pytest.approx(still, abs=1e-10)  # it has the square of its weight, 3e-5
    assert inside - still == pytest.approx(0.5 * (0.1**2 + 0.1**2) / 40, rel=1e-3)


def embeddings(*values):
    """[1, 2, 1, N] of N numbers: the second channel is 0."""
    first = torch.tensor(values)[None, None, None].double()
    return torch.cat([first, 0 * first], 1).requires_grad_()


def hot(text):
    """One-hot masks [1, 3, 1, N]: cluster 0, 1 or 2 of each pixel."""
    return torch.tensor([[[[float(x == i) for x in text]] for i in "012"]])


def test_discriminative_nyoki_has_half_the_distance_term():
    x, target = embeddings(0.0, 0.0, 1.0, 1.0), hot("0011")
    distance, regularizer = (2 * 1.5 - 1) ** 2, 1e-3 / 2
    assert nyoki_loss(x, target, [2]).item() == distance / 2 + regularizer
    assert wizaron_loss(x, target, [2], 0.5, 1.5, 2).item() == distance + regularizer


def test_discriminative_wizaron_weighs_pixels_and_not_clusters():
    x, target = embeddings(5.0, -2.0, 2.0), hot("011")
    hinge = (2 - 0.5) ** 2  # of the last two pixels
    assert nyoki_loss(x, target, [2], beta=0, gamma=0).item() == hinge / 2
    assert wizaron_loss(x, target, [2], 0.5, 1.5, 2, 1, 0, 0).item() == 2 * hinge / 3


LOSSES = [nyoki_loss, lambda x, target, counts: wizaron_loss(x, target, counts, 0.5, 1.5, 2)]


@pytest.mark.parametrize("loss", LOSSES, ids=["nyoki", "Wizaron"])
@pytest.mark.parametrize(
    ("text", "counts", "expected"),
    [("00", [1], 1.5**2 + 3e-3), ("00", [3], 1.5**2 + 3e-3), ("00", [0], 0), ("--", [2], 0)],
)
def test_discriminative_one_cluster_or_none_is_no_nan(loss, text, counts, expected):
    """The originals divide by 0 where there is no cluster, or where one of them is empty."""
    x = embeddings(1.0, 5.0)
    found = loss(x, hot(text), counts)
    assert found.item() == pytest.approx(expected)
    assert torch.autograd.grad(found, x)[0].isfinite().all()


def test_discriminative_torch_em_ids_are_not_consecutive_and_background_is_one():
    x = embeddings(0.0, 0.0, 1.0, 1.0, 4.0)
    expected = (2 * 2**2 + 0 + 0) / 6 + 1e-3 * (0 + 1 + 4) / 3
    for ids in ([0, 0, 1, 1, 2], [7, 7, 60000, 60000, -3], [2**40, 2**40, 9, 9, 0]):
        target = torch.tensor(ids)[None, None, None]
        assert ContrastiveLoss(0.5, 1.5)(x, target).item() == pytest.approx(expected)
    ignoring = ContrastiveLoss(0.5, 1.5, ignore_label=0)
    assert ignoring(x, target).item() == pytest.approx(2**2 + 1e-3 / 2)


def test_discriminative_clusters_of_one_pixel_and_equal_means_have_a_gradient():
    x = embeddings(1.0, 1.0, 1.0)
    loss = ContrastiveLoss(0.0, 1.5)(x, torch.tensor([[[[3, 5, 5]]]]))
    assert loss.item() == pytest.approx(9 + 1e-3)
    assert torch.autograd.grad(loss, x)[0].isfinite().all()
