"""Drop-ins for clicks: SAM 2 and SAM 3."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkernels.compat import sam2, sam3
from tests.compat import originals
from tests.compat.originals import clicker
from tests.compat.test_clicks import FULL, blobs, rectangle


def batch(*images):
    return torch.from_numpy(np.stack([np.asarray(x, bool) for x in images]))[:, None]


DTYPES = {sam2: (torch.float32, torch.int32), sam3: (torch.int64, torch.int64)}
either = pytest.mark.parametrize("sam", DTYPES, ids=["sam2", "sam3"])


@either
@pytest.mark.parametrize("padding", [True, False])
def test_error_center(masks, sam, padding):
    noise = [*zip(blobs(*range(5)), blobs(*range(20, 25)), strict=True)]
    pairs = [*masks[::2], *noise, (noise[0][0], noise[0][0])]
    for shape in {target.shape for target, _ in pairs}:
        group = [pair for pair in pairs if pair[0].shape == shape]
        target, predicted = (batch(*x) for x in zip(*group, strict=True))
        points, labels = sam.sample_one_point_from_error_center(target, predicted, padding)
        assert (points.dtype, labels.dtype) == DTYPES[sam]
        clicks = [originals.next_click(clicker(x), y, padding) for x, y in group]
        assert points.tolist() == [[[c.coords[1], c.coords[0]]] for c in clicks]
        assert labels.tolist() == [[c.is_positive] for c in clicks]
        none, zeros = (
            sam.sample_one_point_from_error_center(target, x, padding=padding)[0]
            for x in (None, torch.zeros_like(target))
        )
        assert torch.equal(none, zeros)


@either
@pytest.mark.parametrize(("padding", "center"), [(True, 2), (False, 0)])
def test_perfect_prediction_tie_and_error_everywhere(sam, padding, center):
    one, other = rectangle((0, 1), (0, 1), (5, 7)), rectangle((4, 5), (6, 7), (5, 7))
    target = batch(FULL, 0 * FULL, one, FULL, 0 * FULL)
    predicted = batch(FULL, 0 * FULL, other, 0 * FULL, FULL)
    points, labels = sam.sample_one_point_from_error_center(target, predicted, padding=padding)
    assert points[:, 0].tolist() == [[0, 0], [0, 0], [6, 4], [center, center], [center, center]]
    assert labels[:, 0].tolist() == [0, 0, 0, 1, 0]


def test_random_points():
    target, predicted = batch(*blobs(1)), batch(*blobs(21))
    points, labels = sam2.sample_random_points_from_errors(target, predicted, num_pt=40)
    assert (points.dtype, labels.dtype) == (torch.float32, torch.int32)
    assert points.shape == (1, 40, 2)
    x, y = points[0].long().T
    assert (predicted[0, 0, y, x] != target[0, 0, y, x]).all()
    assert torch.equal(labels[0].bool(), target[0, 0, y, x])
    assert len(set(zip(x.tolist(), y.tolist(), strict=True))) > 30


def test_random_points_of_a_perfect_prediction_are_on_the_background():
    target = batch(1 - rectangle((4, 5), (7, 8)), np.ones((9, 10)))
    points, labels = sam2.sample_random_points_from_errors(target, target, num_pt=3)
    assert points.tolist() == [[[7, 4]] * 3, [[0, 0]] * 3]
    assert not labels.any()
    large = batch(*blobs(2))
    points, labels = sam2.sample_random_points_from_errors(large, large, num_pt=40)
    x, y = points[0].long().T
    assert not large[0, 0, y, x].any()
    assert not labels.any()


@pytest.mark.parametrize("count", [0, 2])
def test_random_points_of_any_number_and_batch(count):
    for target in (batch(*blobs(1, 2, 3)), torch.zeros(0, 1, 4, 5, dtype=torch.bool)):
        points, labels = sam2.sample_random_points_from_errors(target, None, num_pt=count)
        assert (points.dtype, labels.dtype) == DTYPES[sam2]
        assert points.shape == (len(target), count, 2)
        assert labels.shape == (len(target), count)


def test_random_points_refuse_a_negative_number():
    with pytest.raises(ValueError, match="num_pt: expected at least 0, got -1"):
        sam2.sample_random_points_from_errors(batch(FULL), None, num_pt=-1)


@pytest.mark.parametrize(
    "sample",
    [
        sam2.sample_one_point_from_error_center,
        sam2.sample_random_points_from_errors,
        sam3.sample_one_point_from_error_center,
    ],
)
def test_masks_of_different_shapes_are_refused(sample):
    message = r"pred_masks: expected shape \[2, 1, 5, 7\] as gt_masks, got \[1, 1, 5, 7\]"
    with pytest.raises(ValueError, match=message):
        sample(batch(FULL, FULL), batch(0 * FULL))


# ---- SAM 3's distance transform ----


def test_sam3_distances_of_masks(masks):
    for target, prediction in masks:
        images = np.stack([target, prediction, target & ~prediction, np.ones_like(target)])
        found = sam3.edt_triton(torch.from_numpy(images))
        assert found.dtype == torch.float32
        expected = np.stack(originals.sam3_distances(images)).astype(np.float32)
        assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (33, 65)])
def test_sam3_distances_of_odd_sizes(shape):
    images = torch.rand(5, *shape) > 0.1
    images[0], images[1] = True, False
    expected = np.stack(originals.sam3_distances(images.numpy())).astype(np.float32)
    assert np.array_equal(sam3.edt_triton(images).numpy(), expected)
    assert sam3.edt_triton(images[:0]).shape == (0, *shape)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float32])
def test_sam3_nonzero_pixels_of_any_dtype_are_inside(dtype):
    images = torch.randint(0, 3, (2, 20, 30))
    found = sam3.edt_triton((images / 2 if dtype.is_floating_point else images).to(dtype))
    assert torch.equal(found, sam3.edt_triton(images > 0))


def test_sam3_distances_of_a_transposed_and_a_sliced_batch():
    images = torch.from_numpy(blobs(1, 2, 3))
    for view in (images.mT, images[:, ::2, 1:], images.movedim(0, 2)):
        assert not view.is_contiguous()
        assert torch.equal(sam3.edt_triton(view), sam3.edt_triton(view.contiguous()))


def test_sam3_distances_refuse_other_numbers_of_dimensions():
    with pytest.raises(ValueError, match=r"data: expected \[B, H, W\], got \[1, 1, 4, 5\]"):
        sam3.edt_triton(torch.ones(1, 1, 4, 5))
