"""What every op promises beside its result: validation, operators, transforms, memory, modules."""

from __future__ import annotations

import re

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import backends
from tests.promises import peak_extra_bytes
from tests.regions_cases import MINED, SMOOTH, WEIGHTED, mean_and_variance

F = torch.zeros(2, 3, 4, 5)
LABELS = torch.zeros(2, 4, 5, dtype=torch.int64)
WEIGHTS = torch.ones(2, 4, 5)
META_LABELS = LABELS.to("meta")

BAD_CALLS = {
    "features list": (TypeError, "features", lambda: pk.region_stats([1.0], LABELS, 2)),
    "features int": (TypeError, "features.*int64", lambda: pk.region_stats(F.long(), LABELS, 2)),
    "features rank": (
        ValueError,
        r"features.*\[B, C, H, W\]",
        lambda: pk.region_stats(F[0], LABELS, 2),
    ),
    "labels float": (TypeError, "labels.*float32", lambda: pk.region_stats(F, LABELS.float(), 2)),
    "labels size": (
        ValueError,
        r"labels.*\[2, 4, 5\]",
        lambda: pk.region_stats(F, LABELS[:, 1:], 2),
    ),
    "labels batch": (ValueError, "labels", lambda: pk.cas_loss(F, LABELS[:1], 2)),
    "labels device": (ValueError, "labels.*device", lambda: pk.region_stats(F, META_LABELS, 2)),
    "mask float": (TypeError, "mask", lambda: pk.metric_expression_loss(F, WEIGHTS)),
    "regions negative": (ValueError, "num_regions.*-1", lambda: pk.region_stats(F, LABELS, -1)),
    "regions zero": (ValueError, "num_regions", lambda: pk.discriminative_loss(F, LABELS, 0)),
    "regions float": (TypeError, "num_regions.*float", lambda: pk.region_stats(F, LABELS, 2.0)),
    "alpha text": (TypeError, "alpha", lambda: pk.cas_loss(F, LABELS, 2, alpha="x")),
    "variant": (ValueError, "variant.*'other'", lambda: pk.cas_loss(F, LABELS, 2, variant="other")),
    "divisor for paper": (ValueError, "divisor", lambda: pk.cas_loss(F, LABELS, 2, divisor=4)),
    "divisor zero": (
        ValueError,
        "divisor",
        lambda: pk.cas_loss(F, LABELS, 2, variant="released", divisor=0),
    ),
    "released regions": (
        ValueError,
        "num_regions",
        lambda: pk.cas_loss(F, LABELS, 3, variant="released"),
    ),
    "form": (ValueError, "form", lambda: pk.metric_expression_loss(F, LABELS, form="x")),
    "mining": (ValueError, "mining", lambda: pk.metric_expression_loss(F, LABELS, mining="soft")),
    "grad": (ValueError, "grad", lambda: pk.metric_expression_loss(F, LABELS, grad="none")),
    "mined pairwise": (
        ValueError,
        "form.*pairwise",
        lambda: pk.metric_expression_loss(F, LABELS, form="pairwise", mining="hard"),
    ),
    "norm": (ValueError, "norm.*3", lambda: pk.discriminative_loss(F, LABELS, 2, norm=3)),
    "reduction": (
        ValueError,
        "reduction",
        lambda: pk.discriminative_loss(F, LABELS, 2, reduction="sum"),
    ),
    "three weights": (
        ValueError,
        "weights",
        lambda: pk.discriminative_loss(F, LABELS, 2, weights=(1, 2)),
    ),
    "delta": (
        ValueError,
        "delta_var",
        lambda: pk.discriminative_loss(F, LABELS, 2, delta_var=-1.0),
    ),
    "weights int": (TypeError, "weights.*int64", lambda: pk.background_distance(F, LABELS)),
    "weights size": (ValueError, "weights", lambda: pk.background_distance(F, WEIGHTS[:, :2])),
    "weights negative": (ValueError, "weights.*-1", lambda: pk.masked_average_pool(F, -WEIGHTS)),
    "minmax": (
        ValueError,
        "normalize",
        lambda: pk.background_distance(F, WEIGHTS, normalize="max"),
    ),
    "upsample": (
        ValueError,
        "upsample",
        lambda: pk.masked_average_pool(F, WEIGHTS, upsample="nearest"),
    ),
    "eps": (ValueError, "eps", lambda: pk.masked_average_pool(F, WEIGHTS, eps=-1.0)),
    "compact float": (TypeError, "labels", lambda: pk.compact_labels(WEIGHTS)),
    "compact rank": (ValueError, "labels", lambda: pk.compact_labels(LABELS[0])),
    "ignore": (TypeError, "ignore", lambda: pk.compact_labels(LABELS, ignore=(0.5,))),
    "backend": (ValueError, "backend.*'gpu'", lambda: pk.region_stats(F, LABELS, 2, backend="gpu")),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call, monkeypatch):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()


def test_negative_weights_raise_inside_a_compiled_graph():
    compiled = torch.compile(pk.masked_average_pool, fullgraph=True, backend="aot_eager")
    with pytest.raises(
        ValueError, match=re.escape("weights: expected no negative value, got -2.0")
    ):
        compiled(F, WEIGHTS * -2)


def case_inputs(device="cpu", dtype=torch.float32):
    f = testing.features(2, 5, 12, 10, dtype=dtype, device=device)
    labels = testing.random_labels(2, 12, 10, low=-1, high=4).to(device)
    return f, labels, 3, testing.weights(2, 12, 10, device=device)


@pytest.mark.parametrize("backend", backends("cpu", "triton", "cuda"))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_opcheck(layout, backend, device):
    f, labels, regions, w = case_inputs(device)
    suffix = "_triton" if backend == "triton" else ""
    f = testing.LAYOUTS[layout](f).requires_grad_()
    w.requires_grad_()
    stats = pk.region_stats(f.detach(), labels, regions, backend=backend)
    saved = (f.detach(), labels, stats.count, stats.mean)
    calls = {
        "region_stats": (f, labels, regions, True),
        "region_stats_backward": (stats.mean, stats.variance, *saved, True),
        "region_pull": (f, labels, regions, 0.5, 2),
        "region_pull_backward": (None, stats.variance, *saved, stats.mean, 0.5, 1),
        "region_push": (stats.mean.clone().requires_grad_(), stats.count > 0, 1.5, 2),
        "region_contrast": (f.detach(), labels, stats.mean.detach()[:, :2].contiguous(), False),
        "weighted_mean": (f, w, 1e-5),
        "weighted_mean_share": (
            stats.mean[:, 0].contiguous(),
            f.detach(),
            w.detach(),
            w.detach().sum((1, 2)),
            1e-5,
        ),
        "background_distance": (f, w, False),
    }
    for name, arguments in calls.items():
        op = getattr(torch.ops.pixelkernels, name + suffix).default
        if name in ("region_stats", "region_pull"):
            # opcheck adds the outputs up in place and cannot start from an integer one; without a
            # gradient it does not, and test_regions.py differentiates the traced op
            torch.library.opcheck(op, (f.detach(), *arguments[1:]))
            arguments = (f, *arguments[1:])
            checks = ("test_schema", "test_autograd_registration", "test_faketensor")
            torch.library.opcheck(op, arguments, test_utils=checks)
        else:
            torch.library.opcheck(op, arguments)
    if backend == "cpu":
        scores = torch.randn(2, 120)
        torch.library.opcheck(
            torch.ops.pixelkernels.hard_pixels.default, (scores, labels.flatten(1))
        )
        torch.library.opcheck(torch.ops.pixelkernels.compact_labels.default, (labels, [0]))


@pytest.mark.parametrize("backend", backends("cpu", "triton", "cuda"))
@pytest.mark.parametrize("case", [*SMOOTH, *MINED], ids=lambda case: case.__name__)
def test_a_second_derivative_raises(case, backend, device):
    f, labels, regions, w = case_inputs(device)
    leaf = w.requires_grad_() if case in WEIGHTED else f.requires_grad_()
    (gradient,) = torch.autograd.grad(
        case(f, labels, regions, w, backend).sum(), leaf, create_graph=True
    )
    if gradient.requires_grad:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_vmap_falls_back_to_eager(case):
    f, labels, regions, w = case_inputs()
    stacked = torch.stack([f, 2 * f])
    weights = torch.stack([w, w.square()])
    mapped = torch.func.vmap(lambda f, w: case(f, labels, regions, w, None))(stacked, weights)
    for one, own_f, own_w in zip(mapped, stacked, weights, strict=True):
        torch.testing.assert_close(one, case(own_f, labels, regions, own_w, "eager"))


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton", "cuda"))
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_autocast_changes_nothing(case, backend, device):
    f, labels, regions, w = case_inputs(device, torch.bfloat16)
    plain = case(f, labels, regions, w, backend)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = case(f, labels, regions, w, backend)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)


@pytest.mark.keeps_memory
@pytest.mark.parametrize("regions", [2, 1000])
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.__name__)
def test_no_temporary_larger_than_the_features(case, regions):
    f = testing.features(4, 32, 256, 256)
    labels = testing.random_labels(4, 256, 256, high=regions)
    w = testing.weights(4, 256, 256)
    forward = peak_extra_bytes(lambda: case(f, labels, regions, w, "cpu"))
    leaf = f.clone().requires_grad_()
    backward = peak_extra_bytes(
        lambda: torch.autograd.grad(case(leaf, labels, regions, w, "cpu").sum(), leaf)
    )
    size, slack = f.numel() * 4, 8 << 20
    assert forward <= 0.5 * size + slack
    assert backward <= 1.5 * size + slack


def test_modules_are_their_functions():
    f, labels, regions, _ = case_inputs()
    pairs = [
        (pk.CASLoss(alpha=0.3), pk.cas_loss, (f, labels, regions), {"alpha": 0.3}),
        (
            pk.MetricExpressionLoss(form="pairwise"),
            pk.metric_expression_loss,
            (f, labels),
            {"form": "pairwise"},
        ),
        (pk.DiscriminativeLoss(norm=1), pk.discriminative_loss, (f, labels, regions), {"norm": 1}),
    ]
    for module, function, arguments, options in pairs:
        assert torch.equal(module(*arguments), function(*arguments, **options))
        name, value = next(iter(options.items()))
        assert f"{name}={value!r}" in repr(module)


def test_gradients_keep_the_layout_of_the_features():
    f, labels, regions, w = case_inputs()
    f = f.contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_and_variance(f, labels, regions, w, "cpu").sum(), f)
    assert gradient.stride() == f.stride()
