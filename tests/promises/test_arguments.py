"""What a user may pass, and what is said about the usual slips."""

from __future__ import annotations

import inspect
import re
import warnings

import numpy as np
import pytest
import torch

import pixelkernels as pk
from pixelkernels import numpy as arrays
from pixelkernels import testing
from pixelkernels.testing.samples import OPS
from tests.helpers import backends

ON_CPU = backends("cpu", "eager")
FEATURES = testing.features(2, 4, 12, 15)
OBJECT = testing.coherent_labels(2, 12, 15, 3) == 1
WEIGHTS = testing.weights(2, 12, 15)

MASKED = {
    "is_triplet_loss": lambda mask, **options: [
        pk.is_triplet_loss(
            FEATURES, mask, num_samples=9, generator=torch.Generator().manual_seed(0), **options
        )
    ],
    "metric_expression_loss": lambda mask, **options: [
        pk.metric_expression_loss(FEATURES, mask, **options)
    ],
    "next_click": lambda mask, **options: pk.next_click(OBJECT.roll(3, 2), mask, **options),
    "pixelkernels.numpy.next_click": lambda mask, **options: arrays.next_click(
        OBJECT.roll(3, 2).numpy(), mask.numpy(), **without_backend(options)
    ),
}
OBJECTS_ALONE = {
    "sample_pixels": lambda mask: [
        pk.sample_pixels(mask, 9, generator=torch.Generator().manual_seed(0))
    ],
    "distance_transform": lambda mask: [pk.distance_transform(mask)],
    "simulate_clicks": lambda mask: pk.simulate_clicks(
        mask, 2, 2, margin=1, generator=torch.Generator().manual_seed(0)
    ),
    "pixelkernels.numpy.distance_transform": lambda mask: [arrays.distance_transform(mask.numpy())],
}


def without_backend(options):
    return {name: value for name, value in options.items() if name != "backend"}


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


# ---- masks ----


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.uint16])
@pytest.mark.parametrize("value", [1, 7, 255])
@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
def test_every_value_but_0_is_the_object(call, value, dtype, backend):
    mask = OBJECT.to(torch.int64).mul(value).to(dtype)
    same(call(mask, backend=backend), call(OBJECT, backend=backend))


@pytest.mark.parametrize("call", OBJECTS_ALONE.values(), ids=OBJECTS_ALONE)
def test_masks_without_an_ignored_label_take_every_value_but_0(call):
    same(call(OBJECT.long() * 255), call(OBJECT))
    same(call(testing.random_labels(2, 12, 15, high=300).where(OBJECT, 0) + OBJECT), call(OBJECT))


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("ignored", [-1, 255, 3])
@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
def test_the_ignored_label_is_neither_object_nor_background(call, ignored, backend):
    left_out = testing.coherent_labels(2, 12, 15, 4, seed=3) == 0
    mask = OBJECT.long().masked_fill(left_out, ignored)
    expected = call(OBJECT.long().masked_fill(left_out, -1), backend=backend)
    same(call(mask, ignore_index=ignored, backend=backend), expected)
    assert any(
        not torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for a, b in zip(expected, call(OBJECT, backend=backend), strict=True)
    )


@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
def test_values_that_no_mask_has_raise(call):
    name = next(iter(inspect.signature(call).parameters))
    message = f"^({name}|target): expected no negative value but ignore_index=-1, got -3"
    with pytest.raises(ValueError, match=message):
        call(OBJECT.long() - 3 * (~OBJECT).long())
    void = OBJECT.byte()
    void[:, 0] = 255
    with pytest.raises(ValueError, match=r"got 1 and 255; .* pass ignore_index=255"):
        call(void)
    call(void, ignore_index=255)


@pytest.mark.parametrize("call", OBJECTS_ALONE.values(), ids=OBJECTS_ALONE)
def test_a_negative_value_of_a_mask_raises(call):
    with pytest.raises(ValueError, match=r"^(mask|target): expected no negative value, got -1"):
        call(OBJECT.long() - 1)


# ---- numbers, weights, arrays ----


@pytest.mark.parametrize("count", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_numbers_may_be_integers_of_numpy_and_tensors(count):
    labels = testing.random_labels(2, 12, 15, high=3)
    same(pk.region_stats(FEATURES, labels, count), pk.region_stats(FEATURES, labels, 3))
    drawn = pk.simulate_clicks(OBJECT, count, count)
    assert drawn[0].shape == (2, 6, 2)
    assert pk.CASLoss(count)(FEATURES, labels) == pk.cas_loss(FEATURES, labels, 3)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_numbers_may_be_floats_of_numpy_and_tensors(number):
    labels = testing.random_labels(2, 12, 15, high=3)
    same(
        [pk.cas_loss(FEATURES, labels, 3, alpha=number)],
        [pk.cas_loss(FEATURES, labels, 3, alpha=0.5)],
    )
    scores = pk.matching_scores(FEATURES, FEATURES, labels, 3, scale=number, reduce="max")
    same([scores], [pk.matching_scores(FEATURES, FEATURES, labels, 3, scale=0.5, reduce="max")])


@pytest.mark.parametrize("wrong", [torch.tensor([3]), torch.tensor(3.0), np.array([3]), np.True_])
def test_other_tensors_and_arrays_are_no_numbers(wrong):
    with pytest.raises(TypeError, match=r"^num_regions: expected an int, got "):
        pk.region_stats(FEATURES, OBJECT, wrong)


@pytest.mark.parametrize("backend", ON_CPU)
def test_weights_may_be_bool(backend):
    for call in (
        lambda weights: pk.masked_average_pool(FEATURES, weights, backend=backend),
        lambda weights: pk.background_distance(FEATURES, weights, backend=backend),
        lambda weights: pk.prior_mask(FEATURES, FEATURES, weights, backend=backend),
    ):
        assert torch.equal(call(OBJECT), call(OBJECT.float()))


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
def test_nan_in_a_weight_shows_in_the_result_of_its_image(backend, device):
    features, weights = FEATURES.to(device), WEIGHTS.clone().to(device)
    weights[0, 3, 4] = torch.nan
    results = {
        "pool": pk.masked_average_pool(features, weights, backend=backend),
        "distance": pk.background_distance(features, weights, backend=backend),
        "squared": pk.background_distance(features, weights, squared=True, backend=backend),
    }
    if backend != "cuda":
        for reduce in ("max", "softmax"):
            prior = pk.prior_mask(features, features, weights, reduce=reduce, backend=backend)
            results[f"prior, {reduce}"] = prior
    for name, x in results.items():
        assert x[0].isnan().all(), name
        assert x[1].isfinite().all(), name


def test_arrays_may_come_without_the_dimension_of_the_batch():
    points, kinds = np.array([[3, 4], [5, 1]]), np.array([1, 0])
    for found, expected in (
        (
            arrays.click_maps(points, kinds, [6, 8]),
            arrays.click_maps(points[None], kinds[None], (6, 8)),
        ),
        (arrays.distance_transform(OBJECT[0].numpy()), arrays.distance_transform(OBJECT.numpy())),
    ):
        assert np.array_equal(found, expected[0])
    prediction, target = OBJECT.roll(3, 2).numpy(), OBJECT.numpy()
    batch = arrays.next_click(prediction, target, not_clicked=target)
    one = arrays.next_click(prediction[0], target[0], not_clicked=target[0])
    assert all(np.array_equal(a, b[0]) for a, b in zip(one, batch, strict=True))


def test_a_size_may_be_any_sequence():
    points, kinds = torch.tensor([[[3, 4]]]), torch.tensor([[1]])
    for size in ([6, 8], torch.Size([6, 8]), (np.int64(6), torch.tensor(8))):
        assert pk.click_maps(points, kinds, size).shape == (1, 2, 6, 8)


# ---- autocast ----


@pytest.mark.parametrize("backend", ON_CPU)
def test_features_of_two_dtypes_are_matched_in_the_wider_one_under_autocast(backend):
    narrow, labels = FEATURES.bfloat16(), testing.random_labels(2, 12, 15, high=3)
    for call in (
        lambda a, b: pk.label_transfer(a, b, labels, 3, metric="cosine", backend=backend),
        lambda a, b: [pk.prior_mask(a, b, WEIGHTS, backend=backend)],
        lambda a, b: [pk.pair_similarity_loss(a, b, labels, labels, backend=backend)],
    ):
        for pair in ((narrow, FEATURES), (FEATURES, narrow)):
            expected = call(*(x.float() for x in pair))
            with pytest.raises(TypeError, match="expected dtype"):
                call(*pair)
            with torch.autocast("cpu", torch.bfloat16):
                same(call(*pair), expected)


def test_gradients_have_the_dtype_of_their_features_under_autocast():
    x, y = FEATURES.bfloat16().requires_grad_(), FEATURES.clone().requires_grad_()
    labels = testing.random_labels(2, 12, 15, high=3)
    with torch.autocast("cpu", torch.bfloat16):
        pk.pair_similarity_loss(x, y, labels, labels).backward()
    assert x.grad.dtype == torch.bfloat16
    assert y.grad.dtype == torch.float32


# ---- errors ----


LABELS = testing.random_labels(2, 12, 15, high=3)
SLIPS = {
    "too many regions": (
        "num_regions: expected at most 16777216, got 1000000000; compact_labels numbers",
        lambda: pk.cas_loss(FEATURES, LABELS, 10**9),
    ),
    "channels last": (
        "if descriptors have channels last, pass `descriptors.movedim(-1, 1)`",
        lambda: pk.cas_loss(FEATURES.movedim(1, -1), LABELS, 3),
    ),
    "channels last of a reference": (
        "got [2, 12]; if it has channels last, pass `reference.movedim(-1, 1)`",
        lambda: pk.matching_scores(FEATURES[:, :, :1], FEATURES.movedim(1, -1), LABELS, 3),
    ),
    "a dimension of one channel": (
        "labels: expected shape [2, 12, 15] for features of shape [2, 4, 12, 15], got"
        " [2, 1, 12, 15]; pass `labels.squeeze(1)`",
        lambda: pk.region_stats(FEATURES, LABELS[:, None], 3),
    ),
    "a mask of one channel": (
        "mask: expected shape [B, H, W], got [2, 1, 12, 15]; `mask.squeeze(1)`",
        lambda: pk.sample_pixels(OBJECT[:, None], 3),
    ),
    "one image": (
        "features: expected shape [B, C, H, W], got [4, 12, 15]; `features[None]`",
        lambda: pk.region_stats(FEATURES[0], LABELS[0], 3),
    ),
    "float labels": (
        "labels: expected an integer or bool dtype, got torch.float32; convert it, as with"
        " `labels.long()`",
        lambda: pk.region_stats(FEATURES, LABELS.float(), 3),
    ),
    "labels for descriptors": (
        "labels: expected shape [2, 12, 15] for descriptors of shape [2, 4, 12, 15], got",
        lambda: pk.cas_loss(FEATURES, LABELS[:, ::2], 3),
    ),
    "labels for a reference": (
        "labels: expected shape [2, 12, 15] for reference of shape [2, 4, 12, 15], got [2, 6, 15]",
        lambda: pk.label_transfer(FEATURES, FEATURES, LABELS[:, ::2], 3),
    ),
    "points in columns": (
        "points: expected shape [B, N, 2] of (row, column), got [2, 2, 7]",
        lambda: pk.click_maps(torch.zeros(2, 2, 7), torch.zeros(2, 7, dtype=torch.int64), (4, 5)),
    ),
}


@pytest.mark.parametrize(("message", "call"), SLIPS.values(), ids=SLIPS)
def test_errors_name_the_argument_and_the_usual_slip(message, call):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call()


def test_points_that_fit_the_image_only_as_x_and_y_warn():
    labels = torch.tensor([[1, 0, -1]])
    swapped = torch.tensor([[[30, 5], [12, 3], [99, 99]]])
    with pytest.warns(UserWarning, match=r"points are \(row, column\), so pass `points.flip"):
        pk.click_maps(swapped, labels, (20, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pk.click_maps(swapped.flip(2), labels, (20, 40))
        pk.click_maps(swapped, labels, (31, 10))  # outside either way
        pk.click_maps(swapped, labels, (40, 10))  # inside


# ---- modules ----

MODULES = {op.module.__name__: op for op in OPS.values() if op.module}
CONTRADICTIONS = {
    "CASLoss": {"divisor": 3.0},
    "MetricExpressionLoss": {"form": "pairwise", "mining": "hard"},
    "DiscriminativeLoss": {"weights": (1.0, 1.0)},
    "ISTripletLoss": {"margin": -1.0},
    "ClickMaps": {"encoding": "disk"},
    "LabelTransfer": {"reduce": "topk"},
    "PriorMask": {"reduce": "mean"},
    "SiameseSimilarityLoss": {"eps": -1.0},
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_the_options_of_their_functions(name):
    options = {
        parameter: value.default
        for parameter, value in inspect.signature(MODULES[name].function).parameters.items()
        if value.kind is inspect.Parameter.KEYWORD_ONLY
    }
    own = inspect.signature(getattr(pk, name)).parameters
    shared = {parameter: own[parameter].default for parameter in options if parameter in own}
    if name != "SiameseSimilarityLoss":  # which has the state of a batch norm in their place
        assert shared == options


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_modules_refuse_unknown_and_contradictory_options_when_they_are_made(name):
    module = getattr(pk, name)
    with pytest.raises(TypeError, match="bogus"):
        module(bogus=1)
    with pytest.raises(
        (TypeError, ValueError), match=f"^({'|'.join(CONTRADICTIONS[name])}|k|radius)"
    ):
        module(**CONTRADICTIONS[name])


@pytest.mark.parametrize("name", ["CASLoss", "DiscriminativeLoss"])
def test_the_number_of_regions_is_given_to_the_module_or_to_the_call(name):
    module, expected = getattr(pk, name), getattr(pk, name)()(FEATURES, LABELS, 3)
    assert module(3)(FEATURES, LABELS) == module(3)(FEATURES, LABELS, 3) == expected
    with pytest.raises(TypeError, match=r"^num_regions: expected it in the constructor or"):
        module()(FEATURES, LABELS)
    with pytest.raises(ValueError, match=r"^num_regions: expected 3 as in the constructor, got 4"):
        module(3)(FEATURES, LABELS, 4)
    assert repr(module(3)) == f"{name}(num_regions=3)"


def test_the_number_of_classes_is_given_to_the_module_or_to_the_call():
    transfer = pk.LabelTransfer(3, metric="cosine")
    assert torch.equal(
        transfer(FEATURES, FEATURES, LABELS).scores,
        pk.LabelTransfer(metric="cosine")(FEATURES, FEATURES, LABELS, 3).scores,
    )


# ---- old names ----

RENAMED = {
    "next_click": (
        pk.next_click,
        (OBJECT, OBJECT.byte()),
        {"ignore_label": 0},
        {"ignore_index": 0},
    ),
    "numpy.next_click": (
        arrays.next_click,
        (OBJECT.numpy(), OBJECT.byte().numpy()),
        {"ignore_label": 0},
        {"ignore_index": 0},
    ),
    "compact_labels": (pk.compact_labels, (LABELS,), {"ignore": (1,)}, {"ignore_index": 1}),
    "discriminative_loss": (
        pk.discriminative_loss,
        (FEATURES, LABELS, 3),
        {"reduction": "pixel", "background": 0},
        {"pixel_weighting": "pixel", "ignore_index": 0},
    ),
}


@pytest.mark.parametrize(("function", "args", "old", "new"), RENAMED.values(), ids=RENAMED)
def test_old_names_of_arguments_warn_and_work(function, args, old, new):
    with pytest.warns(DeprecationWarning, match="is now called") as caught:
        found = function(*args, **old)
    assert {str(w.message).split(" is now called ")[0] for w in caught} == set(old)
    assert all(w.filename == __file__ for w in caught)
    expected = function(*args, **new)
    same(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)))
    with pytest.raises(TypeError, match="which it is now called"):
        function(*args, **old, **new)


def test_old_names_of_a_module_warn_and_work():
    with pytest.warns(DeprecationWarning, match="reduction is now called pixel_weighting"):
        old = pk.DiscriminativeLoss(reduction="pixel")
    assert repr(old) == repr(pk.DiscriminativeLoss(pixel_weighting="pixel"))
