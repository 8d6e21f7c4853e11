"""Similarity under Triton's interpreter, on CPU tensors: test_triton_interpreter.py runs this file.

Every program instance costs milliseconds, so shapes are small; they still have several tiles of
query pixels, of points per class, and of channels.
"""

from __future__ import annotations

import os
from itertools import product

import pytest
import torch

import pixelkernels as pk
from pixelkernels import similarity, testing
from pixelkernels.similarity import ops, reference
from pixelkernels.similarity import triton as kernels
from pixelkernels.similarity.triton import topk

CLASSES = 3
CHANNELS = 21
REDUCES = (*((reduce, None) for reduce in ops.REDUCES if reduce != "topk"), ("topk", 5))
CASES = tuple(product(ops.METRICS, ops.TRANSFORMS, REDUCES))


def inputs(channels=CHANNELS, dtype=torch.float32, layout="contiguous", size=(3, 5), batch=1):
    """Ignored points are NaN; class 1 of the last image is absent; class 0 has several tiles."""
    query = testing.features(batch, channels, *size, dtype=dtype, layout=layout, seed=1)
    points = testing.features(batch, channels, 6, 13, dtype=dtype, layout=layout, seed=2)
    labels = testing.random_labels(batch, 6, 13, low=-1, high=CLASSES + 1)
    labels[:, :, :6] = 0
    labels[-1][labels[-1] == 1] = 2
    points.masked_fill_(((labels < 0) | (labels >= CLASSES))[:, None], torch.nan)
    return query, points, labels


def value_and_gradients(query, points, labels, options, scale, shift, backend):
    query, points = query.detach().requires_grad_(), points.detach().requires_grad_()
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    scalars = [torch.tensor(x, dtype=wide, requires_grad=True) for x in (scale, shift)]
    scores = similarity.matching_scores(
        *(query, points, labels, CLASSES),
        scale=scalars[0],
        shift=scalars[1],
        backend=backend,
        **options,
    )
    cotangent = torch.linspace(-1, 1.5, scores.numel(), dtype=wide).view(scores.shape)
    return [scores.detach(), *torch.autograd.grad(scores, (query, points, *scalars), cotangent)]


def check(query, points, labels, scale=0.1, shift=-0.2, **options):
    arguments = (labels, options, scale, shift)
    actual = value_and_gradients(query, points, *arguments, "triton")
    plain = value_and_gradients(query, points, *arguments, "eager")
    oracle = value_and_gradients(query.double(), points.double(), *arguments, "eager")
    finite = oracle[0].isfinite()
    assert torch.equal(torch.where(finite, 0, actual[0]), torch.where(finite, 0, oracle[0]).float())
    # two sums over all pairs, whose terms may cancel: as exact as their largest partial sums
    terms = [0, 0, 0, *(x.abs().max() * len(points) * query[0, 0].numel() for x in actual[:1] * 2)]
    names = ("scores", "query", "reference", "scale", "shift")
    for a, o, p, name, term in zip(actual, oracle, plain, names, terms, strict=True):
        assert a.dtype == p.dtype
        inside = finite if name == "scores" else torch.ones_like(o, dtype=torch.bool)
        a, o, p = (x[inside] for x in (a, o, p))
        # NumPy adds a tile's products one after the other: twice the budget here
        testing.assert_within_budget((a.double() + o) / 2, o, p, name, scale=float(term))


def name_of(case):
    return "-".join(map(str, case)) if isinstance(case, tuple) else str(case)


def test_runs_under_the_interpreter():
    assert os.environ.get("TRITON_INTERPRET") == "1"
    assert "triton" in pk.available_backends()


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_matches_the_oracle(case):
    metric, transform, (reduce, k) = case
    turn = CASES.index(case)
    layout = list(testing.LAYOUTS)[turn % len(testing.LAYOUTS)]
    # squared distances grow with the channels, and exp is to stay in range
    scale = (0.1, -0.1)[turn // 3 % 2] if metric != "sqeuclidean" else (0.03, -0.03)[turn % 2]
    options = {"metric": metric, "transform": transform, "reduce": reduce, "k": k}
    check(*inputs(layout=layout), scale=scale, **options)


@pytest.mark.parametrize("metric", ops.METRICS)
@pytest.mark.parametrize("reduce", ["mean", "max", "softmax"])
def test_float16_matches_the_oracle(metric, reduce):
    query, points, labels = inputs(dtype=torch.float16)
    transform = "identity" if reduce == "mean" else "sigmoid"
    check(query, points, labels, metric=metric, transform=transform, reduce=reduce)


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, torch.float32), (16, torch.float32), (16, torch.float16), (150, torch.float16)],
)
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_channels_that_fit_a_tile_or_not(channels, dtype, reduce):
    check(*inputs(channels, dtype), metric="sqeuclidean", reduce=reduce)


@pytest.mark.parametrize("metric", ops.METRICS)
def test_more_best_points_than_the_registers_hold(metric, monkeypatch):
    monkeypatch.setattr(topk, "MOST_KEPT", 2)
    check(*inputs(), scale=-0.05, metric=metric, reduce="topk", k=20)


@pytest.mark.parametrize("metric", ops.METRICS)
@pytest.mark.parametrize("transform", ["identity", "sigmoid"])
def test_many_query_pixels_are_split(metric, transform):
    query, points, labels = inputs(size=(9, 30))
    assert query[0, 0].numel() > 4 * 64
    check(query, points, labels, metric=metric, transform=transform, reduce="mean")


@pytest.mark.parametrize("options", [{"reduce": "mean"}, {"reduce": "min", "transform": "exp"}])
def test_several_images_and_blocks_of_pixels(options):
    check(*inputs(size=(6, 13), batch=2), metric="cosine", **options)


@pytest.mark.parametrize("reduce", ["sum", "mean", "softmax"])
def test_one_class(reduce):
    query, points, labels = inputs()
    labels = torch.where(labels.clamp(0, CLASSES - 1) == labels, 0, -1)
    scores, oracle = (
        similarity.matching_scores(q, p, labels, 1, scale=0.2, reduce=reduce, backend=backend)
        for q, p, backend in (
            (query, points, "triton"),
            (query.double(), points.double(), "eager"),
        )
    )
    torch.testing.assert_close(scores.double(), oracle, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.25, 0.0, -0.25])
@pytest.mark.parametrize("metric", ["dot", "sqeuclidean"])
@pytest.mark.parametrize("reduce", ["max", "min", "topk"])
def test_of_equal_points_the_first_is_taken(metric, reduce, scale, monkeypatch):
    """Small integers keep similarities exact."""
    # both ways of finding the best
    monkeypatch.setattr(topk, "MOST_KEPT", 64 if scale else 0)
    generator = torch.Generator().manual_seed(0)
    query, points = (
        torch.randint(-1, 2, (1, 2, 1, n), generator=generator).float() for n in (9, 90)
    )
    order = torch.randperm(90, generator=generator)[None]
    offsets = torch.tensor([[0, 3, 3, 80]])
    k = 7 if reduce == "topk" else 0
    codes = (ops.METRICS.index(metric), 0, ops.REDUCES.index(reduce), k)
    a, b = torch.tensor(scale), torch.tensor(0.0)
    scores, labels, edge, place = kernels.matching_scores(
        query, points, order, offsets, None, a, b, *codes
    )
    s = reference.similarity(query.flatten(2), points.flatten(2)[..., order[0]], metric)[0]
    smaller = bool(reference.smaller_is_better(metric, a))
    for c in range(3):
        begin, end = offsets[0, c : c + 2].tolist()
        if begin == end:
            assert (place[0, c] == -1).all()
            assert (scores[0, c] == (torch.inf if smaller else -torch.inf)).all()
            continue
        fall = (scale < 0) != (reduce == "min")
        if reduce == "topk":
            fall = scale < 0 or metric == "sqeuclidean"
        best = s[begin:end].sort(dim=0, descending=not fall, stable=True)
        last = min(max(k, 1), end - begin) - 1
        assert torch.equal(place[0, c, 0], (begin + best.indices[last]).int())
        if reduce == "topk":
            assert torch.equal(edge[0, c, 0], best.values[last])
        torch.testing.assert_close(scores[0, c, 0], scale * best.values[: last + 1].mean(0))
    present = (offsets.diff() > 0).view(1, 3)
    assert torch.equal(labels, reference.best_labels(scores, present, torch.tensor(smaller)))


@pytest.mark.parametrize("reduce", ["mean", "max", "softmax"])
@pytest.mark.parametrize("metric", ops.METRICS)
def test_labels_of_equal_scores_and_of_nan(metric, reduce):
    query, points, labels = inputs(batch=2)
    # classes 0 and 2 are the same, and 1 is NaN in the second image
    points = points.nan_to_num(0.25)
    points[:, :, 3:] = points[:, :, :3]
    labels[:, :3], labels[:, 3:] = 2, 0
    points[1, :, 0, 0], labels[1, 0, 0], labels[1, 3, 0] = torch.nan, 1, -1
    query[:, :, 2] = torch.nan
    scale = -0.1 if metric == "cosine" else 0.1
    options = {"metric": metric, "scale": scale, "reduce": reduce, "transform": "sigmoid"}
    found, scores = similarity.label_transfer(
        query, points, labels, CLASSES, backend="triton", **options
    )
    smaller = reference.smaller_is_better(metric, torch.tensor(scale))
    present = (labels.flatten(1)[:, None] == torch.arange(CLASSES)[:, None]).any(2)
    assert torch.equal(found, reference.best_labels(scores, present, smaller))
    expected = similarity.matching_scores(
        query, points, labels, CLASSES, backend="eager", **options
    )
    torch.testing.assert_close(scores, expected, equal_nan=True)


@pytest.mark.parametrize("case", CASES[:: 2 * len(ops.TRANSFORMS) + 1], ids=name_of)
@pytest.mark.parametrize("empty", ["all ignored", "no points", "no pixels", "no images"])
def test_nothing_to_match(case, empty):
    metric, transform, (reduce, k) = case
    query, points, labels = inputs()
    if empty == "all ignored":
        labels = torch.full_like(labels, -1)
        points = torch.full_like(points, torch.nan)
    elif empty == "no points":
        points, labels = points[:, :, :0], labels[:, :0]
    elif empty == "no pixels":
        query = query[..., :0]
    else:
        query, points, labels = query[:0], points[:0], labels[:0]
    options = {"metric": metric, "transform": transform, "reduce": reduce, "k": k}
    scores, *gradients = value_and_gradients(query, points, labels, options, 0.1, 0.2, "triton")
    assert scores.shape == (len(query), CLASSES, *query.shape[2:])
    assert all((g == 0).all() for g in gradients)
    if empty in ("all ignored", "no points"):
        assert (scores == (torch.inf if metric == "sqeuclidean" else -torch.inf)).all()
        found = similarity.label_transfer(
            query, points, labels, CLASSES, scale=0.1, backend="triton", **options
        )
        assert (found.labels == -1).all()


@pytest.mark.parametrize("transform", ["identity", "sigmoid"])
def test_zero_vectors_under_the_cosine(transform):
    query, points, labels = inputs()
    query[:, :, 1], points[:, :, 0, :3], labels[:, 0, :3] = 0, 0, 0
    query[:, :, 2] = 1e-14 * query[:, :, 0]
    arguments = (labels, {"metric": "cosine", "transform": transform, "reduce": "mean"}, 1, 0)
    actual = value_and_gradients(query, points, *arguments, "triton")
    oracle = value_and_gradients(query.double(), points.double(), *arguments, "eager")
    for a, o in zip(actual, oracle, strict=True):
        a, o = a[o.isfinite()], o[o.isfinite()]
        torch.testing.assert_close(a.double(), o, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES[1::17], ids=name_of)
def test_same_bits_on_every_run(case):
    metric, transform, (reduce, k) = case
    options = {"metric": metric, "transform": transform, "reduce": reduce, "k": k}
    runs = [value_and_gradients(*inputs(), options, 0.1, 0.2, "triton") for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_labels_of_every_dtype_and_points_without_a_grid():
    query, points, labels = inputs()
    expected = pk.similarity.matching_scores(query, points, labels, CLASSES, backend="triton")
    flat = (query.flatten(2), points.flatten(2), labels.flatten(1).to(torch.int8))
    actual = pk.similarity.matching_scores(*flat, CLASSES, backend="triton")
    assert torch.equal(actual, expected.flatten(2))


@pytest.mark.keeps_memory
def test_offsets_past_two_to_the_31():
    # pages of the allocation that no pixel lies in are never touched
    stride = 2**31
    storage = torch.empty(stride + 4096, dtype=torch.float16)
    far = storage.as_strided((1, 2, 8, 16), (stride, stride, 16, 1))
    far.copy_(testing.features(1, 2, 8, 16, dtype=torch.float16))
    labels = testing.random_labels(1, 8, 16, high=3)
    for transform in ("identity", "sigmoid"):
        options = {"metric": "cosine", "transform": transform, "reduce": "mean"}
        wide, narrow = (
            value_and_gradients(x, x, labels, options, 1.0, 0.0, "triton")
            for x in (far, far.contiguous())
        )
        assert all(torch.equal(a, b) for a, b in zip(wide, narrow, strict=True))
