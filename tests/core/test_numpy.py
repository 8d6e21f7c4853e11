"""The array functions where arrays differ from tensors: dtypes, byte orders, the GIL."""

from __future__ import annotations

import threading
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels import testing
from tests.helpers import run_python

TARGET = testing.coherent_labels(2, 20, 30, 4).numpy()
PREDICTION = testing.coherent_labels(2, 20, 30, 4, seed=3).numpy() == 1
POINTS, LABELS = np.array([[[1.0, 2.0]]]), np.ones((1, 1), np.int64)


def same(arrays, tensors):
    for array, tensor in zip(arrays, tensors, strict=True):
        assert array.dtype == tensor.numpy().dtype
        assert np.array_equal(array, tensor.numpy())


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.uint32])
def test_masks_of_every_dtype(dtype):
    mask = TARGET == 1
    expected = pk.distance_transform(torch.from_numpy(mask))
    same([pkn.distance_transform(mask.astype(dtype))], [expected])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, np.uint8])
def test_points_of_every_dtype(dtype):
    random = np.random.default_rng(0)
    points = (random.random((3, 9, 2)) * 50).astype(dtype)
    labels = random.integers(-1, 2, (3, 9))
    expected = pk.click_maps(torch.from_numpy(points), torch.from_numpy(labels), (40, 61))
    same([pkn.click_maps(points, labels, (40, 61))], [expected])


@pytest.mark.parametrize("ignore_index", [-1, 0, 2, 300])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8])
def test_ignored_labels_that_the_dtype_may_not_hold(ignore_index, dtype):
    target = TARGET.astype(dtype)
    options = {"ignore_index": ignore_index}
    expected = pk.next_click(torch.from_numpy(PREDICTION), torch.from_numpy(target), **options)
    same(pkn.next_click(PREDICTION, target, **options), expected)


def test_arrays_in_another_byte_order():
    swapped = np.dtype(np.int32).newbyteorder()
    target, prediction = TARGET.astype(swapped), PREDICTION.astype(swapped)
    tensors = torch.from_numpy(PREDICTION), torch.from_numpy(TARGET)
    same(pkn.next_click(prediction, target), pk.next_click(*tensors))
    same([pkn.distance_transform(prediction)], [pk.distance_transform(tensors[0])])
    points = POINTS.astype(np.dtype(np.float64).newbyteorder())
    maps = pk.click_maps(torch.from_numpy(POINTS), torch.from_numpy(LABELS), (4, 5))
    same([pkn.click_maps(points, LABELS.astype(swapped), (4, 5))], [maps])


def test_next_click_builds_no_array_of_depths():
    prediction, target = np.zeros((2, 1, 300, 400), bool)
    target[:, 50:250, 60:300] = True
    pkn.next_click(prediction, target)
    tracemalloc.start()
    pkn.next_click(prediction, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < prediction.nbytes


def test_click_too_far_for_float32_is_infinitely_far():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pkn.click_maps(np.array([[[1e300, 0.0]]]), LABELS, (4, 5), truncate=None)
    assert np.isposinf(found).all()


def test_text_is_refused():
    with pytest.raises(TypeError, match="mask"):
        pkn.distance_transform(np.array([["a"]]))


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
