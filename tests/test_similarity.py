"""Matching scores and label transfer on every backend against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.similarity.reference import similarity
from tests.helpers import backends
from tests.similarity_cases import COMBINATIONS, METRICS, REDUCES, drawn, inputs, options, scores

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def supports(backend, dtype):
    return not (backend == "triton" and dtype == torch.float64)


def check_labels(result, oracle, tolerance):
    """The same labels, but where the oracle's two best scores are as near as rounding."""
    differs = result.labels != oracle.labels
    assert torch.equal(result.labels < 0, oracle.labels < 0)
    if differs.any():
        scores = oracle.scores.movedim(1, -1)[differs]
        pair = torch.stack([result.labels[differs], oracle.labels[differs]], -1)
        chosen = scores.gather(-1, pair.to(scores.device))
        assert ((chosen[:, 0] - chosen[:, 1]).abs() <= tolerance).all()


def check_scores(actual, oracle, plain=None):
    """float32 within 1e-5 of the largest value, or of twice the error of `plain`."""
    finite = torch.isfinite(oracle.scores)
    assert actual.scores.shape == oracle.scores.shape
    assert torch.equal(actual.scores.double()[~finite], oracle.scores.double()[~finite])
    if not finite.any():
        return check_labels(actual, oracle, 0)
    expected = oracle.scores[finite].double()
    relative = 1e-11 if actual.scores.dtype == torch.float64 else 1e-5
    budget = relative * max(expected.abs().max().item(), 1)
    if plain is not None:
        budget = max(budget, 2 * (plain.scores[finite] - expected).abs().max().item())
    assert (actual.scores[finite] - expected).abs().max() <= budget
    return check_labels(actual, oracle, 2 * budget)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("scale", [0.3, -0.2])
def test_is_the_formula(combination, scale, backend, device):
    query, reference, labels, classes = inputs(
        torch.float64 if device == "cpu" else torch.float32, device, shape=(2, 7, 3, 5)
    )
    chosen = options(*combination, scale=scale)
    found = pk.label_transfer(query, reference, labels, classes, backend=backend, **chosen)
    assert found.labels.dtype == torch.int64
    q, r = (x.flatten(2).mT.double().cpu().numpy() for x in (query, reference))
    index = labels.flatten(1).cpu().numpy()
    expected = [[scores(one, r[b], index[b], classes, **chosen) for one in q[b]] for b in range(2)]
    values = torch.tensor(np.array([[v for v, _ in image] for image in expected]))
    best = torch.tensor([[label for _, label in image] for image in expected])
    shape = (2, classes, 3, 5)
    oracle = pk.TransferredLabels(best.view(2, 3, 5), values.mT.reshape(shape))
    check_scores(pk.TransferredLabels(*(x.cpu() for x in found)), oracle)
    alone = pk.matching_scores(query, reference, labels, classes, backend=backend, **chosen)
    assert torch.equal(alone, found.scores)


@given(case=drawn())
@settings(max_examples=600, deadline=None)
def test_drawn_cases_on_the_cpu(case):
    (query, reference, labels, classes), chosen = case
    oracle = pk.label_transfer(query, reference, labels, classes, backend="eager", **chosen)
    for dtype in (torch.float64, torch.float32):
        case = query.to(dtype), reference.to(dtype), labels, classes
        found = pk.label_transfer(*case, backend="cpu", **chosen)
        # the exponential of a large number shows how it was rounded
        plain = pk.label_transfer(*case, backend="eager", **chosen)
        check_scores(found, oracle, plain)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype, combination, backend, device):
    if not supports(backend, dtype):
        with pytest.raises(pk.BackendUnavailable, match="float64"):
            pk.matching_scores(*inputs(dtype, device), backend=backend)
        return
    shape, points = (2, 40, 12, 17), (7, 20)
    query, reference, labels, classes = inputs(dtype, device, shape=shape, points=points)
    chosen = options(*combination)
    found = pk.label_transfer(query, reference, labels, classes, backend=backend, **chosen)
    assert found.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    oracle = pk.label_transfer(
        query.double(), reference.double(), labels, classes, backend="eager", **chosen
    )
    plain = pk.label_transfer(query, reference, labels, classes, backend="eager", **chosen)
    check_scores(found, oracle, plain)


# few points and channels in eights: whole blocks of 96 pixels are read where they lie, several
# together in large images
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", testing.LAYOUTS)
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
def test_every_layout_gives_the_same_bits(shape, points, metric, layout, backend, device):
    chosen = options(metric, "sigmoid", "mean")
    for dtype in (torch.float32, torch.float64):
        if not supports(backend, dtype):
            continue
        plain = inputs(dtype, device, shape=shape, points=points)
        moved = inputs(dtype, device, layout, shape, points)
        expected = pk.matching_scores(*plain, backend=backend, **chosen)
        assert torch.equal(pk.matching_scores(*moved, backend=backend, **chosen), expected)
        query, reference, labels, classes = moved
        flat = (query.flatten(2), reference.flatten(2), labels.flatten(1), classes)
        found = pk.matching_scores(*flat, backend=backend, **chosen)
        assert torch.equal(found, expected.flatten(2))


SHAPES = {
    "one of everything": ((1, 1, 1, 1), (1, 1), 1),
    "one channel": ((2, 1, 5, 9), (3, 7), 3),
    "slabs of channels": ((1, 515, 4, 30), (6, 23), 3),
    "several chunks of points": ((1, 6, 3, 50), (21, 53), 3),
    "many classes": ((1, 9, 3, 50), (30, 30), 300),
    "a row of blocks": ((3, 5, 1, 1000), (1, 7), 4),
}


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_size(name, reduce, backend, device):
    shape, points, classes = SHAPES[name]
    case = inputs(device=device, shape=shape, points=points, classes=max(classes, 2))
    chosen = options("dot", "sigmoid" if reduce == "mean" else "identity", reduce, scale=0.1)
    found = pk.label_transfer(*case, backend=backend, **chosen)
    query, reference, labels, classes = case
    oracle = pk.label_transfer(
        query.double(), reference.double(), labels, classes, backend="eager", **chosen
    )
    check_scores(found, oracle)


# products whose factors have no short form, or no product that float32 has
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
def test_what_is_not_finite_stays_where_it_is(value, backend, device):
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


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)], ids=str)
@pytest.mark.parametrize("points", [0, 6])
def test_empty_inputs(points, shape, backend, device):
    query = torch.zeros(shape, device=device, requires_grad=True)
    reference = torch.zeros(shape[0], shape[1], points, device=device, requires_grad=True)
    labels = torch.zeros(shape[0], points, dtype=torch.int64, device=device)
    for combination in (("dot", "identity", "sum"), ("cosine", "sigmoid", "max")):
        found = pk.label_transfer(
            query, reference, labels, 2, backend=backend, **options(*combination)
        )
        assert found.scores.shape == (shape[0], 2, *shape[2:])
        assert (found.labels == (0 if points else -1)).all()
        gradients = torch.autograd.grad(found.scores[:, :1].sum(), (query, reference))
        assert all(not g.any() for g in gradients)


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


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_absent_classes_are_never_chosen(combination, backend, device):
    query, reference, labels, _ = inputs(device=device)
    labels = torch.where(labels == 1, 3, -1)
    labels[1] = -7
    found = pk.label_transfer(query, reference, labels, 5, backend=backend, **options(*combination))
    assert (found.labels[0] == 3).all()
    assert (found.labels[1] == -1).all()
    worst = torch.inf if combination[0] == "sqeuclidean" else -torch.inf
    assert (found.scores[0, [0, 1, 2, 4]] == worst).all()
    assert (found.scores[1] == worst).all()


@pytest.mark.parametrize("backend", ALL)
def test_infinite_scores_do_not_hide_a_class(backend, device):
    query, reference, labels, classes = inputs(device=device)
    found = pk.label_transfer(
        query, reference, labels, classes, shift=-torch.inf, reduce="max", backend=backend
    )
    present = labels[labels >= 0].unique()
    assert torch.isin(found.labels, present).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_what_is_ignored_may_be_nan(combination, backend, device):
    query, reference, labels, classes = inputs(device=device)
    spoiled = torch.where((labels < 0)[:, None], torch.nan, reference).requires_grad_()
    query.requires_grad_()
    query.data[0, :, 2, 3] = torch.nan
    chosen = options(*combination)
    found = pk.matching_scores(query, spoiled, labels, classes, backend=backend, **chosen)
    clean = torch.ones(found.shape[2:], dtype=torch.bool, device=device)
    clean[2, 3] = False
    reaches = torch.isnan(found[0]).any(0)
    assert not (reaches & clean).any()
    assert not torch.isnan(found[1]).any()
    finite = torch.isfinite(found)
    finite[0, :, 2, 3] = False
    loss = torch.where(finite, found, 0)[1].sum()
    _, grad = torch.autograd.grad(loss, (query, spoiled))
    assert not torch.isnan(grad[1]).any()
    assert not grad.movedim(1, -1)[labels < 0].any()


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
    check_scores(found, oracle)
    gradients = torch.autograd.grad(found.scores[:, :2].sum(), leaves)
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.uint16, torch.int32])
@pytest.mark.parametrize("backend", ALL)
def test_labels_of_any_dtype(dtype, backend, device):
    query, reference, labels, _ = inputs(device=device)
    labels = labels.clamp(min=0).to(dtype)
    expected = pk.matching_scores(query, reference, labels.long(), 2, backend=backend)
    assert torch.equal(pk.matching_scores(query, reference, labels, 2, backend=backend), expected)


# ---- gradients ----


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("scale", [0.3, -0.2])
def test_gradcheck(combination, scale):
    query, reference, labels, classes = inputs(torch.float64, shape=(2, 5, 2, 3), points=(3, 5))
    leaves = [query, reference, torch.tensor(scale).double(), torch.tensor(0.1).double()]

    def run(query, reference, scale, shift):
        chosen = {**options(*combination), "scale": scale, "shift": shift}
        scores = pk.matching_scores(query, reference, labels, classes, backend="cpu", **chosen)
        return scores[:, : classes - 1]

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in leaves])


# every combination in wide features, and every reduction of narrow ones
GRADIENTS = [
    pytest.param(dtype, combination, id=f"{dtype}-{'-'.join(combination)}")
    for dtype in DTYPES
    for combination in COMBINATIONS
    if dtype.itemsize > 2 or combination[1] == "sigmoid"
]


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(("dtype", "combination"), GRADIENTS)
def test_gradients(dtype, combination, backend, device):
    if not supports(backend, dtype):
        return
    shape, points = (2, 33, 14, 19), (40, 29)
    query, reference, labels, classes = inputs(dtype, device, shape=shape, points=points)
    weight = testing.features(2, classes, *shape[2:], seed=7).to(device)

    def run(backend, dtype):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (query, reference)]
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        leaves += [torch.tensor(x, dtype=wide, device=device) for x in (0.3, 0.1)]
        leaves[2].requires_grad_(), leaves[3].requires_grad_()
        chosen = {**options(*combination), "scale": leaves[2], "shift": leaves[3]}
        found = pk.matching_scores(*leaves[:2], labels, classes, backend=backend, **chosen)
        loss = (found * weight)[:, : classes - 1].sum()
        return torch.autograd.grad(loss, leaves)

    oracle, plain = run("eager", torch.float64), run("eager", dtype)
    # what cancels in the sums over pixels that scale and shift have
    pairs = similarity(query.double().flatten(2), reference.double().flatten(2), combination[0])
    terms = weight.abs().sum().item() * (1 + pairs.abs().max().item())
    terms *= labels[0].numel() / classes if combination[2] == "sum" else 1
    names = ("query", "reference", "scale", "shift")
    for name, a, o, p in zip(names, run(backend, dtype), oracle, plain, strict=True):
        testing.assert_within_budget(a, o, p, name, scale=terms if a.dim() == 0 else 0.0)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "cropped"])
def test_gradients_in_every_layout(layout, backend, device):
    def run(layout):
        query, reference, labels, classes = inputs(device=device, layout=layout)
        leaves = query.detach().requires_grad_(), reference.detach().requires_grad_()
        chosen = options("cosine", "sigmoid", "softmax")
        found = pk.matching_scores(*leaves, labels, classes, backend=backend, **chosen)
        return torch.autograd.grad(found[:, : classes - 1].square().sum(), leaves)

    for actual, expected in zip(run(layout), run("contiguous"), strict=True):
        assert torch.equal(actual, expected)
