"""The array functions are the tensor functions, and leave the interpreter free."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels import testing
from tests.distance.literal import hard_masks
from tests.helpers import run_python

ENCODINGS = {"euclidean": None, "disk": 6.5, "tanh": 20.0, "gaussian": 9.0}


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.uint32])
def test_distance_transform(dtype):
    mask = torch.stack(list(hard_masks(33, 50).values())[:9]).unflatten(0, (3, 3))
    array = mask.numpy().astype(dtype)
    for options in ({}, {"squared": True}, {"sampling": (0.5, 2)}):
        actual = pkn.distance_transform(array, **options)
        expected = pk.distance_transform(mask, **options).numpy()
        assert actual.dtype == expected.dtype
        assert np.array_equal(actual, expected)
        turned = pkn.distance_transform(array.swapaxes(-1, -2), **options)
        again = pk.distance_transform(mask.mT, **options).numpy()
        assert np.array_equal(turned, again)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, np.uint8])
def test_click_maps(encoding, dtype):
    random = np.random.default_rng(0)
    points = (random.random((3, 9, 2)) * 50).astype(dtype)
    labels = random.integers(-1, 2, (3, 9))
    options = {"encoding": encoding, "radius": ENCODINGS[encoding]}
    actual = pkn.click_maps(points, labels, (40, 61), **options)
    tensors = torch.from_numpy(points), torch.from_numpy(labels)
    assert np.array_equal(actual, pk.click_maps(*tensors, (40, 61), **options).numpy())
    assert pkn.click_maps(points[:, :0], labels[:, :0], (2, 3), **options).shape == (3, 2, 2, 3)


@pytest.mark.parametrize("ignore_label", [-1, 0, 2, 300])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8])
def test_next_click(ignore_label, dtype):
    target = testing.coherent_labels(5, 40, 50, 4).numpy().astype(dtype)
    prediction = testing.coherent_labels(5, 40, 50, 4, seed=3).numpy() == 1
    prediction[2] = target[2] == 1
    not_clicked = np.random.default_rng(0).random(target.shape) < 0.5
    for allowed in (None, not_clicked):
        actual = pkn.next_click(prediction, target, not_clicked=allowed, ignore_label=ignore_label)
        expected = pk.next_click(
            torch.from_numpy(prediction),
            torch.from_numpy(target),
            not_clicked=None if allowed is None else torch.from_numpy(allowed),
            ignore_label=ignore_label,
        )
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == e.numpy().dtype
            assert np.array_equal(a, e.numpy())


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)], ids=str)
def test_no_pixels(shape):
    mask = np.zeros(shape, bool)
    assert pkn.distance_transform(mask).shape == shape
    assert not pkn.next_click(mask, mask).valid.any()


MASK, POINTS, LABELS = np.ones((2, 4, 5), bool), np.zeros((2, 3, 2)), np.zeros((2, 3), np.int64)
BAD_CALLS = {
    "mask list": (TypeError, "mask.*list", lambda: pkn.distance_transform([[True]])),
    "mask float": (TypeError, "mask.*float64", lambda: pkn.distance_transform(MASK * 1.0)),
    "mask text": (TypeError, "mask", lambda: pkn.distance_transform(np.array([["a"]]))),
    "mask rank": (ValueError, "mask", lambda: pkn.distance_transform(MASK[0, 0])),
    "labels shape": (ValueError, "labels", lambda: pkn.click_maps(POINTS, LABELS[:1], (4, 5))),
    "label 2": (ValueError, "labels.*got 2", lambda: pkn.click_maps(POINTS, LABELS + 2, (4, 5))),
    "point NaN": (ValueError, "points", lambda: pkn.click_maps(POINTS * np.nan, LABELS, (4, 5))),
    "target shape": (ValueError, "target", lambda: pkn.next_click(MASK, MASK[:1])),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()


def test_the_gil_is_released():
    mask = np.zeros((1, 3000, 4000), bool)
    mask[0, 0, 0] = True
    started, ended = threading.Event(), threading.Event()

    def work():
        started.set()
        pkn.distance_transform(mask)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    steps = 0
    while not ended.is_set():
        steps += 1
    thread.join()
    assert steps > 1000, "the interpreter stood still while the transform ran"


def test_without_the_compiled_library():
    code = """
import sys
sys.modules["pixelkernels._C"] = None
import numpy, pixelkernels, pixelkernels.numpy as pkn
try:
    pkn.distance_transform(numpy.ones((3, 4), bool))
except pixelkernels.BackendUnavailable as error:
    assert "_C" in str(error), error
else:
    raise AssertionError
"""
    run_python(code)
