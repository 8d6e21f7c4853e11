"""What runs under Triton's interpreter, on CPU tensors: see test_triton_interpreter.py."""

from __future__ import annotations

import os
import pytest
import torch
from regions_cases import MINED, SMOOTH, WEIGHTED

import pixelkernels as pk
from pixelkernels import testing

assert os.environ.get("TRITON_INTERPRET") == "1", "run by test_triton_interpreter.py alone"

# regions, channels, height, width, and how pixels get their labels
SHAPES = (
    (2, 16, 24, 23, "runs"),
    (20, 3, 13, 21, "random"),
    (300, 21, 10, 33, "random"),
    (5, 70, 11, 19, "runs"),
)
LAYOUTS = tuple(testing.LAYOUTS)


def inputs(shape, dtype=torch.float32, layout="contiguous", seed=0):
    regions, channels, height, width, kind = shape
    f = testing.features(2, channels, height, width, dtype=dtype, layout=layout, seed=seed)
    labels = testing.coherent_labels(2, height, width, regions, seed)
    if kind == "random":
        labels = testing.random_labels(2, height, width, low=-1, high=regions + 1, seed=seed)
    labels[0, 0, :5] = -1
    return f, labels, regions, testing.weights(2, height, width)


def value_and_gradients(case, f, labels, regions, w, backend):
    f = f.detach().requires_grad_()
    leaves = [f]
    if case in WEIGHTED:
        w = w.detach().requires_grad_()
        leaves.append(w)
    out = case(f, labels, regions, w, backend)
    cotangent = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent.view(out.shape))]


def check(case, f, labels, regions, w):
    actual = value_and_gradients(case, f, labels, regions, w, "triton")
    plain = value_and_gradients(case, f, labels, regions, w, "eager")
    oracle = value_and_gradients(case, f.double(), labels, regions, w.double(), "eager")
    for a, o, p in zip(actual, oracle, plain, strict=True):
        assert a.dtype == p.dtype
        testing.assert_within_budget(a, o, p, case.__name__)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_matches_the_oracle(case, shape):
    # the layouts take turns, so that each case meets all of them
    layout = LAYOUTS[(SHAPES.index(shape) + SMOOTH.index(case)) % len(LAYOUTS)]
    check(case, *inputs(shape, layout=layout))
