"""What every op of the triplet family promises beside its result."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import backends, needs_gpu
from tests.promises import (
    compiles_whole,
    flat,
    ignores_autocast,
    keeps_its_bits,
    peak_extra_bytes,
    replayed_from_a_cuda_graph,
    results,
)
from tests.triplet_cases import inputs

COMPILED = backends("cpu", "triton")


def calls(backend, device):
    """Every function as (call, arguments), the arguments with a second, narrower form."""
    features, *sets = inputs(device=device)
    mask = testing.random_labels(3, 9, 13, high=2).to(device)

    def hinge(features, anchor, positive, negative):
        # columns are dropped in the narrower form
        sets = [
            index.clamp(max=9 * features.shape[3] - 1) for index in (anchor, positive, negative)
        ]
        return pk.triplet_hinge(features, *sets, backend=backend)

    def rows(features, anchor, positive, negative):
        sets = [
            index.clamp(max=9 * features.shape[3] - 1) for index in (anchor, positive, negative)
        ]
        return pk.triplet_hinge(features, *sets, squared=True, reduction="none", backend=backend)

    def loss(features, mask):
        return pk.is_triplet_loss(features, mask, num_samples=20, backend=backend)

    def sample(mask):
        return pk.sample_pixels(mask, 20, backend=backend)

    return {
        "triplet_hinge": (hinge, (features, *sets)),
        "triplet_hinge, none": (rows, (features, *sets)),
        "is_triplet_loss": (loss, (features, mask)),
        "sample_pixels": (sample, (mask,)),
    }


NAMES = tuple(calls(None, "cpu"))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_whole_with_dynamic_shapes(name, backend, device):
    call, arguments = calls(backend, device)[name]
    assert compiles_whole(call, arguments, [x[..., 1:].contiguous() for x in arguments])


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("count", [3, 4])
def test_opcheck(count, layout, backend, device):
    suffix = "_triton" if backend == "triton" else ""
    names = ("triplet_hinges", "triplet_hinges_backward", "draw_pixels")
    hinges, backward, draw = (
        getattr(torch.ops.pixelkernels, name + suffix).default for name in names
    )
    features, *sets = inputs(device=device, layout=layout)
    sets = torch.stack([*sets, sets[0].flip(1)][:count], 1)
    options = (2.0, False, 1e-6)
    torch.library.opcheck(hinges, (features.requires_grad_(), sets, *options))
    features = features.detach()
    found, distances = hinges(features, sets, *options)
    torch.library.opcheck(backward, (torch.ones_like(found), features, sets, distances, *options))
    mask = testing.random_labels(3, 9, 13, high=2).bool().to(device)
    torch.library.opcheck(draw, (mask, torch.tensor([5, 7], device=device), 6))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_every_run_and_thread_count(name, backend, device):
    assert keeps_its_bits(*calls(backend, device)[name])


@pytest.mark.keeps_memory
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_memory_is_the_gradient_and_what_the_rows_need(layout):
    features = testing.features(2, 32, 256, 256, layout=layout)
    mask = testing.coherent_labels(2, 256, 256, 4) == 1
    with torch.no_grad():
        forward = peak_extra_bytes(lambda: pk.is_triplet_loss(features, mask, num_samples=2000))
    slack = 4 << 20
    assert forward <= 4 * mask[0].numel() + slack
    leaf = features.requires_grad_()

    def both():
        torch.autograd.grad(pk.is_triplet_loss(leaf, mask, num_samples=2000), leaf)

    assert peak_extra_bytes(both) <= features.nbytes + slack


@pytest.mark.keeps_memory
def test_offsets_past_two_to_the_31():
    # pages of the allocation that no pixel lies in are never touched
    stride = 2**31
    storage = torch.empty(stride + 4096, dtype=torch.float16)
    far = storage.as_strided((1, 2, 8, 16), (stride, stride, 16, 1))
    far.copy_(testing.features(1, 2, 8, 16, dtype=torch.float16))
    sets = testing.random_labels(3, 1, 40, high=128)
    wide, narrow = (
        results(lambda f, *s: pk.triplet_hinge(f, *s), (f, *sets)) for f in (far, far.contiguous())
    )
    assert all(torch.equal(a, b) for a, b in zip(wide, narrow, strict=True))


@pytest.mark.parametrize("backend", COMPILED)
def test_a_second_derivative_raises(backend, device):
    features, *sets = inputs(device=device)
    features.requires_grad_()
    hinges = pk.triplet_hinge(features, *sets, reduction="none", backend=backend)
    (gradient,) = torch.autograd.grad(hinges.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", ["triplet_hinge", "triplet_hinge, none"])
def test_vmap_falls_back_to_eager(name):
    call, arguments = calls(None, "cpu")[name]
    stacked = [torch.stack([x, x.flip(-1)]) for x in arguments]
    mapped = torch.func.vmap(call)(*stacked)
    for i in range(2):
        expected = calls("eager", "cpu")[name][0](*(x[i] for x in stacked))
        torch.testing.assert_close(mapped[i], expected)


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton"))
@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name, backend, device):
    assert ignores_autocast(*calls(backend, device)[name], device)


def test_the_module_is_its_function():
    features, mask = testing.features(2, 8, 20, 30), testing.coherent_labels(2, 20, 30, 2)
    module = pk.ISTripletLoss(num_samples=50, margin=2.0)
    torch.manual_seed(0)
    expected = pk.is_triplet_loss(features, mask, num_samples=50, margin=2.0)
    torch.manual_seed(0)
    assert torch.equal(module(features, mask), expected)
    assert "margin=2.0" in repr(module)


@needs_gpu
@pytest.mark.parametrize("backend", backends("triton"))
@pytest.mark.parametrize("name", NAMES)
def test_captures_in_a_cuda_graph(name, backend, device):
    call, arguments = calls(backend, device)[name]
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in arguments]

    def run():
        found = flat(call(*leaves))
        used = [x for x in leaves if x.is_floating_point()]
        return [*found, *torch.autograd.grad(found[0].sum(), used)] if used else found

    expected = run()
    captured = replayed_from_a_cuda_graph(run)
    if name.startswith("triplet"):  # the others draw anew
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_shapes_past_two_to_the_31_on_meta():
    features = torch.empty(300, 64, 512, 512, device="meta")
    sets = torch.empty(300, 4, 5000, dtype=torch.int64, device="meta")
    for suffix in ("", "_triton"):
        hinges = getattr(torch.ops.pixelkernels, f"triplet_hinges{suffix}")
        found, distances = hinges(features, sets, 3.0, False, 1e-6)
        assert found.shape == (300, 2, 5000)
        assert distances.shape == (300, 4, 5000)
        backward = getattr(torch.ops.pixelkernels, f"triplet_hinges_backward{suffix}")
        gradient = backward(found, features, sets, distances, 3.0, False, 1e-6)
        assert gradient.shape == features.shape


F, M = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.bool)
K = torch.zeros(2, 7, dtype=torch.int64)
BAD_CALLS = {
    "features int": (
        TypeError,
        "features.*int64",
        lambda: pk.triplet_hinge(F.long(), K, K, K),
    ),
    "features rank": (ValueError, "features", lambda: pk.is_triplet_loss(F[0], M)),
    "anchor float": (
        TypeError,
        "anchor.*float32",
        lambda: pk.triplet_hinge(F, K.float(), K, K),
    ),
    "positive batch": (
        ValueError,
        r"positive.*\[2, K\]",
        lambda: pk.triplet_hinge(F, K, K[:1], K),
    ),
    "negative rows": (
        ValueError,
        r"negative.*\[2, 7\]",
        lambda: pk.triplet_hinge(F, K, K, K[:, 1:]),
    ),
    "negative device": (
        ValueError,
        "negative.*device",
        lambda: pk.triplet_hinge(F, K, K, K.to("meta")),
    ),
    "margin zero": (
        ValueError,
        "margin.*0",
        lambda: pk.triplet_hinge(F, K, K, K, margin=0),
    ),
    "eps": (ValueError, "eps.*-1", lambda: pk.is_triplet_loss(F, M, eps=-1)),
    "squared": (TypeError, "squared.*int", lambda: pk.is_triplet_loss(F, M, squared=2)),
    "reduction": (
        ValueError,
        "reduction.*'max'",
        lambda: pk.triplet_hinge(F, K, K, K, reduction="max"),
    ),
    "mask float": (TypeError, "mask.*float32", lambda: pk.sample_pixels(M.float(), 3)),
    "mask rank": (ValueError, r"mask.*\[B, H, W\]", lambda: pk.sample_pixels(M[0], 3)),
    "mask size": (ValueError, r"mask.*\[2, 4, 5\]", lambda: pk.is_triplet_loss(F, M[:, 1:])),
    "samples zero": (ValueError, "num_samples.*0", lambda: pk.sample_pixels(M, 0)),
    "samples float": (TypeError, "num_samples", lambda: pk.is_triplet_loss(F, M, num_samples=2.0)),
    "generator": (TypeError, "generator.*int", lambda: pk.sample_pixels(M, 3, generator=1)),
    "backend": (
        pk.BackendUnavailable,
        "no cuda implementation",
        lambda: pk.is_triplet_loss(F, M, backend="cuda"),
    ),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()
