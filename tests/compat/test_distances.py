"""Drop-ins for distance transforms: SciPy, MONAI, kornia and torchmetrics; and MONAI's losses."""

from __future__ import annotations

import sys
import warnings
from enum import Enum
from math import sqrt

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.segmentation import hausdorff_distance, utils

from pixelkernels import compat
from pixelkernels.compat import kornia, monai, scipy, torchmetrics
from tests.compat.originals import assert_close, hausdorff
from tests.compat.test_clicks import blobs

edt = ndimage.distance_transform_edt
original = utils.distance_transform  # of torchmetrics
METRICS = ("euclidean", "chessboard", "taxicab")


def squares(mask):
    """Squared distances to the nearest zero, int64, from the pixel that SciPy finds."""
    nearest = edt(mask, return_distances=False, return_indices=True)
    return ((np.indices(mask.shape) - nearest) ** 2).sum(0)


def assert_nearest(indices, image, distances, sampling=None):
    """They are int32 indices of zeros at those distances: of equally near ones, any."""
    assert indices.dtype == np.int32
    assert not np.asarray(image)[tuple(indices)].any()
    steps = np.broadcast_to(1.0 if sampling is None else sampling, image.ndim)
    offsets = (indices - np.indices(image.shape)) * steps.reshape(-1, *[1] * image.ndim)
    np.testing.assert_allclose(np.sqrt((offsets**2).sum(0)), distances, rtol=1e-14)


@pytest.fixture
def alone(monkeypatch):
    """The drop-in without SciPy's own function to hand calls to."""
    monkeypatch.setattr(scipy, "original", None)


VOLUME = blobs(4, 5, 6, shape=(20, 15))


@pytest.mark.parametrize("sampling", [None, 1, 2.5, (1.5, 0.7, 0.3)], ids=str)
@pytest.mark.parametrize(
    "image",
    [blobs(5)[0], blobs(5)[0][:, ::2].T, VOLUME, VOLUME[:, :1], VOLUME[0, 8], VOLUME[:, 8]],
    ids=lambda x: str(x.shape),
)
def test_scipy_transform(image, sampling, alone):
    if np.ndim(sampling):
        sampling = sampling[: image.ndim]
    expected = edt(image, sampling)
    found = scipy.distance_transform_edt(image, sampling)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-15 if sampling else 0)
    both = scipy.distance_transform_edt(image, sampling, return_indices=True)
    assert isinstance(both, tuple)
    assert np.array_equal(both[0], found)
    assert_nearest(both[1], image, expected, sampling)
    nearest = scipy.distance_transform_edt(image, sampling, False, True)
    assert np.array_equal(nearest, both[1])


@pytest.mark.parametrize("sampling", [None, 2.5])
@pytest.mark.parametrize("image", [blobs(5)[0], VOLUME], ids=["image", "volume"])
def test_scipy_transform_writes_into_outputs(image, sampling, alone):
    distances, indices = scipy.distance_transform_edt(image, sampling, return_indices=True)

    def transform(**options):
        return scipy.distance_transform_edt(image, sampling, **options)

    out, index_out = np.empty_like(distances), np.empty_like(indices)
    assert transform(distances=out) is None
    assert np.array_equal(out, distances)
    assert transform(return_indices=True, distances=out * 0, indices=index_out) is None
    assert np.array_equal(index_out, indices)
    found = transform(return_indices=True, indices=index_out[::-1])
    assert np.array_equal(found, distances)
    assert np.array_equal(index_out[::-1], indices)
    assert np.array_equal(transform(return_indices=True, distances=out), indices)


@pytest.mark.parametrize(
    "options",
    [
        {"distances": np.empty((4, 6))},
        {"distances": np.empty((4, 5), np.float32)},
        {"return_indices": True, "indices": np.empty((2, 4, 5))},
        {"return_indices": True, "indices": np.empty((3, 4, 5), np.int32)},
        {"indices": np.empty((2, 4, 5), np.int32)},
        {"return_distances": False},
        {"return_distances": False, "return_indices": True, "distances": np.empty((4, 5))},
    ],
)
def test_scipy_transform_raises_scipys_error_for_outputs(options):
    image = np.arange(20).reshape(4, 5)
    with pytest.raises(RuntimeError) as expected:
        edt(image, **options)
    with pytest.raises(RuntimeError) as found:
        scipy.distance_transform_edt(image, **options)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    "image",
    [
        *(np.ones((4, 5)), np.zeros((4, 5)), np.ones((3, 4, 5)), np.ones((3, 0, 5)), np.ones(7)),
        np.ones((3, 4, 5)) * blobs(1, shape=(4, 5)),
        np.ones((2, 3, 4, 5)) * blobs(1, shape=(4, 5)),
        np.arange(40000).reshape(1, -1) % 39999 != 7,
        np.arange(30000).reshape(1, 1, -1) % 29999 != 7,
        np.array(0),
    ],
    ids=lambda x: str(x.shape),
)
def test_scipy_transform_of_special_images(image):
    assert np.array_equal(scipy.distance_transform_edt(image), edt(image))
    found = scipy.distance_transform_edt(image, return_indices=True)
    assert [x.shape for x in found] == [x.shape for x in edt(image, return_indices=True)]


@pytest.mark.parametrize(
    "sampling", [1, (1.0, 1.0), 0, (0.0, 2.0), -1.5, (2**-70, 1.0), (1e4, 1.0)]
)
def test_scipy_transform_has_the_bits_of_scipys_for_these_spacings(sampling):
    (image,) = blobs(3)
    assert np.array_equal(scipy.distance_transform_edt(image, sampling), edt(image, sampling))


def test_scipy_transform_raises_scipys_error_for_a_sampling_of_another_length():
    for sampling in ([1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(RuntimeError, match="length equal to input rank"):
            scipy.distance_transform_edt(blobs(1)[0], sampling)


def of_monai(images, sampling=None):
    """What MONAI computes on the CPU: SciPy's distances and indices, channel by channel."""
    channels, *size = images.shape
    distances = np.zeros(images.shape)
    indices = np.zeros((channels, len(size), *size), np.int32)
    for image, *out in zip(images, distances, indices, strict=True):
        edt(image, sampling, True, True, *out)
    return distances, indices


@pytest.fixture(params=["array", "tensor"])
def as_kind(request):
    return np.asarray if request.param == "array" else torch.as_tensor


def test_monai_transform(as_kind):
    images = blobs(0, 1, 2).astype(np.float32)
    given = as_kind(images)
    found = monai.distance_transform_edt(given)
    assert type(found) is type(given)
    assert np.array_equal(found, [edt(x) for x in images])
    spaced = monai.distance_transform_edt(given, sampling=[2.0, 0.3])
    np.testing.assert_allclose(spaced, [edt(x, sampling=(2, 0.3)) for x in images], rtol=1e-15)


def volumes():
    return np.stack([blobs(4, 5, 6, shape=(20, 15)), blobs(7, 8, 9, shape=(20, 15))])


@pytest.mark.parametrize(
    ("images", "sampling"),
    [
        (volumes(), None),
        (volumes(), [2.0, 0.5, 1.5]),
        (blobs(1, 2), None),
        (blobs(1, 2), 3.0),
        (np.ones((2, 4, 5), bool), None),
        (np.stack([blobs(3, shape=(8, 9))[0], np.ones((8, 9), bool)]), (1.0, 2.0)),
        (np.arange(40000).reshape(1, 1, -1) % 39999 != 7, None),
        (blobs(1, 2), [0.0, 1.0]),
        (blobs(1, 2), [1e4, 1.0]),
        (np.ones((2, 0, 3), bool), None),
        (np.ones((0, 3, 4), bool), None),
    ],
)
def test_monai_transform_serves_what_monai_does(images, sampling, as_kind):
    distances, indices = of_monai(images, sampling)
    given = as_kind(images)

    def transform(**options):
        return monai.distance_transform_edt(given, sampling, **options)

    found = transform(return_indices=True)
    assert isinstance(found, list)
    assert [type(x) for x in found] == [type(given)] * 2
    np.testing.assert_allclose(found[0], distances, rtol=1e-15)
    assert np.asarray(found[0]).dtype == np.float64
    assert np.asarray(found[1]).shape == indices.shape
    for image, nearest, expected in zip(images, np.asarray(found[1]), distances, strict=True):
        if not image.all():
            assert_nearest(nearest, image, expected, sampling)
    nearest = transform(return_distances=False, return_indices=True)
    assert np.array_equal(nearest, found[1])
    assert np.array_equal(nearest, transform(return_indices=True, distances=np.empty(1)))
    alone = transform()
    assert np.asarray(alone).dtype == np.float64
    np.testing.assert_allclose(alone, distances, rtol=1e-15)


def test_monai_outputs_suppress_results_and_stay_unwritten():
    image = blobs(1)
    distances, indices = np.full(image.shape, 7.0), np.full((1, 2, *image.shape[1:]), 7, np.int32)
    outputs = {"distances": distances, "indices": indices}
    assert monai.distance_transform_edt(image, distances=distances) is None
    assert monai.distance_transform_edt(image, return_indices=True, **outputs) is None
    assert (distances == 7).all()
    assert (indices == 7).all()
    found = monai.distance_transform_edt(image, return_indices=True, indices=indices)
    assert np.array_equal(found, of_monai(image)[0])


def test_monai_transform_raises_what_monai_raises():
    with pytest.raises(RuntimeError, match="expected one of them"):
        monai.distance_transform_edt(blobs(1), return_distances=False)
    for shape in ((4, 5), (1, 1, 2, 3, 4)):
        with pytest.raises(RuntimeError, match="expected \\[C, H, W\\] or"):
            monai.distance_transform_edt(np.ones(shape))
    for images, sampling in ((blobs(1), [1.0, 2.0, 3.0]), (blobs(1), [1.0]), (volumes(), [1.0])):
        with pytest.raises(RuntimeError, match="length equal to input rank"):
            monai.distance_transform_edt(images, sampling)


@pytest.mark.parametrize("images", [blobs(1, 2), volumes()], ids=["images", "volumes"])
def test_monai_transform_of_strided_arrays_and_tensor_subclasses(images):
    class Subclass(torch.Tensor):
        pass

    expected = of_monai(images)[0]
    flipped = np.ascontiguousarray(images[..., ::-1])[..., ::-1]
    assert np.array_equal(monai.distance_transform_edt(flipped), expected)
    leaf = torch.from_numpy(images).float().requires_grad_()
    found = monai.distance_transform_edt(leaf)
    assert not found.requires_grad
    assert np.array_equal(found, expected)
    kept = monai.distance_transform_edt(leaf.detach().as_subclass(Subclass))
    assert type(kept) is Subclass
    assert np.array_equal(kept.as_subclass(torch.Tensor), expected)


def test_roots_are_taken_in_float64():
    image = np.ones((2, 5001))
    image[0, 0] = 0
    expected = sqrt(5000**2 + 1)  # needs more bits than float32 has
    assert scipy.distance_transform_edt(image)[1, 5000] == expected
    assert monai.distance_transform_edt(image[None])[0, 1, 5000] == pytest.approx(expected, 1e-12)


def test_kornia_transform():
    images = torch.from_numpy(blobs(1, 2))[:, None]
    found = kornia.distance_transform(images.float(), kernel_size=5)
    expected = [[edt(~x[0].numpy())] for x in images]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-6)


def test_kornia_transform_measures_to_positive_pixels_and_is_zero_without_one():
    image = torch.zeros(1, 3, 40, 50)
    image[0, 0, 3, 4], image[0, 1, 39, 49], image[0, :, 0, 1] = 0.25, 7, -1
    found = kornia.distance_transform(image)
    assert found[0, 0, [3, 3, 0, 33, 8], [4, 5, 0, 44, 16]].tolist() == [0, 1, 5, 50, 13]
    assert found[0, 1, 0, 0].item() == np.float32(sqrt(39**2 + 49**2))
    assert not found[0, 2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_kornia_transform_keeps_the_dtype_of_images_and_volumes(dtype):
    volume = torch.from_numpy(volumes())[None].repeat(2, 1, 1, 1, 1)
    volume[1, 0] = False
    found = kornia.distance_transform(volume.to(dtype))
    expected = torch.stack([torch.from_numpy(edt(~x.numpy())) for x in volume.flatten(0, 1)])
    expected = expected.view(volume.shape).float().to(dtype)
    expected[1, 0] = 0
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert kornia.distance_transform(volume[:, :, 0].to(dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("image", "options", "error", "name"),
    [
        ([1.0], {}, TypeError, "image"),
        (torch.ones(1, 1, 4, 4, dtype=torch.long), {}, TypeError, "image"),
        (torch.ones(1, 4, 4), {}, ValueError, "image"),
        (torch.ones(1, 1, 4, 4), {"kernel_size": 4}, ValueError, "kernel_size"),
        (torch.ones(1, 1, 4, 4), {"kernel_size": 1}, ValueError, "kernel_size"),
        (torch.ones(1, 1, 4, 4), {"kernel_size": -3}, ValueError, "kernel_size"),
        (torch.ones(1, 1, 4, 4), {"kernel_size": 3.0}, TypeError, "kernel_size"),
        (torch.ones(1, 1, 4, 4), {"h": 0}, ValueError, "h"),
        (torch.ones(1, 1, 4, 4), {"h": float("nan")}, ValueError, "h"),
    ],
)
def test_kornia_transform_rejects(image, options, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        kornia.distance_transform(image, **options)


def test_kornia_transform_does_not_drop_a_gradient_silently():
    image = torch.ones(1, 1, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match="the exact distance has none in the image"):
        kornia.distance_transform(image)
    assert not kornia.distance_transform(image.detach()).any()
    with torch.no_grad():
        assert not kornia.distance_transform(image).any()


# ---- MONAI's losses ----


def segmentation(*space, classes=3, batch=2):
    """Logits and one-hot masks, float64; every class is in every image, and none is everywhere."""
    generator = torch.Generator().manual_seed(len(space))
    labels = torch.randint(classes, (batch, *space), generator=generator)
    labels.flatten(1)[:, :classes] = torch.arange(classes)
    noise = torch.randn(batch, classes, *space, generator=generator, dtype=torch.float64)
    return noise, torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).double()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", [(9, 13), (6, 5, 7)], ids=str)
@pytest.mark.parametrize(
    ("options", "activated"),
    [
        ({}, lambda x: x),
        ({"sigmoid": True, "include_background": True}, torch.sigmoid),
        ({"softmax": True, "alpha": 1}, lambda x: x.softmax(1)),
        ({"other_act": torch.tanh, "alpha": 1.5}, torch.tanh),
        ({"softmax": True, "other_act": torch.exp}, lambda x: x.softmax(1).exp()),
    ],
)
def test_monai_hausdorff_loss(options, activated, space, dtype, log):
    x, masks = segmentation(*space)
    kept = slice(0 if options.get("include_background") else 1, None)
    name = "LogHausdorffDTLoss" if log else "HausdorffDTLoss"
    for reduction in ("mean", "sum", "none"):
        for batch in (False, True):
            leaf = x.clone().requires_grad_()
            parts = hausdorff(activated(leaf)[:, kept], masks[:, kept], options.get("alpha", 2.0))
            parts = parts.mean(0, keepdim=True) if batch else parts
            expected = {"mean": parts.mean, "sum": parts.sum, "none": parts.clone}[reduction]()
            expected = (expected + 1).log() if log else expected
            gradient = torch.autograd.grad(expected.square().sum(), leaf)[0]
            loss = getattr(monai, name)(**options, reduction=reduction, batch=batch)
            leaf = x.detach().to(dtype).requires_grad_()
            found = loss(leaf, masks.to(dtype))
            if reduction == "none":
                assert found.shape == (1 if batch else 2, parts.shape[1], *[1] * len(space))
                found = found.flatten(1)
            assert_close(found.detach(), expected.detach())
            assert_close(torch.autograd.grad(found.square().sum(), leaf)[0], gradient)


@pytest.mark.parametrize("space", [(9, 13), (6, 5, 7)], ids=str)
def test_monai_hausdorff_loss_of_labels(space):
    x, masks = segmentation(*space)
    labels = masks.argmax(1, keepdim=True)
    expected = monai.HausdorffDTLoss(softmax=True)(x, masks)
    for target in (labels, labels.byte(), labels.float()):
        found = monai.HausdorffDTLoss(softmax=True, to_onehot_y=True)(x, target)
        assert torch.equal(found, expected)
    assert torch.equal(monai.HausdorffDTLoss(softmax=True)(x, masks.long()), expected)


def test_monai_hausdorff_loss_of_integers_and_soft_masks():
    """The arithmetic is MONAI's: no value but 1 stands for an object."""
    x, masks = segmentation(9, 13)
    for target in (2 * masks.long(), masks.byte(), 0.3 + 0.4 * masks):
        expected = hausdorff(x, target.double()).mean()
        found = monai.HausdorffDTLoss(include_background=True)(x, target)
        torch.testing.assert_close(found, expected)


def test_monai_hausdorff_loss_of_one_channel_warns():
    x, masks = segmentation(9, 13)
    x, masks = x[:, :1].sigmoid(), masks[:, :1]
    expected = hausdorff(x, masks).mean()
    for option in ("softmax", "to_onehot_y"):
        loss = monai.HausdorffDTLoss(**{option: True}, include_background=True)
        with pytest.warns(UserWarning, match=f"single channel prediction, `{option}=True` ignored"):
            torch.testing.assert_close(loss(x, masks), expected)
    with pytest.warns(UserWarning, match="`include_background=False` ignored") as caught:
        torch.testing.assert_close(monai.HausdorffDTLoss()(x, masks), expected)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monai.HausdorffDTLoss(include_background=True)(x, masks)


def test_monai_hausdorff_loss_raises_what_monai_raises():
    class Reduction(str, Enum):
        MEAN = "mean"

    x, masks = segmentation(9, 13)
    assert monai.HausdorffDTLoss(reduction=Reduction.MEAN)(x, masks).dim() == 0
    for reduction in ("unknown", None):
        with pytest.raises(ValueError, match="reduction: expected"):
            monai.HausdorffDTLoss(reduction=reduction)
    with pytest.raises(TypeError, match="other_act: expected None or a callable, got str"):
        monai.HausdorffDTLoss(other_act="tanh")
    with pytest.raises(ValueError, match="sigmoid, softmax: expected at most one"):
        monai.HausdorffDTLoss(sigmoid=True, softmax=True)
    loss = monai.HausdorffDTLoss()
    with pytest.raises(ValueError, match=r"input: expected \[B, C, H, W\] or"):
        loss(x[0], masks[0])
    with pytest.raises(AssertionError, match=r"target: expected \[2, 3, 9, 13\], got"):
        loss(x, masks[:, :1])
    with pytest.raises(AssertionError, match=r"target: expected \[2, 1, 9, 13\], got"):
        monai.HausdorffDTLoss(to_onehot_y=True)(x, masks)
    with pytest.raises(ValueError, match="target: expected no gradient"):
        loss(x, masks.requires_grad_())


def brute_force(mask, sampling, metric):
    """The distance of every pixel to its nearest zero, by comparing all of them; float64."""
    zeros = np.argwhere(~mask)
    offsets = np.abs(np.argwhere(np.ones_like(mask))[:, None] - zeros) * np.abs(sampling)
    if metric == "euclidean":
        distances = np.sqrt((offsets**2).sum(2))
    else:
        distances = offsets.max(2) if metric == "chessboard" else offsets.sum(2)
    return distances.min(1).reshape(mask.shape)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sampling", [[2.0, 0.5], [0.3, 1.7], [0.0, 1.0], [-1.0, 2], [2.0**-70, 1]])
def test_torchmetrics_transform_is_exact_for_any_spacing(metric, sampling):
    for density, shape in ((0.5, (13, 29)), (0.98, (31, 7)), (0.98, (1, 40))):
        mask = np.random.default_rng(0).random(shape) < density
        expected = brute_force(mask, sampling, metric)
        found = torchmetrics.distance_transform(torch.from_numpy(mask), sampling, metric)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        array = torchmetrics.distance_transform(torch.from_numpy(mask), sampling, metric, "scipy")
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-12)


def test_torchmetrics_transform_has_scipys_distances(masks):
    for mask in [pair[0] for pair in masks[::4]]:
        tensor = torch.from_numpy(mask)
        expected = [edt(mask)] + [ndimage.distance_transform_cdt(mask, x) for x in METRICS[1:]]
        for metric, distances in zip(METRICS, expected, strict=True):
            found = torchmetrics.distance_transform(tensor, metric=metric)
            assert found.dtype == torch.float32
            assert np.array_equal(found, distances.astype(np.float32))
            array = torchmetrics.distance_transform(tensor, [1, 1], metric, "scipy")
            assert array.dtype == distances.dtype
            assert np.array_equal(array, distances)


@pytest.mark.parametrize("metric", METRICS)
def test_torchmetrics_default_engine_has_the_originals_result_for_square_images(metric):
    mask = torch.from_numpy(blobs(3, shape=(25, 25))[0])
    for sampling in (None, [2.0, 0.5]):
        for dtype in (torch.bool, torch.uint8, torch.int64, torch.float64):
            given = (mask.to(dtype), sampling, metric)
            found, expected = (x(*given) for x in (torchmetrics.distance_transform, original))
            assert found.dtype == expected.dtype
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("metric", METRICS)
def test_torchmetrics_transform_of_strided_and_nonbinary_masks(metric):
    mask = torch.from_numpy(blobs(3)[0])
    expected = torchmetrics.distance_transform(mask.contiguous(), metric=metric)
    wide = torch.zeros(mask.shape[1], 2 * mask.shape[0], dtype=torch.uint8)
    wide[:, ::2] = mask.T * 255
    found = torchmetrics.distance_transform(wide[:, ::2].T, metric=metric)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sampling", [None, [2.0, 0.5]])
def test_torchmetrics_transform_of_special_masks(metric, sampling):
    def transform(mask):
        return torchmetrics.distance_transform(mask, sampling, metric)

    assert not transform(torch.zeros(4, 5)).any()
    assert transform(torch.ones(4, 5)).eq(torch.inf).all()
    for shape in ((0, 5), (5, 0), (0, 0)):
        assert transform(torch.ones(shape)).shape == shape
    ones = torch.ones(4, 5)
    assert np.array_equal(torchmetrics.distance_transform(ones, engine="scipy"), edt(ones))


@pytest.mark.parametrize(
    ("x", "options", "name"),
    [
        (np.ones((3, 4)), {}, "x"),
        (torch.ones(1, 3, 4), {}, "x"),
        (torch.ones(3, 4), {"sampling": (1, 2)}, "sampling"),
        (torch.ones(3, 4), {"sampling": [1, 2, 3]}, "sampling"),
        (torch.ones(3, 4), {"metric": "cosine"}, "metric"),
        (torch.ones(3, 4), {"engine": "numpy"}, "engine"),
    ],
)
def test_torchmetrics_transform_rejects_what_the_original_rejects(x, options, name):
    for function in (torchmetrics.distance_transform, original):
        with pytest.raises(ValueError, match=name):
            function(x, **options)


def test_patch_replaces_torchmetrics_transform_in_all_loaded_modules():
    def bound(function):
        modules = [x for name, x in sys.modules.items() if name.split(".")[0] == "torchmetrics"]
        return [x.__name__ for x in modules if any(v is function for v in vars(x).values())]

    before = bound(original)
    assert before
    with compat.patch("torchmetrics"):
        assert bound(torchmetrics.distance_transform) == before
        assert not bound(original)
    assert bound(original) == before


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spacing", [None, [2.0, 0.5]])
def test_patched_torchmetrics_has_the_hausdorff_distance_of_oblong_masks(metric, spacing):
    preds, target = (torch.from_numpy(blobs(i, shape=(20, 33)))[None] for i in (1, 2))
    edges = [x.bool().numpy() for x in utils.mask_edges(preds[0, 0], target[0, 0])[:2]]
    one_way = [
        brute_force(~there, spacing or [1, 1], metric)[here].max()
        for here, there in (edges, edges[::-1])
    ]
    with compat.patch("torchmetrics"):
        found = hausdorff_distance(
            preds.long(), target.long(), 1, True, metric, spacing, input_format="one-hot"
        )
    np.testing.assert_allclose(found, [[max(one_way)]], rtol=1e-6)


def test_transforms_of_masks(masks):
    for mask in [pair[0] for pair in masks[::4]]:
        found, exact = scipy.distance_transform_edt(mask), squares(mask)
        assert np.array_equal(found, edt(mask))
        assert np.array_equal(found, np.sqrt(exact))
        both = np.stack([mask, ~mask])
        expected = [edt(x) for x in both]
        assert np.array_equal(monai.distance_transform_edt(both), expected)
        tensor = torch.from_numpy(both).float()
        assert np.array_equal(monai.distance_transform_edt(tensor), expected)
        in_float32 = np.sqrt(exact).astype(np.float32)
        assert np.array_equal(kornia.distance_transform(1 - tensor[None])[0, 0], in_float32)


def test_transforms_of_many_objects(instances):
    labels = instances.labels[0, 0].numpy()
    edges = ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)
    for mask in (labels > 0, edges, labels):
        found = scipy.distance_transform_edt(mask)
        assert np.array_equal(found, edt(mask))
        assert np.array_equal(found, np.sqrt(squares(mask)))
