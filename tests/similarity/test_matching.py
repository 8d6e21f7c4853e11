"""Matching scores and label transfer: the formula, ties, absent classes, NaN and infinities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.similarity import reference
from pixelkernels.similarity.ops import METRICS, REDUCES
from tests.helpers import backends, needs_gpu, not_interpreted, sampled, supported_dtypes

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")
Array = NDArray[np.float64]


def inputs(
    dtype=torch.float32,
    device="cpu",
    layout="contiguous",
    shape=(2, 19, 9, 11),
    points=(5, 14),
    classes=4,
    seed=0,
):
    """Query, points, labels, classes: the last class absent, every fifth point ignored."""
    batch, channels = shape[:2]
    query = 0.4 * testing.features(*shape, seed=seed)
    reference = 0.4 * testing.features(batch, channels, *points, seed=seed + 1)
    labels = testing.random_labels(batch, *points, high=classes - 1, seed=seed + 2)
    labels.flatten()[::5] = -1
    query, reference = (testing.LAYOUTS[layout](x.to(device, dtype)) for x in (query, reference))
    return query, reference, labels.to(device), classes


def options(metric, transform, reduce, scale=0.3):
    k = 3 if reduce == "topk" else None
    chosen = {"metric": metric, "transform": transform, "reduce": reduce, "k": k}
    return {**chosen, "scale": scale, "shift": -0.2}


def similarity(q: Array, r: Array, metric: str) -> float:
    if metric == "dot":
        return float(q @ r)
    if metric == "cosine":
        return float(q @ r / (max(np.linalg.norm(q), 1e-12) * max(np.linalg.norm(r), 1e-12)))
    return float(((q - r) ** 2).sum())


def transformed(x: Array, transform: str) -> Array:
    if transform == "sigmoid":
        return 1 / (1 + np.exp(-x))
    return np.exp(x) if transform == "exp" else x


def scores(
    query: Array,
    points: Array,
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    metric: str,
    transform: str,
    reduce: str,
    scale: float,
    shift: float,
    k: int | None,
) -> tuple[Array, int]:
    """The scores [L] and the label of one query pixel [D] from points [K, D]."""
    smaller = metric == "sqeuclidean" and scale > 0
    s = np.array([similarity(query, r, metric) for r in points])
    v = transformed(scale * s + shift, transform)
    valid = (labels >= 0) & (labels < num_classes)
    if reduce == "softmax" and valid.any():
        e = np.where(valid, np.exp(v - v[valid].max()), 0)
        v = e / e.sum()
    found = np.full(num_classes, np.inf if smaller else -np.inf)
    for c in set(labels[valid].tolist()):
        own = v[labels == c]
        if reduce == "topk":
            best = np.sort(own)[:k] if smaller else np.sort(own)[::-1][:k]
            found[c] = best.mean()
        else:
            by = {"sum": np.sum, "softmax": np.sum, "mean": np.mean, "max": np.max, "min": np.min}
            found[c] = by[reduce](own)
    if not valid.any():
        return found, -1
    return found, int(found.argmin() if smaller else found.argmax())


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [0.3, -0.2])
def test_scores_and_labels_are_the_formula(scale, metric, reduce, backend):
    query, points, labels, classes = inputs(torch.float64, shape=(2, 7, 3, 5))
    q, p = (x.flatten(2).mT.numpy() for x in (query, points))
    index = labels.flatten(1).numpy()
    for transform in ("identity", "sigmoid", "exp"):
        chosen = options(metric, transform, reduce, scale)
        found = pk.label_transfer(query, points, labels, classes, backend=backend, **chosen)
        for b in range(2):
            expected = [scores(one, p[b], index[b], classes, **chosen) for one in q[b]]
            values, best = (torch.tensor(np.array(x)) for x in zip(*expected, strict=True))
            torch.testing.assert_close(
                found.scores[b].flatten(1), values.mT, rtol=1e-11, atol=1e-11
            )
            assert torch.equal(found.labels[b].flatten(), best)
        alone = pk.matching_scores(query, points, labels, classes, backend=backend, **chosen)
        assert torch.equal(alone, found.scores)


# few points, and channels in multiples of 8: whole blocks of pixels are read in place
@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ((2, 21, 13, 18), (5, 7)),
        ((2, 24, 15, 20), (1, 6)),
        ((2, 264, 12, 16), (2, 2)),
        ((1, 24, 96, 128), (1, 6)),
        ((1, 528, 66, 97), (2, 3)),
        ((2, 43, 13, 18), (9, 25)),
    ],
)
def test_every_layout_gives_the_same_bits(shape, points, metric, backend, device):
    chosen = options(metric, "sigmoid", "mean")
    for dtype in (torch.float32, torch.float64):
        if dtype not in supported_dtypes(backend):
            continue
        plain = inputs(dtype, device, shape=shape, points=points)
        expected = pk.matching_scores(*plain, backend=backend, **chosen)
        for layout in testing.LAYOUTS:
            moved = inputs(dtype, device, layout, shape, points)
            assert torch.equal(pk.matching_scores(*moved, backend=backend, **chosen), expected)
            query, reference, labels, classes = moved
            flat = (query.flatten(2), reference.flatten(2), labels.flatten(1), classes)
            found = pk.matching_scores(*flat, backend=backend, **chosen)
            assert torch.equal(found, expected.flatten(2))


# products whose factors bfloat16 cannot hold, or that overflow or underflow float32
@not_interpreted
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("size", [1e-30, 1e-17, 1e-11, 1e-8, 1e12, 1e19])
def test_features_of_any_size(size, backend, device):
    query, reference, labels, classes = inputs(device=device, shape=(1, 40, 9, 22), points=(9, 15))
    chosen = options("dot", "sigmoid", "mean")

    def run(backend, dtype):
        leaves = [x.detach().requires_grad_() for x in (query * size, reference / size)]
        a, b = (x.to(dtype) for x in leaves)
        found = pk.matching_scores(a, b, labels, classes, backend=backend, **chosen)
        grads = torch.autograd.grad(found[:, : classes - 1].square().sum(), leaves)
        return found[:, : classes - 1].double(), grads[0].double() * size, grads[1].double() / size

    for actual, expected in zip(
        run(backend, torch.float32), run("eager", torch.float64), strict=True
    ):
        assert (actual - expected).abs().max() <= 1e-5 * max(expected.abs().max(), 1)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite_reaches_only_its_own_scores(value, backend, device):
    query, reference, labels, classes = inputs(device=device, shape=(1, 40, 9, 22), points=(9, 15))
    query[0, 5, 3, 4] = value
    reference[0, 5] = 1
    chosen = options("dot", "identity", "max")
    found, expected = (
        pk.matching_scores(query, reference, labels, classes, backend=name, **chosen)
        for name in (backend, "eager")
    )
    assert not expected[0, : classes - 1, 3, 4].isfinite().any()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@sampled("eager", "cpu", "triton", when=lambda op, case: op.name == "matching_scores")
def test_nan_in_a_query_pixel_reaches_only_its_own_scores(sample, backend, device):
    call = sample.call(device=device)
    query = call.arguments["query"].clone()
    query[0, ..., -1] = torch.nan
    clean = torch.ones_like(query[:, 0], dtype=torch.bool)
    clean[0, ..., -1] = False
    found = call.replaced(query=query).outputs(backend)["value"].movedim(1, -1)
    expected = call.outputs(backend)["value"].movedim(1, -1)
    assert torch.equal(found[clean], expected[clean])


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reduce", REDUCES)
def test_ties_go_to_the_smaller_label(reduce, backend, device):
    # small whole numbers, and two points per class: nothing depends on where a point stands
    query, reference, *_ = inputs(device=device, shape=(1, 8, 4, 6), points=(1, 2))
    query, reference = (4 * query).round(), (4 * reference).round().repeat(1, 1, 1, 3)
    for order in ([2, 1, 3], [1, 3, 2], [3, 2, 1]):
        labels = torch.tensor(order, device=device).repeat_interleave(2).view(1, 1, 6)
        found = pk.label_transfer(
            query, reference, labels, 5, backend=backend, **options("dot", "identity", reduce)
        )
        assert (found.labels == 1).all()


@sampled("eager", "cpu", "triton", when=lambda op, case: op.name == "label_transfer")
def test_absent_classes_are_never_chosen(sample, backend, device):
    call = sample.call(device=device)
    labels = torch.where(call.arguments["labels"] == 1, 3, -1)
    labels[1] = -7
    call = call.replaced(labels=labels, num_classes=5)
    _, worst = sample.op.nothing if call.case.nothing is None else call.case.nothing
    found = call.outputs(backend)
    assert (found["labels"][0] == 3).all()
    assert (found["labels"][1] == -1).all()
    assert (found["scores"][0, [0, 1, 2, 4]] == worst).all()
    assert (found["scores"][1] == worst).all()


# a NaN of all ones rounds to -0 in bfloat16, whose bits are the upper half
@pytest.mark.parametrize("bits", [0x7F800000, 0x7FC00000, 0x7FFFFFFF, -1])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_not_finite_give_what_eager_gives(side, metric, bits):
    # as many points and channels as matrix tiles ask for
    given = inputs(shape=(1, 48, 9, 11), points=(12, 14))
    given[side].view(torch.int32)[0, ::7, ::3, ::4] = bits
    for reduce in REDUCES:
        chosen = {"metric": metric, "reduce": reduce} | ({"k": 3} if reduce == "topk" else {})
        found, expected = (
            pk.matching_scores(*given, **chosen, backend=backend) for backend in ("cpu", "eager")
        )
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("backend", ALL)
def test_infinite_scores_do_not_hide_a_class(backend, device):
    query, reference, labels, classes = inputs(device=device)
    found = pk.label_transfer(
        query, reference, labels, classes, shift=-torch.inf, reduce="max", backend=backend
    )
    present = labels[labels >= 0].unique()
    assert torch.isin(found.labels, present).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("reduce", ["max", "mean", "topk"])
def test_class_of_nan_loses_to_one_of_minus_infinity(reduce, classes, backend, device):
    points = torch.tensor([[[torch.nan, -torch.inf, -torch.inf]]], device=device)
    k = {"k": 2} if reduce == "topk" else {}
    for last in (2, classes - 1):  # in another block of classes, too
        labels = torch.tensor([[0, last, last]], device=device)
        best, scores = pk.label_transfer(
            *(torch.ones(1, 1, 4, device=device), points, labels, classes),
            reduce=reduce,
            backend=backend,
            **k,
        )
        assert scores[0, 0].isnan().all()
        assert (best == last).all()


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(
    "order", [[1, 0, 2, 1, 0], [1, 2, 0, 1, 2, 0], [2, 1, 0, 2, 1, 0], [1, 1, 0, 0]]
)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_of_equal_points_the_first_are_among_the_best(k, order, backend, device):
    values = 5.0 - torch.tensor(order)
    query = torch.ones(1, 1, 1, 1, device=device, requires_grad=True)
    points = values.to(device).view(1, 1, -1).requires_grad_()
    labels = torch.zeros(1, len(order), dtype=torch.int64, device=device)
    score = pk.matching_scores(query, points, labels, 1, reduce="topk", k=k, backend=backend)
    by_query, by_points = torch.autograd.grad(score.sum(), (query, points))
    best = values.argsort(descending=True, stable=True)[:k]
    expected = torch.zeros(len(order)).scatter(0, best, 1 / k)
    torch.testing.assert_close(by_points.flatten().cpu(), expected)
    torch.testing.assert_close(by_query.flatten().cpu(), values[best].mean()[None])


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reduce", ["mean", "max", "softmax"])
@pytest.mark.parametrize("metric", METRICS)
def test_labels_of_equal_scores_and_of_nan(metric, reduce, backend, device):
    query, points, labels, _ = inputs(device=device, shape=(2, 21, 3, 5), points=(6, 13))
    # classes 0 and 2 have the same points, and class 1 is NaN in the second image
    points[:, :, 3:] = points[:, :, :3]
    labels[:, :3], labels[:, 3:] = 2, 0
    points[1, :, 0, 0], labels[1, 0, 0], labels[1, 3, 0] = torch.nan, 1, -1
    query[:, :, 2] = torch.nan
    scale = -0.1 if metric == "cosine" else 0.1
    chosen = {"metric": metric, "scale": scale, "reduce": reduce, "transform": "sigmoid"}
    found, scores = pk.label_transfer(query, points, labels, 3, backend=backend, **chosen)
    smaller = reference.smaller_is_better(metric, torch.tensor(scale))
    classes = torch.arange(3, device=device)[:, None]
    present = (labels.flatten(1)[:, None] == classes).any(2)
    assert torch.equal(found, reference.best_labels(scores, present, smaller))
    expected = pk.matching_scores(query, points, labels, 3, backend="eager", **chosen)
    torch.testing.assert_close(scores, expected, equal_nan=True)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reduce", REDUCES)
def test_zero_vectors_have_a_cosine(reduce, backend, device):
    query, reference, labels, classes = inputs(device=device)
    query[:, :, 1] = 0
    reference[:, :, :, 2] = 0
    leaves = query.requires_grad_(), reference.requires_grad_()
    found = pk.label_transfer(
        *leaves, labels, classes, backend=backend, **options("cosine", "identity", reduce)
    )
    oracle = pk.label_transfer(
        *(x.detach().double() for x in leaves),
        *(labels, classes),
        backend="eager",
        **options("cosine", "identity", reduce),
    )
    torch.testing.assert_close(found.scores.double(), oracle.scores, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(found.scores[:, :2].sum(), leaves)
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("reduce", ["sum", "mean", "softmax"])
def test_one_class(reduce, backend, device):
    query, points, labels, _ = inputs(device=device, shape=(1, 21, 3, 5))
    labels = labels.clamp(max=0)
    chosen = {"scale": 0.2, "reduce": reduce}
    found = pk.matching_scores(query, points, labels, 1, backend=backend, **chosen)
    oracle = pk.matching_scores(
        query.double(), points.double(), labels, 1, backend="eager", **chosen
    )
    torch.testing.assert_close(found.double(), oracle, rtol=1e-5, atol=1e-5)


@needs_gpu
def test_tf32_is_used_where_it_is_allowed():
    query, reference, labels, classes = inputs(device="cuda", shape=(1, 128, 40, 50))
    before = torch.get_float32_matmul_precision()
    found = {}
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            found[precision] = pk.matching_scores(
                query, reference, labels, classes, reduce="max", backend="triton"
            )[:, : classes - 1]
    finally:
        torch.set_float32_matmul_precision(before)
    oracle = pk.matching_scores(
        query.double(), reference.double(), labels, classes, reduce="max", backend="eager"
    )[:, : classes - 1]
    assert (found["highest"] - oracle).abs().max() <= 1e-5 * oracle.abs().max()
    assert (found["high"] - oracle).abs().max() <= 1e-2 * oracle.abs().max()


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("metric", ["dot", "sqeuclidean"])
def test_k_past_the_last_point_takes_all_points(backend, metric):
    query, points, labels, classes = inputs()

    def call(k):
        leaf = query.clone().requires_grad_()
        options = {"metric": metric, "reduce": "topk", "k": k, "backend": backend}
        scores = pk.matching_scores(leaf, points, labels, classes, **options)
        return scores.detach(), *torch.autograd.grad(scores[:, :3].sum(), leaf)

    for one, other in zip(call(70), call(2**62), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reduce", ["max", "min", "topk"])
@pytest.mark.parametrize("position", [0, 7, 100, 199])
def test_nan_point_makes_the_scores_of_its_class_nan(backend, reduce, position, device):
    points = testing.features(1, 3, 200, 1, device=device)[..., 0]
    points[0, 1, position] = torch.nan
    labels = (torch.arange(200) % 2).to(device)[None]
    query = testing.features(1, 3, 4, 5, device=device)
    k = {"k": 3} if reduce == "topk" else {}
    best, scores = pk.label_transfer(query, points, labels, 3, reduce=reduce, backend=backend, **k)
    assert scores[0, position % 2].isnan().all()
    assert scores[0, 1 - position % 2].isfinite().all()
    assert (best == 1 - position % 2).all()
