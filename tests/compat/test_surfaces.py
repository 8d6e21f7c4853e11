"""Drop-ins for the surface metrics of MONAI and torchmetrics."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.segmentation import hausdorff_distance as original

from pixelkernels import compat
from pixelkernels.compat import _surfaces, monai, torchmetrics
from tests.compat.test_clicks import blobs

METRICS = ("euclidean", "chessboard", "taxicab")


def surface_distances(first, second, spacing=1.0, metric="euclidean"):
    """From the edge pixels of each mask to the nearest of the other, by comparing all of them;
    float32. If one mask is empty, inf for each edge pixel of the other."""
    edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) for mask in (first, second)]
    if not all(map(len, edges)):
        return [np.full(max(map(len, edges)), np.inf, np.float32)] * 2
    offsets = np.abs(edges[0][:, None] - edges[1]) * np.abs(spacing)
    if metric == "euclidean":
        distances = np.sqrt((offsets**2).sum(2))
    else:
        distances = offsets.max(2) if metric == "chessboard" else offsets.sum(2)
    return [distances.min(axis).astype(np.float32) for axis in (1, 0)]


def of_pairs(statistic, first, second, spacings=None, metric="euclidean"):
    """A statistic of the distances of both directions, of masks [B, C, *space]; NaN without."""
    found = np.full(first.shape[:2], np.nan, np.float32)
    for b, c in np.ndindex(found.shape):
        spacing = 1.0 if spacings is None or metric != "euclidean" else spacings[b]
        distances = surface_distances(first[b, c], second[b, c], spacing, metric)
        if len(distances[0]):
            found[b, c] = statistic(distances, c)
    return found


def random_masks(*shape, seed=0):
    """Two masks [B, C, *space] of noise, blobs, one pixel, all pixels and none."""
    rng = np.random.default_rng(seed)
    density = rng.choice([0.03, 0.5, 0.97], (2, *shape[:2], *[1] * len(shape[2:])))
    masks = rng.random((2, *shape)) < density
    smooth = ndimage.gaussian_filter(
        rng.standard_normal(masks.shape), 1.5, axes=range(3, masks.ndim)
    )
    masks[:, :, 1] = smooth[:, :, 1] > 0
    masks[0, 0, 2], masks[1, 1, 2] = True, False
    masks[:, 1, 0] = masks[1, 0, 0] = False
    masks[(1, 0, 0, *(size // 2 for size in shape[2:]))] = True
    return masks


SHAPES = [(2, 3, 17, 23), (2, 3, 9, 6, 11), (2, 3, 1, 12), (2, 3, 6, 1, 5), (2, 3, 1, 1)]
CASES = [
    (shape, spacing, metric)
    for shape in SHAPES
    for spacing in ("none", "number", "axes", "images")
    for metric in (METRICS if spacing in ("none", "axes") else METRICS[:1])
]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    """Masks, the spacing of each image, and the arguments that say so."""
    shape, kind, metric = request.param
    per_image = np.array([[0.7, 1.3, 2.1], [1.0, 0.2, 0.45]])[:, : len(shape) - 2]
    spacings, given = {
        "none": (None, None),
        "number": (np.full_like(per_image, 0.3), 0.3),
        "axes": (per_image[[0, 0]], per_image[0].tolist()),
        "images": (per_image, per_image.tolist()),
    }[kind]
    options = {"include_background": True, "distance_metric": metric, "spacing": given}
    return random_masks(*shape), spacings, options


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the (prediction|ground truth) of class")
        return function(*args, **options)


@pytest.mark.parametrize("percentile", [None, 0, 95, 37.5, 100])
@pytest.mark.parametrize("directed", [False, True])
def test_monai_hausdorff_distance(case, percentile, directed):
    (first, second), spacings, options = case

    def farthest(distances, _):
        if percentile and np.isinf(distances[0]).any():
            return np.nan
        each = distances[: 2 - directed]
        return max(np.percentile(x, percentile) if percentile else x.max() for x in each)

    found = quiet(
        monai.compute_hausdorff_distance,
        *(first.astype(np.float32), torch.from_numpy(second)),
        percentile=percentile,
        directed=directed,
        **options,
    )
    expected = of_pairs(farthest, first, second, spacings, options["distance_metric"])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=3e-7 if percentile else 0)


def test_monai_percentile_is_that_of_torch():
    first, second = (torch.from_numpy(blobs(i)[None]) for i in (1, 2))
    distances = surface_distances(first[0, 0].numpy(), second[0, 0].numpy())
    for percentile in (3, 50, 95, 99.9):
        found = monai.compute_hausdorff_distance(first, second, percentile=percentile)
        expected = max(torch.quantile(torch.from_numpy(x), percentile / 100) for x in distances)
        assert found == expected
    far = torch.full((5,), torch.inf)
    assert torch.quantile(far, 1.0).isnan()  # so an empty mask has NaN with a percentile


@pytest.mark.parametrize("symmetric", [False, True])
def test_monai_average_surface_distance(case, symmetric):
    (first, second), spacings, options = case

    def mean(distances, _):
        return np.concatenate(distances[: 1 + symmetric]).mean(dtype=np.float64)

    found = quiet(
        monai.compute_average_surface_distance,
        *(torch.from_numpy(first).long(), second),
        symmetric=symmetric,
        **options,
    )
    assert found.dtype == torch.float32
    expected = of_pairs(mean, first, second, spacings, options["distance_metric"])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_monai_surface_dice_counts_distances_equal_to_a_threshold(case):
    (first, second), spacings, options = case
    metric = options["distance_metric"]
    distances = [np.zeros(1)]
    of_pairs(lambda x, _: distances.extend(x) or 0, first, second, spacings, metric)
    finite = np.unique(np.concatenate(distances))
    finite = finite[np.isfinite(finite)]
    thresholds = [float(finite[len(finite) * i // 4]) for i in range(3)]

    def near(distances, channel):
        return np.mean(np.concatenate(distances) <= thresholds[channel])

    masks = (torch.from_numpy(x) for x in (first, second))
    found = quiet(monai.compute_surface_dice, *masks, thresholds, **options)
    assert found.dtype == torch.float32
    expected = of_pairs(near, first, second, spacings, metric)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


MONAI = {
    "hausdorff": monai.compute_hausdorff_distance,
    "average": monai.compute_average_surface_distance,
    "dice": lambda *args, **options: monai.compute_surface_dice(*args, [1.0], **options),
}


@pytest.mark.parametrize("name", MONAI)
def test_monai_warnings_name_the_empty_masks_in_order(name):
    masks = torch.zeros(2, 1, 2, 5, 6)
    masks[0, 0, 1, 2], masks[:, 0, 0] = 1, 1
    with pytest.warns(UserWarning, match="is all 0") as warned:
        found = MONAI[name](*masks)
    assert [str(x.message) for x in warned] == [
        "the ground truth of class 0 is all 0, this may result in nan/inf distance."
    ]
    assert found.item() == (0 if name == "dice" else torch.inf)
    with pytest.warns(UserWarning, match="is all 0") as warned:
        found = MONAI[name](torch.zeros(1, 1, 5, 6), torch.zeros(1, 1, 5, 6))
    assert ["prediction" in str(x.message) for x in warned] == [False, True]
    assert found.isnan().item()


@pytest.mark.parametrize("name", MONAI)
def test_monai_leaves_out_the_background(name):
    first, second = (torch.from_numpy(blobs(i, i + 1)[None]).int() for i in (1, 5))
    expected = MONAI[name](first[:, 1:], second[:, 1:], include_background=True)
    for given in (second, second[:, 1:]):  # the only channel is no background
        assert torch.equal(MONAI[name](first, given), expected)


@pytest.mark.parametrize("name", MONAI)
def test_monai_takes_every_dtype_strides_and_subclasses(name):
    class Subclass(torch.Tensor):
        pass

    first, second = (torch.from_numpy(blobs(i)[None]) for i in (1, 2))
    expected = MONAI[name](first, second)
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.float64):
        assert torch.equal(MONAI[name](first.to(dtype), second.to(dtype) * 2 - 1), expected)
    strided = second.mT.contiguous().mT.float().requires_grad_()
    found = MONAI[name](first.float().as_subclass(Subclass), strided)
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    assert torch.equal(found, expected)
    if name != "dice":
        flipped = np.ascontiguousarray(second.numpy()[..., ::-1])[..., ::-1]
        assert torch.equal(MONAI[name](first.numpy(), flipped), expected)
    assert MONAI[name](first[:0], second[:0]).shape == (0, 1)


@pytest.mark.parametrize("spacing", [[2.0**-70, 1.0], [1e4, 1.0], [0.0, 2.0], [-1.0, 2.0], -0.5])
def test_monai_serves_spacings_that_distance_transform_rejects(spacing):
    first, second = (blobs(i)[None] for i in (1, 2))
    expected = max(x.max() for x in surface_distances(first[0, 0], second[0, 0], spacing))
    found = monai.compute_hausdorff_distance(first, second, spacing=spacing)
    np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


def test_monai_serves_sides_that_distance_transform_does_not_square():
    masks = torch.zeros(2, 1, 1, 2, 40000)
    masks[0, ..., 0, 0] = masks[1, ..., 1, 39999] = 1
    found = monai.compute_hausdorff_distance(*masks)
    assert found.item() == np.float32(np.hypot(1, 39999))


def test_few_pairs_at_a_time_give_the_same_distances(monkeypatch):
    masks = random_masks(2, 3, 8, 9)
    expected = quiet(monai.compute_hausdorff_distance, *masks, True, spacing=[1.0, 2.0])
    for pixels in (1, 300):
        monkeypatch.setattr(_surfaces, "CPU_PIXELS", pixels)
        found = quiet(monai.compute_hausdorff_distance, *masks, True, spacing=[1.0, 2.0])
        np.testing.assert_array_equal(found, expected)


IMAGE = torch.ones(2, 1, 4, 5)


@pytest.mark.parametrize(
    ("y", "options", "name"),
    [
        (IMAGE[:1], {}, "y_pred, y"),
        (IMAGE[..., None, None], {}, "y_pred, y"),
        (IMAGE, {"spacing": [1.0, 2.0, 3.0]}, "spacing"),
        (IMAGE, {"spacing": [[1.0, 2.0]]}, "spacing"),
        (IMAGE, {"spacing": [[1.0], [2.0]]}, "spacing"),
        (IMAGE, {"distance_metric": "cosine"}, "distance_metric"),
    ],
)
def test_monai_rejects(y, options, name):
    y_pred = IMAGE if y.dim() == 4 else y
    for function in MONAI.values():
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            function(y_pred, y, **options)


def test_monai_rejects_other_percentiles_thresholds_and_arrays():
    for percentile in (-1, 100.5, float("nan")):
        with pytest.raises(ValueError, match="percentile: expected"):
            monai.compute_hausdorff_distance(IMAGE, IMAGE, percentile=percentile)
    for thresholds in ([], [1.0, 1.0], [-1.0], [float("inf")], [float("nan")]):
        with pytest.raises(ValueError, match="class_thresholds: expected 1 finite"):
            monai.compute_surface_dice(IMAGE, IMAGE, thresholds)
    with pytest.raises(ValueError, match="y: expected a tensor"):
        monai.compute_surface_dice(IMAGE, IMAGE.numpy(), [1.0])


DICE = """
def compute_surface_dice(y_pred, y, class_thresholds, include_background=False,
                         distance_metric="euclidean", spacing=None, use_subvoxels=False):
    return "the original", class_thresholds, include_background, spacing, use_subvoxels
"""


def test_monais_own_function_serves_subvoxels_also_when_it_is_replaced(tmp_path, monkeypatch):
    folder = tmp_path / "monai" / "metrics"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("from .surface_dice import compute_surface_dice")
    (folder / "surface_dice.py").write_text(DICE)
    names = ("monai", "monai.metrics", "monai.metrics.surface_dice")
    monkeypatch.syspath_prepend(tmp_path)
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        with compat.patch("monai", "compute_surface_dice"):
            from monai import metrics

            assert metrics.compute_surface_dice is monai.compute_surface_dice
            found = metrics.compute_surface_dice(
                IMAGE, IMAGE, [1.0], spacing=2.0, use_subvoxels=True
            )
        assert found == ("the original", [1.0], False, 2.0, True)
        assert metrics.compute_surface_dice is not monai.compute_surface_dice
    finally:
        for name in names:
            sys.modules.pop(name, None)


# ---- torchmetrics ----


def both_formats(*size):
    """Scores of 3 classes, and labels, of two images; the labels have every class."""
    labels = torch.from_numpy(np.stack([blobs(i, i + 7, shape=size).sum(0) for i in (1, 2)]))
    assert all(x.unique().tolist() == [0, 1, 2] for x in labels)
    return torch.randn(2, 3, *size), labels


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spacing", [None, [2.0, 0.5]])
@pytest.mark.parametrize("directed", [False, True])
def test_torchmetrics_hausdorff_distance_of_square_images(metric, spacing, directed):
    scores, labels = both_formats(24, 24)
    masks = torch.nn.functional.one_hot(labels.flip(0)).movedim(-1, 1)
    for preds, target, form in (
        (scores, masks, "one-hot"),
        (masks.bool(), masks.flip(1).bool(), "one-hot"),
        (labels, labels.flip(0), "index"),
        (scores, labels, "mixed"),
        (labels, masks, "mixed"),
    ):
        for background in (False, True):
            given = (preds, target, 3, background, metric, spacing, directed, form)
            found, expected = (f(*given) for f in (torchmetrics.hausdorff_distance, original))
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("size", "metric"),
    [*(((20, 33), x) for x in METRICS), ((1, 9), "taxicab"), ((5, 6, 7), "euclidean")],
    ids=str,
)
def test_torchmetrics_hausdorff_distance_of_oblong_images_and_volumes(metric, size):
    first, second = random_masks(2, 3, *size)
    spacing = [0.3, 1.7, 1.1][: len(size)]
    expected = np.full((2, 3), np.nan)
    for b, c in np.ndindex(2, 3):
        distances = surface_distances(first[b, c], second[b, c], spacing, metric)
        if len(distances[0]):
            expected[b, c] = max(x.max() for x in distances)
    masks = [torch.from_numpy(x).byte() for x in (first, second)]
    for steps in (spacing, torch.tensor(spacing)):
        found = torchmetrics.hausdorff_distance(*masks, 3, True, metric, steps)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    alone = torchmetrics.hausdorff_distance(masks[0][:, :1], masks[1][:, :1], 1, False, metric)
    assert alone.shape == (2, 1)


@pytest.mark.parametrize(
    ("preds", "target", "options"),
    [
        (IMAGE, IMAGE[:1], {}),
        (IMAGE, IMAGE, {"input_format": "mixed"}),
        (IMAGE[:, 0].long(), IMAGE[:1], {"input_format": "mixed"}),
        (IMAGE.long() * 2, IMAGE.long(), {}),
        (IMAGE.long(), IMAGE.long(), {"num_classes": 0}),
        (IMAGE.long(), IMAGE.long(), {"include_background": 1}),
        (IMAGE.long(), IMAGE.long(), {"directed": None}),
        (IMAGE.long(), IMAGE.long(), {"distance_metric": "cosine"}),
        (IMAGE.long(), IMAGE.long(), {"spacing": (1.0, 1.0)}),
        (IMAGE.long(), IMAGE.long(), {"spacing": [1.0, 1.0, 1.0]}),
        (IMAGE.long(), IMAGE.long(), {"input_format": "labels"}),
        (IMAGE[:, 0].long() + 1, IMAGE[:, 0].long(), {"input_format": "index"}),
        (IMAGE[:, 0], IMAGE[:, 0], {"input_format": "index"}),
    ],
)
def test_torchmetrics_hausdorff_distance_raises_what_the_original_raises(preds, target, options):
    options = {"num_classes": 1, **options}
    with pytest.raises(Exception) as expected:  # noqa: PT011
        original(preds, target, **options)
    with pytest.raises(expected.type):
        torchmetrics.hausdorff_distance(preds, target, **options)


def test_patched_torchmetrics_class_measures_oblong_images():
    from torchmetrics.segmentation import HausdorffDistance

    first, second = (torch.from_numpy(blobs(i, i + 2)[None]).long() for i in (1, 2))
    expected = torchmetrics.hausdorff_distance(first, second, 2, True)
    with compat.patch("torchmetrics"):
        metric = HausdorffDistance(num_classes=2, include_background=True)
        metric.update(first, second)
    torch.testing.assert_close(metric.compute(), expected.mean())
