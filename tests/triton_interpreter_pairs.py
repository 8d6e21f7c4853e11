"""The loss over all pairs, and labels of the worst scores, under Triton's interpreter:
test_triton_interpreter.py runs this file.

Shapes are small, but have several tiles of pixels on either side, and of channels.
"""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.similarity.pair_loss import pair_loss
from tests.pair_cases import check, inputs, literal, loss_of, value_and_gradients


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_matches_the_oracle_in_every_layout(dtype, layout):
    check(inputs(dtype, layout=layout), "triton")


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, torch.float32), (16, torch.float32), (70, torch.float32), (150, torch.float16)],
)
def test_channels_that_fit_a_tile_or_not(channels, dtype):
    check(inputs(dtype, shape=(1, channels, 12, 15)), "triton")


@pytest.mark.parametrize("valid", ["neither", "x only", "y only", "not the second image"])
def test_without_valid_pixels(valid):
    x, y, x_labels, y_labels = inputs(shape=(2, 5, 9, 11))
    if valid in ("neither", "y only"):
        x_labels.fill_(-1)
    if valid in ("neither", "x only"):
        y_labels.fill_(-1)
    if valid == "not the second image":
        x_labels[1], x[1] = -1, torch.nan
    found = value_and_gradients(x, y, x_labels, y_labels, loss_of("triton"))
    if valid == "not the second image":
        first = [t[:1].double() if t.is_floating_point() else t[:1] for t in (x, y)]
        expected = value_and_gradients(*first, x_labels[:1], y_labels[:1], literal)
        torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-6, atol=0)
        assert (found[1][1] == 0).all()
        assert (found[2][1] == 0).all()
    else:
        assert all((t == 0).all() for t in found)


def test_the_loss_alone_is_that_with_gradients():
    x, y, x_labels, y_labels = inputs(shape=(2, 5, 9, 11))
    one = torch.ones(())
    losses = [
        pair_loss(
            "triton",
            x,
            y,
            x_labels.flatten(1),
            y_labels.flatten(1),
            one,
            one,
            *[None] * 2,
            1e-5,
            g,
            None,
        )[0]
        for g in (True, False)
    ]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


def test_evaluation_and_running_statistics():
    case = inputs(shape=(2, 5, 9, 11))
    running = [torch.tensor([v]) for v in (0.3, 2.0)]
    expected = [r.double() for r in running]
    double = [t.double() if t.is_floating_point() else t for t in case]
    for training in (True, False):
        options = {"running_mean": running[0], "running_var": running[1], "training": training}
        found = loss_of("triton", **options)(*case, None, None)
        wanted = literal(*double, None, None, *expected, training)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)
    for a, b in zip(running, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_same_bits_on_every_run():
    case = inputs(shape=(2, 9, 12, 15))
    first, second = (value_and_gradients(*case, loss_of("triton")) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("reduce", ["max", "mean", "topk"])
def test_a_class_of_nan_loses_to_one_of_minus_infinity(reduce, classes):
    points = torch.tensor([[[torch.nan, -torch.inf, -torch.inf]]])
    k = {"k": 2} if reduce == "topk" else {}
    for last in (2, classes - 1):  # in another block of classes, too
        labels = torch.tensor([[0, last, last]])
        best, scores = pk.label_transfer(
            torch.ones(1, 1, 4), points, labels, classes, reduce=reduce, backend="triton", **k
        )
        assert scores[0, 0].isnan().all()
        assert (best == last).all()
