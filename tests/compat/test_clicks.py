"""Drop-ins for clicks: RITM and ClickSEG."""

from __future__ import annotations

from math import sqrt, tanh

import numpy as np
import pytest
import torch
from scipy import ndimage

from pixelkernels.compat import clickseg, ritm
from tests.compat import originals
from tests.compat.originals import Click, clicker, depths

NONE = (-1, -1)  # padding among RITM's points


def blobs(*seeds, shape=(40, 50)):
    noise = [np.random.default_rng(seed).standard_normal(shape) for seed in seeds]
    return np.stack([ndimage.gaussian_filter(x, 3) > 0 for x in noise])


def rectangle(rows, columns, shape=(9, 10)):
    mask = np.zeros(shape, int)
    mask[slice(*rows), slice(*columns)] = 1
    return mask


FULL = np.ones((5, 7), int)


# ---- RITM's distance maps ----


def maps(points, size=(24, 24), radius=5, **options):
    """DistMaps of one image, [2, *size]; the first half of the points is positive."""
    image = torch.zeros(1, 3, *size)
    return ritm.DistMaps(radius, **options)(image, torch.as_tensor(points)[None])[0]


CLICKS = torch.tensor(
    [
        [[3, 4, 0], [9.5, 2.25, 2], [-1, -1, -1], [0, 15, 1], [-1, -1, -1], [-1, -1, -1]],
        # the first point of the second image is above it, and still a click
        [[-1, 5, 0], [-0.4, -0.3, 1], [11, 17, 2], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]],
    ]
)


@pytest.mark.parametrize("disks", [False, True])
@pytest.mark.parametrize(("radius", "scale"), [(5, 1.0), (260, 1.0), (3, 0.5)])
@pytest.mark.parametrize("width", [2, 3])
def test_ritm_distance_maps(disks, radius, scale, width):
    points, image = CLICKS[..., :width], torch.zeros(2, 3, 12, 18)
    found = ritm.DistMaps(radius, scale, cpu_mode=True, use_disks=disks)(image, points)
    expected = originals.distance_maps(points, 12, 18, radius, scale, disks)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0 if disks else 2e-6)


@pytest.mark.parametrize(
    ("point", "pixel", "distance"),
    [((-1, 5), (0, 5), 1), ((3, -1), (3, 0), 1), ((-0.4, 0.0), (0, 0), 0.4)],
)
def test_ritm_point_with_one_negative_coordinate_is_a_click(point, pixel, distance):
    assert maps([point, NONE])[0][pixel].item() == pytest.approx(tanh(2 * distance / 5), abs=1e-6)
    assert maps([point, NONE], use_disks=True)[0][pixel] == 1


@pytest.mark.parametrize("point", [(-0.4, -0.3), NONE, (-7, -0.001)])
def test_ritm_point_with_both_coordinates_negative_is_padding(point):
    assert (maps([point, point]) == 1).all()
    assert (maps([point, point], use_disks=True) == 0).all()


@pytest.mark.parametrize("disks", [False, True])
def test_ritm_map_without_clicks_is_one_for_tanh_and_zero_for_disks(disks):
    positive, negative = maps([NONE, (3, 4)], use_disks=disks)
    assert (positive == (0 if disks else 1)).all()
    assert negative[3, 4] == (1 if disks else 0)


def test_ritm_disks_include_their_border():
    disk = maps([(12, 12), NONE], use_disks=True)[0]
    assert disk.sum() == 81
    assert disk[[12, 7, 15, 8], [17, 12, 16, 9]].all()  # at a distance of exactly 5


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


def test_ritm_distance_maps_of_clicks_on_masks(masks):
    for target, prediction in masks[::4]:
        state, points = clicker(target), {True: [], False: []}
        for _ in range(4):
            click = originals.next_click(state, prediction)
            # fractions of pixels, as clicks in a zoomed view have
            points[click.is_positive].append((click.coords[0] + 0.25, click.coords[1] - 0.5))
            state.not_clicked_map[click.coords] = False
        padded = [x + [NONE] * (4 - len(x)) for x in (points[True], points[False])]
        points = torch.tensor(padded).view(1, 8, 2)
        for radius, disks in ((5, True), (100, False)):
            found = maps(points[0], target.shape, radius, use_disks=disks).double()
            expected = originals.distance_maps(points, *target.shape, radius, disks=disks)[0]
            torch.testing.assert_close(found, expected, rtol=0, atol=0 if disks else 2e-6)


# ---- RITM's clicker ----


@pytest.mark.parametrize("padding", [True, False])
def test_ritm_next_click(padding):
    for target, prediction in zip(
        blobs(*range(6)).astype(int), blobs(*range(100, 106)), strict=True
    ):
        target[:, :4] = -1  # unknown
        state = clicker(target)
        for _ in range(3):
            found = ritm.get_next_click(state, prediction, padding=padding)
            assert found == originals.next_click(state, prediction, padding)
            state.not_clicked_map[found.coords] = False


def test_ritm_next_click_on_masks(masks):
    ties = 0
    for target, prediction in masks:
        state = clicker(target)
        for _ in range(2):
            found = ritm.get_next_click(state, prediction)
            assert found == originals.next_click(state, prediction)
            state.not_clicked_map[found.coords] = False
        depth = depths(target & ~prediction if found.is_positive else prediction & ~target)
        ties += (depth == depth.max()).sum() > 1
    assert ties > 1  # otherwise the tie-break would not be tested


def test_ritm_next_click_skips_pixels_that_the_clicker_ignores(masks):
    target = masks[0][0]
    state, everywhere = clicker(target), np.ones_like(target)
    state.not_ignore_mask &= ndimage.distance_transform_edt(~target) < 10
    assert ritm.get_next_click(state, everywhere) == originals.next_click(state, everywhere)


def click(target, predicted, clicked=(), padding=True):
    state = clicker(target)
    state.not_ignore_mask &= state.gt_mask != -1
    for pixel in clicked:
        state.not_clicked_map[pixel] = False
    return ritm.get_next_click(state, np.asarray(predicted, bool), padding=padding)


@pytest.mark.parametrize("padding", [True, False])
def test_ritm_perfect_prediction_gives_a_negative_click_in_the_corner(padding):
    for target in (FULL, 0 * FULL):
        assert click(target, target, padding=padding) == Click(False, (0, 0))


def test_ritm_tie_of_both_errors_is_negative():
    missed, wrong = rectangle((1, 2), (1, 2)), rectangle((3, 4), (4, 5))
    assert click(missed, wrong) == Click(False, (3, 4))


def test_ritm_tie_break_is_the_first_pixel_in_row_major_order():
    error = rectangle((2, 6), (3, 9))  # deepest in rows 3 and 4, columns 4 to 7
    assert click(error, 0 * error) == Click(True, (3, 4))
    assert click(0 * error, error) == Click(False, (3, 4))
    # of two squares the lower one begins further left
    assert click(rectangle((1, 4), (6, 9)) | rectangle((5, 8), (0, 3)), 0 * error).coords == (2, 7)


def test_ritm_border_bounds_errors_only_with_padding():
    half = rectangle((0, 4), (0, 10))
    assert click(half, 0 * half) == Click(True, (1, 1))
    assert click(half, 0 * half, padding=False).coords == (0, 0)
    assert click(FULL, 0 * FULL) == Click(True, (2, 2))
    assert click(FULL, 0 * FULL, padding=False) == Click(True, (0, 0))  # no depth is defined
    assert click(0 * FULL, FULL, padding=False) == Click(False, (0, 0))


def test_ritm_ignored_pixel_is_no_error_and_bounds_errors():
    assert click(-FULL, 0 * FULL) == click(-FULL, FULL) == Click(False, (0, 0))
    target = FULL.copy()
    target[:, 3] = -1
    assert click(target, 0 * FULL) == Click(True, (1, 1))
    assert click(np.where(target == 1, 0, -1), FULL) == Click(False, (1, 1))


def test_ritm_clicked_pixels_are_not_chosen_but_still_errors():
    error = rectangle((1, 6), (1, 6), (7, 7))
    assert click(error, 0 * error) == Click(True, (3, 3))
    assert click(error, 0 * error, [(3, 3), (2, 2)]) == Click(True, (2, 3))
    assert click(error, 0 * error, list(np.ndindex(7, 7))) == Click(False, (0, 0))


# ---- RITM's training clicks ----


def test_ritm_next_points():
    target, pred = (
        torch.from_numpy(blobs(*seeds))[:, None].float() for seeds in ((1, 2, 3), (11, 12, 3))
    )
    target[0, 0, 0] = -1  # training takes unknown pixels for background
    points = torch.full((3, 8, 3), -1.0)
    seen = [set() for _ in range(2)]
    for _ in range(20):
        found = ritm.get_next_points(pred, target, points, 2)
        assert torch.equal(found[2], points[2])
        for image in range(2):
            is_object, predicted = target[image, 0] > 0.5, pred[image, 0] > 0.49
            errors = (is_object & ~predicted, ~is_object & predicted)
            missed, wrong = (depths(error.numpy()) for error in errors)
            positive = missed.max() > wrong.max()
            slot = (4 if positive else 8) - 2
            row, column, order = found[image, slot].tolist()
            depth = missed if positive else wrong
            assert depth[int(row), int(column)] > depth.max() / 2
            assert order == 2
            seen[image].add((row, column))
            rest = [i for i in range(8) if i != slot]
            assert torch.equal(found[image, rest], points[image, rest])
    assert min(map(len, seen)) > 5
    assert (points == -1).all()


POINTS = torch.arange(18.0).view(1, 6, 3)


def next_points(target, predicted, index=1):
    target, predicted = (torch.as_tensor(x).float()[None, None] for x in (target, predicted))
    return ritm.get_next_points(predicted, target, POINTS, index)


def test_ritm_probability_equal_to_the_threshold_is_no_error():
    assert torch.equal(next_points(FULL, 0.49 * FULL), POINTS)
    assert torch.equal(next_points(0 * FULL, 0.49 * FULL), POINTS)
    assert next_points([[1]], [[0.4899]])[0, 2].tolist() == [0, 0, 1]
    assert next_points([[0]], [[0.4901]])[0, 5].tolist() == [0, 0, 1]


def test_ritm_training_takes_ignored_pixels_for_background():
    assert next_points(-np.ones((3, 3)), np.ones((3, 3)))[0, 5].tolist() == [1, 1, 1]
    assert torch.equal(next_points(-np.ones((3, 3)), np.zeros((3, 3))), POINTS)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_ritm_training_click_replaces_one_slot_of_a_copy(index):
    for target, slot in ((torch.ones(3, 3), 3 - index), (torch.zeros(3, 3), 6 - index)):
        expected = POINTS.clone()
        expected[0, slot] = torch.tensor([1, 1, index])
        assert torch.equal(next_points(target, 1 - target, index), expected)
    assert torch.equal(POINTS.flatten(), torch.arange(18.0))


def test_ritm_training_tie_is_negative():
    found = next_points(rectangle((1, 4), (1, 4)), rectangle((5, 8), (5, 8)))
    assert found[0, 5].tolist() == [6, 6, 1]


def test_ritm_training_clicks_are_deeper_than_half_the_depth():
    error = rectangle((1, 5), (2, 6))  # depth 1 at its border, 2 inside
    seen = {tuple(next_points(error, 0 * error)[0, 2].tolist()) for _ in range(80)}
    assert seen == {(2, 3, 1), (2, 4, 1), (3, 3, 1), (3, 4, 1)}


# ---- FocalClick's training clicks ----


def focal_inputs(count=3):
    """Predictions, targets, points, points_focus and rois. The last image has no error."""
    seeds = range(count - 1)
    target, pred = (
        torch.from_numpy(blobs(*(x + offset for x in seeds), 99))[:, None].float()
        for offset in (0, 50)
    )
    points = torch.full((count, 8, 3), -1.0)
    points[:, 0] = torch.tensor([7, 9, 0])
    corner = torch.randint(0, 10, (count, 2))
    rois = torch.cat([corner, corner + torch.randint(5, 30, (count, 2))], 1)
    return pred, target, points, torch.full_like(points, torch.nan), rois


def test_clickseg_clicks_are_those_of_ritm():
    pred, target, points, focus, rois = focal_inputs()
    torch.manual_seed(3)
    expected = ritm.get_next_points(pred, target, points, 2)
    torch.manual_seed(3)
    found, _ = clickseg.get_next_points_removeall(pred, target, points, focus, rois, 2)
    assert torch.equal(found, expected)
    assert not torch.equal(found, points)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_clickseg_writes_the_points_of_the_crops_in_place(dtype):
    pred, target, points, focus, rois = focal_inputs()
    found, returned = clickseg.get_next_points_removeall(
        pred, target, points, focus, rois.to(dtype), 2
    )
    assert returned is focus
    expected = originals.points_in_crops(found, rois, target.shape[2:])
    torch.testing.assert_close(focus.double(), expected, rtol=1e-6, atol=1e-5)
    assert (found[:, 1] == -1).all()
    assert not (focus[:, 1, :2] == -1).any()  # padding is mapped, too


def test_clickseg_removes_earlier_points_of_images_with_an_error():
    pred, target, points, focus, rois = focal_inputs()
    before = points.clone()
    found, _ = clickseg.get_next_points_removeall(
        pred, target, points, focus, rois, 2, remove_prob=1.0
    )
    assert torch.equal(points, before)
    for image in (0, 1):
        new = found[image][(found[image] != -1).any(1)]
        assert new[:, 2].tolist() == [2]
    assert torch.equal(found[2], points[2])


def test_clickseg_removes_points_of_each_image_with_the_given_probability():
    pred, target, points, focus, rois = focal_inputs(65)
    found, _ = clickseg.get_next_points_removeall(
        pred, target, points, focus, rois, 2, remove_prob=0.25
    )
    assert 4 <= (found[:, 0] == -1).all(1).sum() <= 30


def test_clickseg_first_click_has_the_number_one():
    with pytest.raises(AssertionError):
        clickseg.get_next_points_removeall(*focal_inputs(), 0)
