"""One test for each place where a drop-in could easily differ from the original it replaces.

What is expected is a number worked out by hand, or the original's formula in plain torch.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_compat import Click, Clicker

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

# ---- RITM: distance maps ----


def maps(positive, negative=(), size=(24, 24), radius=5, scale=1.0, disks=False, **options):
    """DistMaps of one image's clicks, padded to as many of either sign."""
    count = max(len(positive), len(negative), 1)
    points = [*positive, *[(-1, -1)] * (count - len(positive))]
    points += [*negative, *[(-1, -1)] * (count - len(negative))]
    made = ritm.DistMaps(radius, scale, use_disks=disks, **options)
    return made(torch.zeros(1, 3, *size), torch.tensor([points]))[0]


@pytest.mark.parametrize(("point", "pixel"), [((-1, 5), (0, 5)), ((3, -1), (3, 0))])
def test_ritm_a_point_with_one_negative_coordinate_is_a_click(point, pixel):
    found = maps([point])[0]
    assert found[pixel].item() == pytest.approx(math.tanh(2 * 1 / 5), abs=1e-6)
    assert maps([point], disks=True)[0][pixel] == 1


@pytest.mark.parametrize("point", [(-0.4, -0.3), (-1, -1), (-7, -0.001)])
def test_ritm_a_point_with_both_coordinates_negative_is_padding(point):
    assert (maps([point]) == 1).all()
    assert (maps([point], disks=True) == 0).all()


def test_ritm_a_point_with_a_coordinate_of_zero_is_a_click():
    assert maps([(-0.4, 0.0)], disks=True)[0, 0, 0] == 1


def test_ritm_no_click_is_one_for_tanh_and_zero_for_disks():
    positive, negative = maps([], [(3, 4)])
    assert (positive == 1).all()
    assert negative[3, 4] == 0
    positive, negative = maps([], [(3, 4)], disks=True)
    assert (positive == 0).all()
    assert negative[3, 4] == 1


def test_ritm_disks_include_their_border():
    disk = maps([(12, 12)], disks=True)[0]
    assert disk.sum() == 81
    for row, column in ((12, 17), (7, 12), (15, 16), (8, 9)):  # exactly 5 away
        assert disk[row, column] == 1


@pytest.mark.parametrize("cpu_mode", [False, True])
def test_ritm_points_are_not_rounded(cpu_mode):
    found = maps([(2.5, 3.25)], cpu_mode=cpu_mode)[0]
    for pixel, square in (((2, 3), 0.25 + 0.0625), ((3, 4), 0.25 + 0.5625)):
        assert found[pixel].item() == pytest.approx(math.tanh(2 * math.sqrt(square) / 5), abs=1e-6)
    assert maps([(5.5, 5.5)], radius=1, disks=True, cpu_mode=cpu_mode)[0].sum() == 4


@pytest.mark.parametrize("cpu_mode", [False, True])
def test_ritm_the_scale_moves_points_and_shrinks_the_radius(cpu_mode):
    disk = maps([(10, 13)], scale=0.5, disks=True, cpu_mode=cpu_mode)[0]
    # a disk of radius 2.5 round (5, 6.5): rows 5 apart 0, 1, 2 hold 6, 4, 4 pixels
    assert disk.sum(1).tolist() == [0, 0, 0, 4, 4, 6, 4, 4] + [0] * 16
    found = maps([(10, 12)], scale=0.5, cpu_mode=cpu_mode)[0]
    assert found[5, 9].item() == pytest.approx(math.tanh(2 * 3 / 2.5), abs=1e-6)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.float64]
)
def test_ritm_points_of_any_dtype(dtype):
    points = torch.tensor([[[3, 4], [9, 2], [0, 15], [7, 7]]])
    found = ritm.DistMaps(5)(torch.zeros(1, 3, 12, 18), points.to(dtype))
    assert found.dtype == torch.float32
    assert torch.equal(found, ritm.DistMaps(5)(torch.zeros(1, 3, 12, 18), points.float()))
    assert found[0, 0, 4, 4].item() == pytest.approx(math.tanh(2 / 5), abs=1e-6)


def test_ritm_the_order_of_clicks_plays_no_part():
    points = torch.tensor([[[3.0, 4], [-1, -1], [0, 15], [-1, -1]]])
    plain = ritm.DistMaps(5)(torch.zeros(1, 3, 12, 18), points)
    for orders in ([0, -1, 1, -1], [-1, 7, -1, 7], [100, 0, 3, 0]):
        ordered = torch.cat([points, torch.tensor(orders)[None, :, None]], 2)
        assert torch.equal(ritm.DistMaps(5)(torch.zeros(1, 3, 12, 18), ordered), plain)


def test_ritm_the_first_half_of_the_points_is_positive():
    points = torch.tensor([[[-1, -1], [2, 2], [-1, -1], [-1, -1], [-1, -1], [9, 9]]])
    found = ritm.DistMaps(1, use_disks=True)(torch.zeros(1, 3, 12, 12), points)[0]
    assert found[:, 2, 2].tolist() == [1, 0]
    assert found[:, 9, 9].tolist() == [0, 1]
    assert found.sum((1, 2)).tolist() == [5, 5]


def test_ritm_maps_take_a_learnable_bias():
    found = maps([(3, 4)])
    assert found.is_leaf
    assert not found.requires_grad
    found.requires_grad_().square().sum().backward()
    assert torch.equal(found.grad, 2 * found.detach())


# ---- RITM: clicks ----


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


def test_ritm_a_perfect_prediction_clicks_the_corner_even_of_an_object():
    full = np.ones((5, 6), int)
    assert click(full, full) == Click(False, (0, 0))
    assert click(full, full, padding=False) == Click(False, (0, 0))


def test_ritm_the_first_of_the_deepest_pixels_in_row_major_order():
    error = rectangle((2, 6), (3, 9))  # deepest: rows 3 and 4, columns 4 to 7
    assert click(error, 0 * error) == Click(True, (3, 4))
    assert click(0 * error, error) == Click(False, (3, 4))
    # two squares, of which the one further down begins further left
    assert click(rectangle((1, 4), (6, 9)) | rectangle((5, 8), (0, 3)), 0 * error).coords == (2, 7)


def test_ritm_the_border_is_background():
    full = np.ones((5, 7), int)
    assert click(full, 0 * full) == Click(True, (2, 2))
    half = rectangle((0, 4), (0, 10))
    assert click(half, 0 * half) == Click(True, (1, 1))
    assert click(half, 0 * half, padding=False) == Click(True, (0, 0))


def test_ritm_an_error_everywhere_has_no_depth_without_padding():
    full = np.ones((5, 7), int)
    assert click(full, 0 * full, padding=False) == Click(True, (0, 0))
    assert click(0 * full, full, padding=False) == Click(False, (0, 0))


def test_ritm_an_ignored_pixel_is_no_error_for_the_clicker():
    target = np.full((5, 9), -1)
    assert click(target, 0 * target) == click(target, 0 * target + 1) == Click(False, (0, 0))
    target[:, :3] = 0
    assert click(target, 0 * target + 1) == Click(False, (1, 1))
    # and ends the errors beside it
    target = np.ones((5, 9), int)
    target[:, 4] = -1
    assert click(target, 0 * target) == Click(True, (1, 1))


def test_ritm_clicked_pixels_leave_the_choice_but_not_the_error():
    error = rectangle((1, 6), (1, 6), (7, 7))
    assert click(error, 0 * error) == Click(True, (3, 3))
    assert click(error, 0 * error, [(3, 3)]) == Click(True, (2, 2))
    assert click(error, 0 * error, [(3, 3), (2, 2)]) == Click(True, (2, 3))
    assert click(error, 0 * error, list(np.ndindex(7, 7))) == Click(False, (0, 0))


# ---- RITM: clicks for training ----


def next_points(target, predicted, index=1, points=None):
    target, predicted = (torch.as_tensor(x).float()[None, None] for x in (target, predicted))
    points = torch.full((1, 6, 3), -1.0) if points is None else points
    return ritm.get_next_points(predicted, target, points, index)


def test_ritm_trainer_a_probability_of_exactly_the_threshold_is_no_error():
    points = torch.full((1, 6, 3), -1.0)
    for target in (torch.zeros(5, 5), torch.ones(5, 5)):
        assert torch.equal(next_points(target, torch.full((5, 5), 0.49)), points)
    assert next_points(torch.ones(1, 1), [[0.4899]])[0, 2].tolist() == [0, 0, 1]
    assert next_points(torch.zeros(1, 1), [[0.4901]])[0, 5].tolist() == [0, 0, 1]


def test_ritm_trainer_an_ignored_pixel_is_background():
    target = torch.full((3, 3), -1.0)
    assert next_points(target, torch.ones(3, 3))[0, 5].tolist() == [1, 1, 1]
    assert (next_points(target, torch.zeros(3, 3)) == -1).all()


@pytest.mark.parametrize("index", [1, 2, 3])
def test_ritm_trainer_the_slot_is_overwritten(index):
    points = torch.arange(18.0).view(1, 6, 3)
    for target, slot in ((torch.ones(3, 3), 3 - index), (torch.zeros(3, 3), 6 - index)):
        found = next_points(target, 1 - target, index, points)
        assert found[0, slot].tolist() == [1, 1, index]
        rest = [i for i in range(6) if i != slot]
        assert torch.equal(found[0, rest], points[0, rest])
    assert torch.equal(points, torch.arange(18.0).view(1, 6, 3))


def test_ritm_trainer_a_tie_is_negative():
    target, predicted = rectangle((1, 4), (1, 4)), rectangle((5, 8), (5, 8))
    found = next_points(target, predicted)
    assert found[0, 5].tolist() == [6, 6, 1]
    assert (found[0, :5] == -1).all()


def test_ritm_trainer_clicks_are_deeper_than_half_the_depth():
    error = rectangle((1, 5), (2, 6))  # depth 1 on its border, 2 inside
    seen = {tuple(next_points(error, 0 * error)[0, 2].int().tolist()) for _ in range(80)}
    assert seen == {(2, 3, 1), (2, 4, 1), (3, 3, 1), (3, 4, 1)}


# ---- SAM 2 ----


def masks(*images):
    return torch.from_numpy(np.stack([np.asarray(x, bool) for x in images]))[:, None]


def test_sam2_a_point_is_column_and_row():
    error = rectangle((1, 4), (5, 8))
    for sample in (sam2.sample_one_point_from_error_center, sam2.sample_random_points_from_errors):
        point, label = sample(masks(rectangle((2, 3), (6, 7))), None)
        assert point.tolist() == [[[6, 2]]]
        assert label.tolist() == [[1]]
        assert (point.dtype, label.dtype) == (torch.float32, torch.int32)
    point, label = sam2.sample_one_point_from_error_center(masks(0 * error), masks(error))
    assert (point.tolist(), label.tolist()) == ([[[6, 2]]], [[0]])


@pytest.mark.parametrize("padding", [True, False])
def test_sam2_center_of_a_perfect_prediction_and_of_a_tie_is_negative(padding):
    one, other = rectangle((1, 4), (1, 4)), rectangle((5, 8), (5, 8))
    full = np.ones((9, 10))
    target, predicted = masks(full, 0 * full, one), masks(full, 0 * full, other)
    points, labels = sam2.sample_one_point_from_error_center(target, predicted, padding=padding)
    assert points[:, 0].tolist() == [[0, 0], [0, 0], [6, 6]]
    assert labels.tolist() == [[0], [0], [0]]


def test_sam2_an_error_everywhere():
    full = masks(np.ones((5, 7)))
    assert sam2.sample_one_point_from_error_center(full, None)[0].tolist() == [[[2, 2]]]
    points, labels = sam2.sample_one_point_from_error_center(full, ~full, padding=False)
    assert (points.tolist(), labels.tolist()) == ([[[0, 0]]], [[1]])


def test_sam2_random_points_of_a_perfect_prediction_are_of_the_background():
    hole = 1 - rectangle((4, 5), (7, 8))
    target = masks(hole, np.ones((9, 10)))
    points, labels = sam2.sample_random_points_from_errors(target, target, num_pt=3)
    assert points.tolist() == [[[7, 4]] * 3, [[0, 0]] * 3]
    assert not labels.any()


def test_sam2_random_points_have_the_label_of_their_own_pixel():
    target, predicted = rectangle((0, 1), (0, 1)), rectangle((8, 9), (9, 10))
    points, labels = sam2.sample_random_points_from_errors(masks(target), masks(predicted), 60)
    assert set(map(tuple, points[0].tolist())) == {(0, 0), (9, 8)}
    assert torch.equal(labels[0] == 1, points[0, :, 0] == 0)


# ---- distance transforms ----


def test_scipy_roots_are_of_float64():
    image = np.ones((2, 5001))
    image[0, 0] = 0
    square = 5000**2 + 1  # more than float32 holds
    assert scipy.distance_transform_edt(image)[1, 5000] == math.sqrt(square)
    assert monai.distance_transform_edt(image[None])[0, 1, 5000] == math.sqrt(square)


def test_monai_a_channel_without_a_zero_is_infinitely_far():
    """SciPy, which the original asks on the CPU, measures to a pixel that is not there."""
    image = np.ones((3, 4, 5))
    image[1, 0, 0] = 0
    image[2] = 0
    for found in (monai.distance_transform_edt(x) for x in (image, torch.from_numpy(image))):
        assert np.isinf(found[0]).all()
        assert found[1, 3, 4] == 5
        assert not found[2].any()


def test_kornia_is_the_exact_distance_to_what_is_not_zero():
    image = torch.zeros(1, 2, 40, 50)
    image[0, 0, 3, 4], image[0, 1, 39, 49] = -0.25, 7
    found = kornia.distance_transform(image)
    assert found[0, 0, [3, 3, 0, 33, 8], [4, 5, 0, 44, 16]].tolist() == [0, 1, 5, 50, 13]
    assert found[0, 1, 0, 0].item() == np.float32(math.sqrt(39**2 + 49**2))


def test_kornia_a_channel_of_zeros_is_infinitely_far_and_has_no_gradient():
    """The original gives 0 there."""
    found = kornia.distance_transform(torch.zeros(1, 1, 3, 3, requires_grad=True))
    assert found.isinf().all()
    assert not found.requires_grad


# ---- PFENet and PANet ----

UNIT = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]).T[None, :, None]  # [1, 2, 1, 3]


def prior(support, mask, query=UNIT):
    mask = torch.as_tensor(mask, dtype=torch.float32)
    return pfenet.prior(query, [support], [mask.view(1, 1, *mask.shape[-2:])])[0, 0, 0]


def test_pfenet_the_maximum_is_below_zero_only_where_nothing_is_masked():
    opposite = -UNIT[..., :1].expand(-1, -1, -1, 2)  # cosines -1, -0.6 and 0
    torch.testing.assert_close(prior(opposite, [[1, 1]]), torch.tensor([0, 0.4, 1]))
    assert prior(opposite, [[1, 0]]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [(3, 3), (7, 5)])
def test_pfenet_an_empty_mask_is_exactly_zero(size):
    query, support = torch.randn(2, 1, 8, 3, 3)
    assert (pfenet.prior(query, [support], [torch.zeros(1, 1, *size)]) == 0).all()


@pytest.mark.parametrize("channels", [3, 64, 300])
def test_pfenet_a_constant_similarity_is_exactly_zero(channels):
    query = torch.randn(1, channels, 1, 1).repeat(1, 1, 7, 9)
    assert (prior(torch.randn(1, channels, 7, 9), torch.ones(7, 9), query) == 0).all()


def test_pfenet_eps_is_added_to_the_product_of_the_norms():
    query = torch.tensor([[[[1.0, 1e-7, 0.0]]]])  # with eps: 1, 1/2 and 0 of the unit vector
    torch.testing.assert_close(
        prior(torch.ones(1, 1, 1, 3), torch.ones(1, 3), query), torch.tensor([1, 0.5, 0])
    )


def test_pfenet_masks_are_resized_with_aligned_corners():
    mask = torch.ones(3, 3)
    mask[::2, ::2] = 0  # the corners, which are all that 2 x 2 aligned pixels see
    query, support = torch.randn(2, 1, 8, 2, 2)
    assert (pfenet.prior(query, [support], [mask[None, None]]) == 0).all()


def test_pfenet_soft_weights_cancel_in_the_cosine():
    query, support = torch.randn(2, 1, 8, 4, 6)
    hard = (torch.rand(1, 1, 4, 6) > 0.5).float()
    soft = hard * (0.1 + torch.rand(1, 1, 4, 6))
    found = [pfenet.prior(query, [support], [mask]) for mask in (hard, soft)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_pfenet_shots_are_averaged_after_the_scaling():
    support = UNIT[..., :1].expand(-1, -1, -1, 3)
    both = [torch.ones(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)]
    found = pfenet.prior(UNIT, [support, support], both)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.5, 0.3, 0]))


def test_pfenet_prototypes_of_empty_and_tiny_masks():
    features = torch.full((3, 2, 4, 5), 2.0)
    mask = torch.zeros(3, 1, 4, 5)
    mask[1, 0, 2, 2], mask[2] = 5e-4, 1
    found = pfenet.weighted_gap(features, mask)
    assert found.shape == (3, 2, 1, 1)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1:, 0, 0, 0], torch.tensor([1, 2 * 20 / (20 + 5e-4)]))


@pytest.mark.parametrize("size", [(41, 33), (13, 50), (5, 7), (3, 2), (1, 1)])
def test_panet_pools_as_if_features_were_upsampled(size):
    features, mask = torch.randn(1, 6, 5, 7).double(), (torch.rand(1, *size) > 0.4).double()
    large = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    expected = (large * mask).sum((2, 3)) / (mask.sum() + 1e-5)
    torch.testing.assert_close(panet.getFeatures(None, features, mask), expected)
    as_bool = panet.getFeatures(None, features, mask.bool())
    torch.testing.assert_close(as_bool, expected)


def test_panet_prototypes_of_empty_and_tiny_masks():
    features, mask = torch.full((1, 2, 3, 3), 2.0), torch.zeros(1, 12, 12)
    assert panet.getFeatures(None, features, mask).tolist() == [[0, 0]]
    mask[0, 6, 6] = 1e-5
    torch.testing.assert_close(panet.getFeatures(None, features, mask), torch.ones(1, 2))


def test_panet_distances_are_twenty_cosines_and_zero_for_zeros():
    found = panet.calDist(None, torch.cat([UNIT, 0 * UNIT]), torch.tensor([[3.0, 0]]))
    torch.testing.assert_close(found[:, 0], torch.tensor([[20.0, 12, 0], [0, 0, 0]]))


# ---- FEELVOS ----


def nearest(reference, labels, query, k=1, **options):
    """Of scalar embeddings [K] and [N]: distances [objects, N] and the objects' labels."""
    reference, query = (
        torch.tensor(x, dtype=torch.float64)[None, :, None] for x in (reference, query)
    )
    found, ids = feelvos.nearest_neighbor_features_per_object(
        reference, query, torch.tensor(labels)[None, :, None], k, **options
    )
    return found[0, 0, :, :, 0].T.tolist(), ids.tolist()


def test_feelvos_an_absent_object_is_padding_away():
    found, ids = nearest([0.0, 5.0, 1.0], [0, 3, -1], [1.0, 2.0])
    assert ids == [0, 1, 2, 3]
    assert found == [[1, 4], [1e20] * 2, [1e20] * 2, [16, 9]]


def test_feelvos_missing_neighbours_are_padded_by_the_farthest():
    found = nearest([0.0, 5.0, 7.0], [0, 1, 1], [4.0], k=4)[0]
    assert found == [[16], [(1 + 9 + 9 + 9) / 4]]


def test_feelvos_a_number_of_ids_is_the_largest_one():
    found, ids = nearest([0.0, 5.0], [0, 2], [1.0], gt_ids=torch.tensor(3))
    assert ids == [0, 1, 2, 3]
    assert found == [[1], [1e20], [16], [1e20]]


def test_feelvos_distances_of_equal_embeddings_are_not_below_zero():
    frame = 100 + torch.rand(4, 5, 100)
    labels = torch.zeros(4, 5, 1, dtype=torch.int64)
    found = feelvos.nearest_neighbor_features_per_object(frame, frame, labels, 1)[0]
    assert (found >= 0).all()


# ---- CAS ----


def cas_as_written(gt, softmaxed, divisor=40):
    inside, outside = (w + 3e-5 for w in (gt.double(), 1 - gt.double()))
    means = [
        (w * softmaxed).sum((2, 3), keepdim=True) / w.sum((2, 3), keepdim=True)
        for w in (inside, outside)
    ]
    spread = (inside * (softmaxed - means[0])).square().sum((2, 3))
    spread = (spread / (inside.sum((2, 3)) + 3e-5)).sum()
    return (0.5 * spread - 0.5 * (means[0] - means[1]).square().sum()) / divisor


def regions(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    gt = (torch.rand(batch, 1, 9, 11, generator=generator) > 0.6).double()
    return gt, torch.randn(batch, 2, 9, 11, generator=generator).double().softmax(1)


def test_cas_one_mask_or_the_same_mask_twice():
    gt, softmaxed = regions()
    once = cas.lss()(gt, softmaxed)
    assert torch.equal(once, cas.lss()(gt.expand(-1, 2, -1, -1), softmaxed))
    assert torch.equal(once, cas.lss()(gt.float(), softmaxed))


def test_cas_the_divisor_is_forty_whatever_the_batch_is():
    gt, softmaxed = regions(1)
    one, three = (cas.lss()(*(x.repeat(n, 1, 1, 1) for x in (gt, softmaxed))) for n in (1, 3))
    torch.testing.assert_close(one, cas_as_written(gt, softmaxed))
    torch.testing.assert_close(three, 3 * one)
    torch.testing.assert_close(cas.lss(batch_size=8)(gt, softmaxed), 5 * one)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_cas_an_empty_region_is_not_nan(value):
    gt, softmaxed = torch.full((2, 1, 9, 11), value), regions()[1].requires_grad_()
    loss = cas.lss()(gt, softmaxed)
    # the weights of an empty region are all 3e-5, and both means are then those of the image
    torch.testing.assert_close(loss, cas_as_written(gt, softmaxed), rtol=1e-6, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, softmaxed)
    assert gradient.isfinite().all()


def test_cas_the_background_has_no_spread_term():
    gt = torch.zeros(1, 1, 4, 8).double()
    gt[..., :4] = 1
    flat = torch.where(gt == 1, 0.9, 0.2)
    noise = torch.tensor([0.1, -0.1]).double().repeat(16).view(1, 1, 4, 8)
    losses = [
        cas.lss()(gt, torch.cat([x, 1 - x], 1))
        for x in (flat, flat + noise * (1 - gt), flat + noise * gt)
    ]
    assert abs(losses[1] - losses[0]) < 1e-9
    # two channels of variance 0.01
    assert (losses[2] - losses[0]).item() == pytest.approx(0.5 * 0.02 / 40, rel=1e-3)


def test_cas_gradients_pass_through_the_means():
    gt, softmaxed = regions()
    softmaxed.requires_grad_()
    found, expected = (
        torch.autograd.grad(loss, softmaxed)[0]
        for loss in (cas.lss()(gt, softmaxed), cas_as_written(gt, softmaxed))
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


# ---- discriminative losses ----


def embeddings(values):
    """[1, 2, 1, N] of N numbers: the second channel is 0."""
    return torch.stack([torch.tensor(values), torch.zeros(len(values))])[None, :, None].double()


def hot(*clusters):
    """One-hot masks [1, n, 1, N] of the clusters' pixels, of N = 1 + the largest one."""
    length = 1 + max(max(c, default=0) for c in clusters)
    return torch.tensor([[[[float(i in c) for i in range(length)]] for c in clusters]])


def test_discriminative_nyoki_has_half_the_distance_term():
    x, target = embeddings([0.0, 0.0, 1.0, 1.0]), hot([0, 1], [2, 3])
    regularizer = 1e-3 * 0.5
    paper = (2 * 1.5 - 1) ** 2
    assert discriminative.nyoki_loss(x, target, [2]).item() == paper / 2 + regularizer
    assert discriminative.wizaron_loss(x, target, [2], 0.5, 1.5, 2).item() == paper + regularizer
    loss = discriminative.ContrastiveLoss(0.5, 1.5)(x, target[:, 1:].long())
    assert loss.item() == paper + regularizer


def test_discriminative_wizaron_weighs_pixels_and_not_clusters():
    x, target = embeddings([5.0, -2.0, 2.0]), hot([0], [1, 2])
    off = {"delta_dist": 0.0, "norm": 2}
    hinge = (2 - 0.5) ** 2  # of the last two pixels
    nyoki = discriminative.nyoki_loss(x, target, [2], 0.5, gamma=0, **off)
    wizaron = discriminative.wizaron_loss(x, target, [2], 0.5, scale_reg=0, **off)
    assert nyoki.item() == hinge / 2
    assert wizaron.item() == 2 * hinge / 3


LOSSES = {
    "nyoki": lambda x, target, n: discriminative.nyoki_loss(x, target, n),
    "Wizaron": lambda x, target, n: discriminative.wizaron_loss(x, target, n, 0.5, 1.5, 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_discriminative_one_cluster_has_no_distance_term(name):
    x = embeddings([1.0, 5.0]).requires_grad_()
    loss = LOSSES[name](x, hot([0, 1]), [1])
    assert loss.item() == pytest.approx(1.5**2 + 1e-3 * 3)  # where C (C - 1) is 0
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("counts", [[0], [2]])
def test_discriminative_no_cluster_is_zero_where_the_original_is_nan(name, counts):
    x = embeddings([1.0, 5.0]).requires_grad_()
    loss = LOSSES[name](x, 0 * hot([0, 1], []), counts)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, x)[0].any()


@pytest.mark.parametrize("name", LOSSES)
def test_discriminative_an_empty_channel_is_left_out_where_the_original_is_nan(name):
    x = embeddings([0.0, 0.0, 1.0, 1.0])
    found = LOSSES[name](x, hot([0, 1], [], [2, 3]), [3])
    assert torch.equal(found, LOSSES[name](x, hot([0, 1], [2, 3]), [2]))


def test_discriminative_torch_em_ids_are_not_consecutive():
    x = embeddings([0.0, 0.0, 1.0, 1.0, 4.0])
    expected = (2 * 2**2 + 0 + 0) / 6 + 1e-3 * (0 + 1 + 4) / 3
    for ids in ([0, 0, 1, 1, 2], [7, 7, 60000, 60000, -3], [2**40, 2**40, 5, 5, 9]):
        loss = discriminative.ContrastiveLoss(0.5, 1.5)(x, torch.tensor(ids)[None, None, None])
        assert loss.item() == pytest.approx(expected)


def test_discriminative_torch_em_background_is_a_cluster_unless_ignored():
    x, ids = embeddings([0.0, 0.0, 1.0, 1.0, 4.0]), torch.tensor([4, 4, 9, 9, 0])[None, None, None]
    with_background = discriminative.ContrastiveLoss(0.5, 1.5)(x, ids)
    assert with_background.item() == pytest.approx(8 / 6 + 1e-3 * 5 / 3)
    ignored = discriminative.ContrastiveLoss(0.5, 1.5, ignore_label=0)(x, ids)
    assert ignored.item() == pytest.approx(4 + 1e-3 / 2)


def test_discriminative_clusters_of_one_pixel_and_equal_means_have_a_gradient():
    x = embeddings([1.0, 1.0, 1.0]).requires_grad_()
    loss = discriminative.ContrastiveLoss(0.0, 1.5)(x, torch.tensor([3, 5, 5])[None, None, None])
    assert loss.item() == pytest.approx(9 + 1e-3)
    assert torch.autograd.grad(loss, x)[0].isfinite().all()
