"""Arguments at the edge of what there is: sizes, strides, dtypes, numbers, NaN. What random calls
once stumbled over stays here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels import testing
from pixelkernels._core import dispatch
from tests.helpers import backends

F = testing.features(2, 3, 4, 5)
Y = testing.random_labels(2, 4, 5, high=3)
MASK = Y == 1
POINTS, CLICKS = torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1, dtype=torch.int64)
CPU = backends("eager", "cpu")


def seeded(device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(3)


# ---- what is refused, with the name of the argument ----

SETS = torch.zeros(3, 2, 6, dtype=torch.int64)
NESTED = torch.nested.nested_tensor([torch.ones(3, 4, 5), torch.ones(3, 4, 5)], layout=torch.jagged)
BAD_CALLS = {
    "regions past int32": (ValueError, "num_regions", lambda: pk.region_stats(F, Y, 2**31 - 1)),
    "regions past int64": (ValueError, "num_regions", lambda: pk.cas_loss(F, Y, 2**61)),
    "classes": (ValueError, "num_classes", lambda: pk.label_transfer(F, F, Y, 2**40)),
    "samples": (ValueError, "num_samples", lambda: pk.sample_pixels(MASK, 2**62)),
    "per class": (ValueError, "num_per_class", lambda: pk.sample_reference(F, Y, 3, 2**31)),
    "size": (ValueError, "size", lambda: pk.click_maps(POINTS, CLICKS, (2**31, 4))),
    "k": (
        ValueError,
        "k: ",
        lambda: pk.matching_scores(F, F, Y, 3, reduce="topk", k=2**63),
    ),
    "ignored": (ValueError, "ignore", lambda: pk.compact_labels(Y, ignore=(2**63,))),
    "ignored one": (TypeError, "ignore.*int", lambda: pk.compact_labels(Y, ignore=3)),
    "ignore label": (
        ValueError,
        "ignore_label",
        lambda: pk.next_click(MASK, Y, ignore_label=2**64),
    ),
    "background": (
        ValueError,
        "background",
        lambda: pk.discriminative_loss(F, Y, 3, background=10**30),
    ),
    "no float": (ValueError, "alpha", lambda: pk.cas_loss(F, Y, 3, alpha=10**400)),
    "no finite radius": (
        ValueError,
        "radius",
        lambda: pk.click_maps(POINTS, CLICKS, (4, 5), encoding="disk", radius=10**400),
    ),
    "norm float": (ValueError, "norm", lambda: pk.discriminative_loss(F, Y, 3, norm=2.0)),
    "option tensor": (
        ValueError,
        "reduction",
        lambda: pk.triplet_hinge(F, *SETS, reduction=torch.ones(2)),
    ),
    "option array": (
        ValueError,
        "metric",
        lambda: pk.matching_scores(F, F, Y, 3, metric=np.array(["dot", "max"])),
    ),
    "flag text": (TypeError, "squared", lambda: pk.distance_transform(MASK, squared="no")),
    "flag tensor": (
        TypeError,
        "squared",
        lambda: pk.triplet_hinge(F, *SETS, squared=torch.ones(2)),
    ),
    "flag none": (
        TypeError,
        "training",
        lambda: pk.pair_similarity_loss(F, F, Y, Y, training=None),
    ),
    "sampling": (
        ValueError,
        "sampling",
        lambda: pk.distance_transform(MASK, sampling=(1.0, 1e300)),
    ),
    "sparse": (TypeError, "features.*sparse", lambda: pk.region_stats(F.to_sparse(), Y, 3)),
    "sparse labels": (TypeError, "labels.*sparse", lambda: pk.region_stats(F, Y.to_sparse(), 3)),
    "nested": (TypeError, "features.*nested", lambda: pk.region_stats(NESTED, Y, 3)),
    "float8": (
        TypeError,
        "features.*float8",
        lambda: pk.region_stats(F.to(torch.float8_e4m3fn), Y, 3),
    ),
    "generator": (
        ValueError,
        "generator.*meta.*cpu",
        lambda: pk.sample_pixels(MASK.to("meta"), 3, generator=seeded()),
    ),
    "meta": (ValueError, "labels.*meta", lambda: pk.compact_labels(Y.to("meta"))),
    "backend array": (
        ValueError,
        "backend",
        lambda: pk.region_stats(F, Y, 3, backend=np.array(["cpu", "eager"])),
    ),
    "op": (ValueError, "op: .*'region_stat'", lambda: pk.explain("region_stat", F, Y, 3)),
    "op array": (ValueError, "op: ", lambda: pk.explain(np.ones(2), F, Y, 3)),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()


def test_explain_knows_every_function():
    functions = {name for name in pk.__all__ if name[0].islower()}
    others = {"available_backends", "explain", "use_backend"}
    assert set(dispatch.IMPLEMENTED) == functions - others


def test_more_memory_than_there_is():
    # the error says what was asked for, and whose it is
    with pytest.raises(RuntimeError, match=r"cannot allocate a tensor of shape \[1000000, 1, 2"):
        pk.sample_pixels(torch.ones(1, 1, 1, dtype=torch.bool).expand(10**6, 1, 1), 2**31 - 2)


# ---- sizes ----


@pytest.mark.parametrize("backend", CPU)
def test_all_pixels_are_samples_enough(backend):
    few, all_of_them = (
        pk.is_triplet_loss(F, MASK, num_samples=n, generator=seeded(), backend=backend)
        for n in (20, 2**62)
    )
    assert few > 0
    assert torch.equal(few, all_of_them)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("metric", ["dot", "sqeuclidean"])
def test_k_past_the_last_point_is_all_of_them(backend, metric):
    def call(k):
        leaf = F.clone().requires_grad_()
        scores = pk.matching_scores(
            leaf, F, Y, 4, metric=metric, reduce="topk", k=k, backend=backend
        )
        return scores.detach(), *torch.autograd.grad(scores[:, :3].sum(), leaf)

    for one, other in zip(call(20), call(2**62), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("regions", [1, 3, 7, 40])
@pytest.mark.parametrize("channels", [0, 1, 2, 3])
def test_few_channels(channels, regions, dtype):
    f = testing.features(2, channels, 33, 35, dtype=dtype).requires_grad_()
    labels = testing.random_labels(2, 33, 35, low=-2, high=regions + 2)
    found, plain = (pk.region_stats(f, labels, regions, backend=b) for b in ("cpu", "eager"))
    grads = []
    for one in (found, plain):
        (grad,) = torch.autograd.grad(one.variance.sum() + one.mean.sum(), f)
        grads.append(grad)
    assert grads[0].shape == f.shape
    for one, other in zip((*found, grads[0]), (*plain, grads[1]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("pixels", [(0, 7), (7, 0), (0, 0)], ids=str)
def test_pairs_of_nothing_have_a_gradient(backend, pixels):
    x, y = (testing.features(2, 3, n, 1)[..., 0].requires_grad_() for n in pixels)
    labels = [torch.zeros(2, n, dtype=torch.int64) for n in pixels]
    loss = pk.pair_similarity_loss(x, y, *labels, backend=backend)
    assert loss == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(loss, (x, y)))


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("reduce", ["max", "softmax"])
def test_a_support_of_nothing(backend, reduce):
    support, weights = torch.zeros(2, 3, 0, 5, requires_grad=True), torch.zeros(2, 0, 5)
    found = pk.prior_mask(F, support, weights, reduce=reduce, normalize=None, backend=backend)
    assert torch.equal(found, torch.zeros(2, 4, 5))
    assert torch.autograd.grad(found.sum(), support)[0].shape == support.shape


def test_maps_without_columns_are_there_at_once():
    assert pk.click_maps(POINTS, CLICKS, (2**31 - 2, 0)).shape == (1, 2, 2**31 - 2, 0)


# ---- strides and byte orders ----


@pytest.mark.parametrize("strategy", ["boundary", "objects"])
def test_clicks_on_a_mask_in_any_strides(strategy):
    target, others = (testing.coherent_labels(2, 40, 50, 4, seed=s) == 1 for s in (0, 1))
    clicks = [
        pk.simulate_clicks(
            layout(target), 3, 3, others=layout(others), strategy=strategy, generator=seeded()
        )
        for layout in (torch.clone, lambda x: x.mT.contiguous().mT, lambda x: x.flip(1).flip(1))
    ]
    for points, labels in clicks[1:]:
        assert torch.equal(points, clicks[0][0])
        assert torch.equal(labels, clicks[0][1])


def test_arrays_in_another_byte_order():
    swapped = np.dtype(np.int32).newbyteorder()
    target, prediction = Y.numpy().astype(swapped), MASK.numpy().astype(swapped)
    for one, other in zip(pkn.next_click(prediction, target), pk.next_click(MASK, Y), strict=True):
        assert np.array_equal(one, other.numpy())
    points = POINTS.numpy().astype(np.dtype(np.float64).newbyteorder())
    maps = pkn.click_maps(points, CLICKS.numpy().astype(swapped), (4, 5))
    assert np.array_equal(maps, pk.click_maps(POINTS, CLICKS, (4, 5)).numpy())
    assert np.array_equal(pkn.distance_transform(prediction), pk.distance_transform(MASK).numpy())


# ---- numbers whose squares are no float32 ----


def maps(radius, encoding, backend, points=POINTS):
    return pk.click_maps(points, CLICKS, (4, 5), encoding=encoding, radius=radius, backend=backend)[
        0
    ]


@pytest.mark.parametrize("backend", CPU)
def test_a_radius_as_good_as_0_or_without_end(backend):
    here = torch.zeros(4, 5)
    here[1, 2] = 1
    for radius in (1e-30, 1e-300):
        assert torch.equal(maps(radius, "disk", backend)[0], here)
        assert torch.equal(maps(radius, "gaussian", backend)[0], here)
        assert torch.equal(maps(radius, "tanh", backend)[0], 1 - here)
    for radius in (1e30, 1e300):
        positive, negative = maps(radius, "disk", backend)
        assert (positive == 1).all()
        assert (negative == 0).all()  # there is no click
        assert torch.equal(maps(radius, "gaussian", backend)[1], torch.zeros(4, 5))
        assert torch.equal(maps(radius, "tanh", backend)[1], torch.ones(4, 5))


@pytest.mark.parametrize("backend", CPU)
def test_a_limit_that_no_float32_reaches(backend):
    found = pk.click_maps(POINTS, CLICKS, (4, 5), truncate=1e300, backend=backend)
    assert torch.equal(found, pk.click_maps(POINTS, CLICKS, (4, 5), truncate=None))


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("sampling", [(2.0**-60, 2.0**-60), (2.0**40, 2.0**40), (1e-15, 1e9)])
def test_the_finest_and_the_coarsest_sampling(backend, sampling):
    found = pk.distance_transform(MASK, sampling=sampling, backend=backend)
    assert (found[MASK] == 0).all()
    assert (found[~MASK] > 0).all()
    assert found.isfinite().all()


def test_a_click_too_far_for_float32_is_infinitely_far():
    far = np.array([[[1e300, 0.0]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pkn.click_maps(far, CLICKS.numpy(), (4, 5), truncate=None)
    assert np.isposinf(found).all()


# ---- NaN among points, and no values at all ----


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("reduce", ["max", "min", "topk"])
@pytest.mark.parametrize("place", [0, 7, 100, 199])
def test_a_score_of_a_nan_is_nan_wherever_the_point_stands(backend, reduce, place):
    points = testing.features(1, 3, 200, 1)[..., 0]
    points[0, 1, place] = torch.nan
    labels = torch.arange(200)[None] % 2
    k = {"k": 3} if reduce == "topk" else {}
    labels_found, scores = pk.label_transfer(
        F[:1], points, labels, 3, reduce=reduce, backend=backend, **k
    )
    assert scores[0, place % 2].isnan().all()
    assert scores[0, 1 - place % 2].isfinite().all()
    assert (labels_found == 1 - place % 2).all()


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("masked", [False, True])
def test_a_prior_of_a_nan_is_nan(backend, masked):
    support, weights = F.clone(), torch.ones(2, 4, 5)
    support[0, :, 2, 2] = torch.nan
    weights[:, 0, 0] = float(not masked)
    found = pk.prior_mask(F, support, weights, normalize=None, backend=backend)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_a_class_of_nan_loses_to_one_of_minus_infinity(backend, reduce):
    points = torch.tensor([[[torch.nan, -torch.inf, -torch.inf]]])
    labels = torch.tensor([[0, 1, 2]])
    best, scores = pk.label_transfer(
        torch.ones(1, 1, 4), points, labels, 3, reduce=reduce, backend=backend
    )
    assert scores[0, 0].isnan().all()
    assert (best == 1).all()


def test_meta_tensors_give_shapes_and_dtypes():
    f, y, w = (x.to("meta") for x in (F, Y, testing.weights(2, 4, 5)))
    for call in (
        lambda f, y, w: pk.label_transfer(f, f, y, 3, reduce="max"),
        lambda f, y, w: [pk.prior_mask(f, f, w)],
        lambda f, y, w: [pk.masked_average_pool(f, w, upsample="bilinear")],
        lambda f, y, w: [pk.pair_similarity_loss(f, f, y, y)],
        lambda f, y, w: pk.region_stats(f, y, 3),
    ):
        for one, other in zip(call(f, y, w), call(F, Y, testing.weights(2, 4, 5)), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert one.device.type == "meta"
