"""The distance family on every backend against its definition, and what every op promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import backends, needs_gpu
from distance_cases import ENCODINGS, NOWHERE, hard_masks, masks, next_click, squared_distances
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_promises import peak_extra_bytes

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.distance import reference

ALL = backends("eager", "cpu", "triton", "cuda")
COMPILED = backends("cpu", "triton", "cuda")
# every size of remainder of the tiles and vectors, and lines of one pixel
SHAPES = ((1, 1), (1, 70), (1057, 1), (7, 15), (16, 16), (33, 17), (48, 65), (50, 97))


# ---- distance transform ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transform_of_hard_masks(shape, backend, device):
    named = hard_masks(*shape)
    mask = torch.stack(list(named.values())).to(device)
    squared = pk.distance_transform(mask, squared=True, backend=backend)
    assert squared.dtype == torch.int32
    distance = pk.distance_transform(mask, backend=backend)
    assert distance.dtype == torch.float32
    for name, actual, plain in zip(named, squared.cpu(), distance.cpu(), strict=True):
        expected = squared_distances(named[name].numpy())
        assert np.array_equal(actual.numpy(), expected), name
        exact = np.where(expected == NOWHERE, np.inf, np.sqrt(expected)).astype(np.float32)
        assert np.array_equal(plain.numpy(), exact), name


@given(mask=masks(), border=st.booleans())
@settings(max_examples=2000, deadline=None)
def test_transform_of_drawn_masks_on_the_cpu(mask, border):
    op = torch.ops.pixelkernels.distance_transform
    actual = op(torch.from_numpy(mask)[None], True, 1.0, 1.0, border)[0].numpy()
    around = np.pad(mask, 1, constant_values=True) if border else mask
    expected = squared_distances(around)
    assert np.array_equal(actual, expected[1:-1, 1:-1] if border else expected)


@pytest.mark.parametrize("backend", ALL)
@settings(max_examples=100, deadline=None)
@given(mask=masks(), spacing=st.tuples(*[st.floats(0.1, 7)] * 2))
def test_transform_is_scipys(backend, mask, spacing):
    mask[0, 0] = True  # SciPy leaves an image without True pixels undefined
    device = "cuda" if backend in ("triton", "cuda") else "cpu"
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
    actual = pk.distance_transform(
        torch.from_numpy(mask).to(device), sampling=spacing, backend=backend
    )
    np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("sampling", [(1e3, 1e-2), (1e-2, 1e3), (1e-6, 2e-6), (3e5, 2e5)], ids=str)
def test_transform_of_very_unequal_spacings(sampling, backend, device):
    # one axis is lost in the other's rounding, and neighbouring pixels disagree on their sites
    mask = testing.random_labels(4, 90, 500, high=300) == 3
    expected = [ndimage.distance_transform_edt(~one, sampling=sampling) for one in mask.numpy()]
    actual = pk.distance_transform(mask.to(device), sampling=sampling, backend=backend)
    np.testing.assert_allclose(actual.cpu().numpy(), np.stack(expected), rtol=1e-6)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(480, 854), (33, 3000)], ids=str)
def test_transform_of_large_masks(shape, backend, device):
    labels = testing.coherent_labels(2, *shape, 9)
    sparse = testing.random_labels(1, *shape, high=4000)
    mask = torch.cat([labels, sparse]) == 3
    actual = pk.distance_transform(mask.to(device), squared=True, backend=backend)
    for image, one in zip(actual.cpu().numpy(), mask.numpy(), strict=True):
        expected = ndimage.distance_transform_edt(~one)
        assert np.array_equal(image, np.rint(expected**2).astype(np.int64))


@pytest.mark.parametrize("backend", COMPILED)
def test_roots_of_squares_that_float32_does_not_hold(backend, device):
    mask = torch.zeros(1, 3, 32767, dtype=torch.bool, device=device)
    mask[0, 0, 0] = True
    for turned in (mask, mask.mT):
        squares = pk.distance_transform(turned, squared=True, backend=backend)
        exact = squares.double().sqrt().float()
        assert torch.equal(pk.distance_transform(turned, backend=backend), exact)


@pytest.mark.parametrize("backend", COMPILED)
def test_transform_of_sides_that_squares_do_not_fit(backend, device):
    mask = torch.zeros(1, 3, 40000, dtype=torch.bool, device=device)
    mask[0, 0, 0] = True
    for turned in (mask, mask.mT):
        distance = pk.distance_transform(turned, backend=backend)
        far = distance.flatten()[-1].cpu().double()
        assert far == pytest.approx(np.hypot(2, 39999), rel=1e-6)
        with pytest.raises(ValueError, match="mask: expected sides up to 32767"):
            pk.distance_transform(turned, squared=True, backend=backend)


@pytest.mark.parametrize("backend", ALL)
def test_transform_takes_any_batch_stride_and_integer(backend, device):
    mask = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0)).to(device) < 0.1
    expected = pk.distance_transform(mask.flatten(0, 1), backend=backend).view(mask.shape)
    assert torch.equal(pk.distance_transform(mask, backend=backend), expected)
    assert torch.equal(pk.distance_transform(mask.mT, backend=backend).mT, expected)
    assert torch.equal(pk.distance_transform(mask[0, 0], backend=backend), expected[0, 0])
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        values = torch.where(mask, 7, 0).to(dtype)
        assert torch.equal(pk.distance_transform(values, backend=backend), expected)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0)], ids=str)
def test_no_pixels(shape, backend, device):
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for squared in (False, True):
        assert pk.distance_transform(mask, squared=squared, backend=backend).shape == shape
    if len(shape) == 3:
        click = pk.next_click(mask, mask, backend=backend)
        assert click.points.shape == (shape[0], 2)
        assert not click.valid.any()
        points, labels = pk.simulate_clicks(mask, 2, 3, backend=backend)
        assert (points == -1).all()
        assert (labels == -1).all()


# ---- click maps ----


def clicks(batch=2, count=12, height=48, width=65, seed=0):
    """Some inside, some outside, at whole and at broken places, some padding."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([height, width])
    points = (1.4 * torch.rand(batch, count, 2, generator=generator) - 0.2) * size
    points[:, ::2] = points[:, ::2].round()
    return points, torch.randint(-1, 2, (batch, count), generator=generator)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("count", [0, 1, 12, 300])
def test_click_maps_match_the_oracle(count, encoding, backend, device):
    for shape in SHAPES:
        points, labels = clicks(2, count, *shape)
        if count:
            labels[1] = 1  # an image without negative clicks
        radius = ENCODINGS[encoding]
        for truncate in (30.0, None):
            actual = pk.click_maps(
                points.to(device),
                labels.to(device),
                shape,
                encoding=encoding,
                radius=radius,
                truncate=truncate,
                backend=backend,
            ).cpu()
            limit = torch.inf if truncate is None else truncate
            exact, plain = (
                reference.click_maps(p, labels, *shape, encoding, radius or 0.0, limit)
                for p in (points.double(), points)
            )
            assert actual.dtype == torch.float32
            assert torch.equal(actual.isinf(), exact.isinf())
            finite = [torch.where(exact.isinf(), 0, x) for x in (actual, exact, plain)]
            testing.assert_within_budget(*finite, name=f"{encoding} {shape}")


@pytest.mark.parametrize("backend", ALL)
def test_click_maps_of_whole_points_are_exact(backend, device):
    points, labels = clicks(count=40, height=70, width=200)
    points, labels = points.round().long().to(device), labels.to(device)
    maps = pk.click_maps(points, labels, (70, 200), truncate=None, backend=backend)
    for image in range(2):
        for channel, label in enumerate((1, 0)):
            sites = points[image, labels[image] == label].cpu().numpy()
            pixels = np.argwhere(np.ones((70, 200)))
            d2 = np.square(pixels[:, None] - sites[None]).sum(-1).min(1).reshape(70, 200)
            expected = np.sqrt(d2.astype(np.float32))
            np.testing.assert_allclose(maps[image, channel].cpu().numpy(), expected, rtol=2e-7)


@pytest.mark.parametrize("backend", ALL)
def test_disks_hold_their_border(backend, device):
    points = torch.tensor([[[20, 30]]], device=device)
    labels = torch.ones(1, 1, dtype=torch.bool, device=device)
    disk = pk.click_maps(points, labels, (50, 60), encoding="disk", radius=5, backend=backend)
    assert disk[0, 0].sum() == 81
    assert disk[0, 0, 20, 35] == disk[0, 0, 17, 26] == 1
    assert (disk[0, 1] == 0).all()


@pytest.mark.parametrize("backend", ALL)
def test_padding_may_hold_anything(backend, device):
    points, labels = clicks()
    points, labels = points.to(device), labels.to(device)
    expected = pk.click_maps(points, labels, (48, 65), backend=backend)
    points[labels == -1] = torch.nan
    assert torch.equal(pk.click_maps(points, labels, (48, 65), backend=backend), expected)


@pytest.mark.parametrize("backend", backends("triton", "cuda"))
def test_wrong_values_are_absent_on_a_device(backend, device):
    points, labels = clicks()
    expected = pk.click_maps(points[:, 2:].to(device), labels[:, 2:].to(device), (48, 65))
    points[:, 0, 1], labels[:, 0] = torch.nan, 1
    labels[:, 1] = 5
    actual = pk.click_maps(points.to(device), labels.to(device), (48, 65), backend=backend)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("backend", ALL)
def test_clicks_far_outside_and_all_in_one_place(backend, device):
    points = torch.tensor([[[1e6, -1e6], [torch.inf, 3.0]], [[7.0, 7.0], [7.0, 7.0]]])
    labels = torch.tensor([[1, 0], [1, 1]])
    maps = pk.click_maps(
        points.to(device), labels.to(device), (20, 70), truncate=None, backend=backend
    )
    exact = reference.click_maps(points.double(), labels, 20, 70, "euclidean", 0.0, torch.inf)
    torch.testing.assert_close(maps.cpu().double(), exact, rtol=1e-6, atol=0)


# ---- next click ----


@given(
    wrong=masks(30),
    seed=st.integers(0, 2**32 - 1),
    ignore_label=st.sampled_from((-1, 0, 1, 3, 300)),
    mostly=st.sampled_from((0.02, 0.5, 1.0)),
)
@settings(max_examples=1000, deadline=None)
def test_next_click_is_the_literal_algorithm(wrong, seed, ignore_label, mostly):
    random = np.random.default_rng(seed)
    target = random.choice([1, 1, 0, -1, 3], (3, *wrong.shape))
    target[0], target[1] = 1, np.where(target[1] > 0, 1, 0)
    prediction = (target == 1) ^ wrong
    not_clicked = random.random(prediction.shape) < mostly
    tensors = [torch.from_numpy(x) for x in (prediction, target, not_clicked)]
    for backend in ("cpu", "eager"):
        click = pk.next_click(
            *tensors[:2], not_clicked=tensors[2], ignore_label=ignore_label, backend=backend
        )
        for image in range(3):
            point, label, valid = next_click(
                prediction[image], target[image], not_clicked[image], ignore_label
            )
            assert tuple(click.points[image].tolist()) == point
            assert click.labels[image] == label
            assert click.valid[image] == valid


@pytest.mark.parametrize("backend", COMPILED)
def test_next_click_of_a_batch(backend, device):
    target = testing.coherent_labels(6, 50, 91, 4)
    prediction = testing.coherent_labels(6, 50, 91, 4, seed=5) == 1
    prediction[3] = target[3] == 1  # nothing to correct
    click = pk.next_click(prediction.to(device), target.to(device), backend=backend)
    for image in range(6):
        point, label, valid = next_click(
            prediction[image].numpy(), target[image].numpy(), np.ones((50, 91), bool), -1
        )
        assert (tuple(click.points[image].tolist()), click.labels[image], click.valid[image]) == (
            point,
            label,
            valid,
        )
    assert click.points.dtype == click.labels.dtype == torch.int64


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.bool])
def test_next_click_takes_any_integer(dtype, backend, device):
    target = (testing.coherent_labels(2, 40, 50, 3) == 1).to(device)
    prediction = target.roll(9, 2)
    expected = pk.next_click(prediction, target, backend=backend)
    for ignore_label in (-1, 255):
        actual = pk.next_click(
            prediction.to(dtype), target.to(dtype), ignore_label=ignore_label, backend=backend
        )
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


# ---- simulated clicks ----


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("strategy", ["background", "objects", "boundary", "mixed"])
def test_simulated_clicks_keep_their_distances(strategy, backend, device):
    labels = testing.coherent_labels(5, 90, 120, 6)
    target, others = labels == 0, (labels == 1) | (labels == 2)
    target[3] = False
    others[4] = False
    points, kinds = pk.simulate_clicks(
        target.to(device),
        6,
        7,
        others=others.to(device),
        strategy=strategy,
        margin=4,
        spacing=9,
        band=25,
        generator=torch.Generator(device).manual_seed(1),
        backend=backend,
    )
    assert points.shape == (5, 13, 2)
    assert points.dtype == kinds.dtype == torch.int64
    points, kinds = points.cpu(), kinds.cpu()
    assert (kinds[3, :6] == -1).all()
    assert (kinds[3, 6:] == 0).all()
    assert ((kinds == -1) == (points == -1).all(2)).all()
    for image in range(5):
        to_edge = ndimage.distance_transform_edt(target[image])
        to_target = np.sqrt(squared_distances(target[image].numpy()))
        for label in (1, 0):
            chosen = points[image, kinds[image] == label]
            rows, columns = chosen.T.numpy()
            assert (kinds[image, :6] != 0).all()
            assert (kinds[image, 6:] != 1).all()
            apart = torch.cdist(chosen.double(), chosen.double())
            assert (apart[~torch.eye(len(chosen), dtype=torch.bool)] >= 9).all()
            if label == 1:
                assert (to_edge[rows, columns] >= 4).all()
            elif image != 3:
                assert (to_target[rows, columns] >= 4).all()
                near = to_target[rows, columns] <= 25
                other = others[image].numpy()[rows, columns]
                if strategy == "objects":
                    assert other.all() if image != 4 else near.all()
                else:
                    assert (near | (other if strategy == "mixed" else False)).all()


@pytest.mark.parametrize("backend", COMPILED)
def test_simulated_clicks_depend_on_the_generator_alone(backend, device):
    target = (testing.coherent_labels(4, 60, 80, 3) == 1).to(device)

    def draw(seed, chosen):
        generator = torch.Generator(device).manual_seed(seed)
        return pk.simulate_clicks(target, 4, 4, generator=generator, backend=chosen)

    first, again, other = draw(3, backend), draw(3, "eager"), draw(4, backend)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_boundary_clicks_are_the_farthest():
    target = torch.zeros(1, 61, 61, dtype=torch.bool)
    target[:, 25:36, 25:36] = True
    points, _ = pk.simulate_clicks(
        target, 0, 5, strategy="boundary", band=20, generator=torch.Generator().manual_seed(0)
    )
    to_target = np.sqrt(squared_distances(target[0].numpy()))
    allowed = np.argwhere((to_target >= 5) & (to_target <= 20))
    for i in range(1, 5):
        earlier = points[0, :i].numpy()
        gaps = np.square(allowed[:, None] - earlier[None]).sum(-1).min(1)
        assert points[0, i].tolist() == allowed[gaps.argmax()].tolist()


def test_the_first_click_is_uniform():
    target = torch.ones(3000, 3, 4, dtype=torch.bool)
    points, _ = pk.simulate_clicks(target, 1, 0, generator=torch.Generator().manual_seed(0))
    counts = (points[:, 0, 0] * 4 + points[:, 0, 1]).bincount(minlength=12).double()
    chi_square = float((counts - 250).square().sum() / 250)
    assert chi_square < 31.3  # 11 degrees of freedom, one in a thousand


# ---- what every op promises ----


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
        "simulate_clicks": (
            lambda m: pk.simulate_clicks(m, 3, 4, backend=backend),
            (mask,),
        ),
    }


NAMES = ("click_maps", "distance_transform", "next_click", "simulate_clicks")


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_whole_with_dynamic_shapes(name, backend, device):
    torch._dynamo.reset()
    call, arguments = calls(backend, device)[name]
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for inputs in (arguments, [x[:, 1:].contiguous() for x in arguments]):
        torch.manual_seed(0)
        actual = flat(compiled(*inputs))
        torch.manual_seed(0)
        expected = flat(call(*inputs))
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


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
            torch.library.opcheck(deepest, (mask.roll(9, 2), target, None, -1))
            torch.library.opcheck(deepest, (mask.roll(9, 2), target, mask.roll(3, 2), 0))
        order = testing.random_labels(2, 30, 40, high=1000).int()
        pick = torch.ops.pixelkernels.pick_pixels.default
        torch.library.opcheck(pick, (mask, order, torch.tensor([False, True]), 3, 16))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_every_run_and_thread_count(name, backend, device):
    call, arguments = calls(backend, device)[name]
    torch.manual_seed(0)
    first = flat(call(*arguments))
    threads = torch.get_num_threads()
    try:
        for count in (1, threads, threads + 1):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            again = flat(call(*arguments))
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.keeps_memory
def test_memory_is_what_the_docstrings_say():
    points, labels = clicks(8, 300, 512, 512)
    mask = testing.coherent_labels(16, 512, 512, 5) == 1
    moved = mask.roll(40, 2)
    pixels, slack = mask.numel(), 4 << 20
    allowed = {
        4 * pixels: lambda: pk.click_maps(points, labels, (512, 512)),
        4.001 * pixels: lambda: pk.distance_transform(mask),
        5 * pixels: lambda: pk.next_click(moved, mask),
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
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = flat(call(*arguments))
    graph.replay()
    torch.cuda.synchronize()
    if name != "simulate_clicks":  # which draws anew
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
