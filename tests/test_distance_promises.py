"""What every op of the distance family promises beside its result."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.distance_cases import ENCODINGS, clicks
from tests.helpers import backends, needs_gpu
from tests.promises import (
    compiles_whole,
    flat,
    keeps_its_bits,
    peak_extra_bytes,
    replayed_from_a_cuda_graph,
)

COMPILED = backends("cpu", "triton", "cuda")


def calls(backend, device):
    """Every function on one small input, and that input's second form for dynamic shapes."""
    points, labels = (x.to(device) for x in clicks())
    mask = (testing.coherent_labels(3, 40, 50, 4) == 1).to(device)
    return {
        "click_maps": (
            lambda p, y: pk.click_maps(p, y, (40, 50), encoding="tanh", radius=9, backend=backend),
            (points, labels),
        ),
        "distance_transform": (lambda m: pk.distance_transform(m, backend=backend), (mask,)),
        "next_click": (
            lambda m: pk.next_click(m, m.roll(7, 1), backend=backend),
            (mask,),
        ),
        "random next_click": (
            lambda m: pk.next_click(m, m.roll(7, 1), random=True, backend=backend),
            (mask,),
        ),
        "simulate_clicks": (
            lambda m: pk.simulate_clicks(m, 3, 4, backend=backend),
            (mask,),
        ),
    }


DRAWN = ("random next_click", "simulate_clicks")
NAMES = ("click_maps", "distance_transform", "next_click", *DRAWN)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_whole_with_dynamic_shapes(name, backend, device):
    call, arguments = calls(backend, device)[name]
    assert compiles_whole(call, arguments, [x[:, 1:].contiguous() for x in arguments])


@pytest.mark.parametrize("backend", COMPILED)
def test_opcheck(backend, device):
    suffix = "_triton" if backend == "triton" else ""
    points, labels = (x.to(device) for x in clicks())
    maps = getattr(torch.ops.pixelkernels, f"click_maps{suffix}").default
    for code in range(len(ENCODINGS)):
        torch.library.opcheck(maps, (points, labels, 30, 40, code, 5.0, 255.0))
    transform = getattr(torch.ops.pixelkernels, f"distance_transform{suffix}").default
    mask = (testing.coherent_labels(2, 30, 40, 4) == 1).to(device)
    for squared in (False, True):
        torch.library.opcheck(transform, (mask, squared, 1.0, 1.0, squared))
    if backend == "cpu":
        deepest = torch.ops.pixelkernels.deepest_errors.default
        for target in (mask, mask.int(), mask.long()):
            draws = torch.tensor([5, 2**61])
            torch.library.opcheck(deepest, (mask.roll(9, 2), target, None, -1, draws))
            torch.library.opcheck(deepest, (mask.roll(9, 2), target, mask.roll(3, 2), 0, None))
        order = testing.random_labels(2, 30, 40, high=1000).int()
        pick = torch.ops.pixelkernels.pick_pixels.default
        torch.library.opcheck(pick, (mask, order, torch.tensor([False, True]), 3, 16))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_every_run_and_thread_count(name, backend, device):
    assert keeps_its_bits(*calls(backend, device)[name])


@pytest.mark.keeps_memory
def test_memory_is_what_the_docstrings_say():
    points, labels = clicks(8, 300, 512, 512)
    mask = testing.coherent_labels(16, 512, 512, 5) == 1
    moved = mask.roll(40, 2)
    pixels, slack = mask.numel(), 4 << 20
    allowed = {
        4 * pixels: lambda: pk.click_maps(points, labels, (512, 512)),
        4.001 * pixels: lambda: pk.distance_transform(mask),
        5 << 20: lambda: pk.next_click(moved, mask, random=True),
        40 * pixels: lambda: pk.simulate_clicks(mask, 3, 3),
    }
    for most, call in allowed.items():
        assert peak_extra_bytes(call) <= most + slack


def test_vmap_falls_back_to_eager():
    points, labels = clicks(batch=6)
    points, labels = points.view(3, 2, 12, 2), labels.view(3, 2, 12)
    mapped = torch.func.vmap(lambda p, y: pk.click_maps(p, y, (20, 30)))(points, labels)
    for one, p, y in zip(mapped, points, labels, strict=True):
        torch.testing.assert_close(one, pk.click_maps(p, y, (20, 30)))
    mask = testing.random_labels(3, 2, 9, 11, high=5) == 1
    mapped = torch.func.vmap(pk.distance_transform)(mask)
    torch.testing.assert_close(mapped, pk.distance_transform(mask))


def test_results_carry_no_graph():
    points, labels = clicks()
    maps = pk.click_maps(points.requires_grad_(), labels, (20, 30))
    assert not maps.requires_grad
    bias = torch.zeros(1, requires_grad=True)  # as the learnable bias of f-BRS
    (maps + bias).sum().backward()
    assert bias.grad == maps.numel()


@needs_gpu
@pytest.mark.parametrize("backend", backends("triton", "cuda"))
@pytest.mark.parametrize("name", NAMES)
def test_captures_in_a_cuda_graph(name, backend, device):
    call, arguments = calls(backend, device)[name]
    expected = flat(call(*arguments))
    captured = replayed_from_a_cuda_graph(lambda: call(*arguments))
    if name not in DRAWN:
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_shapes_past_two_to_the_31_on_meta():
    for suffix in ("", "_triton"):
        maps = getattr(torch.ops.pixelkernels, f"click_maps{suffix}")
        points = torch.empty(200, 5, 2, device="meta")
        labels = torch.empty(200, 5, dtype=torch.int64, device="meta")
        shape = maps(points, labels, 2160, 3840, 0, 1.0, 255.0).shape
        assert shape == (200, 2, 2160, 3840)
        transform = getattr(torch.ops.pixelkernels, f"distance_transform{suffix}")
        mask = torch.empty(300, 2160, 3840, dtype=torch.bool, device="meta")
        assert transform(mask, True, 1.0, 1.0, False).shape == mask.shape


POINTS, LABELS, MASK = (
    torch.zeros(2, 3, 2),
    torch.zeros(2, 3, dtype=torch.int64),
    torch.ones(2, 4, 5),
)
MASK = MASK.bool()
BAD_CALLS = {
    "points list": (TypeError, "points", lambda: pk.click_maps([1], LABELS, (4, 5))),
    "points complex": (
        TypeError,
        "points.*complex",
        lambda: pk.click_maps(POINTS.to(torch.complex64), LABELS, (4, 5)),
    ),
    "points shape": (
        ValueError,
        r"points.*\[B, N, 2\]",
        lambda: pk.click_maps(POINTS[..., :1], LABELS, (4, 5)),
    ),
    "labels float": (TypeError, "labels", lambda: pk.click_maps(POINTS, LABELS.float(), (4, 5))),
    "labels shape": (
        ValueError,
        r"labels.*\[2, 3\]",
        lambda: pk.click_maps(POINTS, LABELS[:, 1:], (4, 5)),
    ),
    "labels device": (
        ValueError,
        "labels.*device",
        lambda: pk.click_maps(POINTS, LABELS.to("meta"), (4, 5)),
    ),
    "label 2": (ValueError, "labels.*got 2", lambda: pk.click_maps(POINTS, LABELS + 2, (4, 5))),
    "point NaN": (
        ValueError,
        "points: expected no NaN",
        lambda: pk.click_maps(POINTS * torch.nan, LABELS, (4, 5)),
    ),
    "size int": (TypeError, "size", lambda: pk.click_maps(POINTS, LABELS, 4)),
    "size three": (ValueError, "size", lambda: pk.click_maps(POINTS, LABELS, (1, 4, 5))),
    "size negative": (ValueError, "size.*-4", lambda: pk.click_maps(POINTS, LABELS, (-4, 5))),
    "encoding": (
        ValueError,
        "encoding.*'ring'",
        lambda: pk.click_maps(POINTS, LABELS, (4, 5), encoding="ring"),
    ),
    "radius missing": (
        ValueError,
        "radius.*None",
        lambda: pk.click_maps(POINTS, LABELS, (4, 5), encoding="disk"),
    ),
    "radius zero": (
        ValueError,
        "radius",
        lambda: pk.click_maps(POINTS, LABELS, (4, 5), encoding="tanh", radius=0),
    ),
    "radius unused": (
        ValueError,
        "radius",
        lambda: pk.click_maps(POINTS, LABELS, (4, 5), radius=3),
    ),
    "truncate": (
        ValueError,
        "truncate",
        lambda: pk.click_maps(POINTS, LABELS, (4, 5), truncate=-1),
    ),
    "mask float": (TypeError, "mask.*float32", lambda: pk.distance_transform(MASK.float())),
    "mask rank": (ValueError, "mask", lambda: pk.distance_transform(MASK[0, 0])),
    "sampling with squares": (
        ValueError,
        "sampling",
        lambda: pk.distance_transform(MASK, squared=True, sampling=(1, 1)),
    ),
    "sampling zero": (ValueError, "sampling", lambda: pk.distance_transform(MASK, sampling=(0, 1))),
    "sampling number": (TypeError, "sampling", lambda: pk.distance_transform(MASK, sampling=2.0)),
    "prediction float": (TypeError, "prediction", lambda: pk.next_click(MASK.float(), MASK)),
    "prediction rank": (ValueError, "prediction", lambda: pk.next_click(MASK[0], MASK[0])),
    "target shape": (ValueError, "target", lambda: pk.next_click(MASK, MASK[:, 1:])),
    "not_clicked float": (
        TypeError,
        "not_clicked",
        lambda: pk.next_click(MASK, MASK, not_clicked=MASK.float()),
    ),
    "ignore_label": (
        TypeError,
        "ignore_label",
        lambda: pk.next_click(MASK, MASK, ignore_label=0.5),
    ),
    "random": (TypeError, "random", lambda: pk.next_click(MASK, MASK, random=1)),
    "next generator": (TypeError, "generator", lambda: pk.next_click(MASK, MASK, generator=3)),
    "target float": (TypeError, "target", lambda: pk.simulate_clicks(MASK.float(), 1, 1)),
    "num negative": (ValueError, "num_negative", lambda: pk.simulate_clicks(MASK, 1, -1)),
    "strategy": (
        ValueError,
        "strategy.*'random'",
        lambda: pk.simulate_clicks(MASK, 1, 1, strategy="random"),
    ),
    "margin": (ValueError, "margin", lambda: pk.simulate_clicks(MASK, 1, 1, margin=-1)),
    "others": (ValueError, "others", lambda: pk.simulate_clicks(MASK, 1, 1, others=MASK[:1])),
    "generator": (TypeError, "generator", lambda: pk.simulate_clicks(MASK, 1, 1, generator=3)),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()


def test_wrong_labels_raise_inside_a_compiled_graph():
    compiled = torch.compile(pk.click_maps, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"labels: expected 1 .* got 7"):
        compiled(POINTS, LABELS + 7, (4, 5))


def test_module_is_its_function():
    points, labels = clicks()
    module = pk.ClickMaps(encoding="disk", radius=5)
    expected = pk.click_maps(points, labels, (48, 65), encoding="disk", radius=5)
    assert torch.equal(module(points, labels, (48, 65)), expected)
    assert "encoding='disk'" in repr(module)
