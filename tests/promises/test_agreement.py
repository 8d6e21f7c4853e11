"""Results and gradients are those of the float64 oracle, in every dtype and layout."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.testing.arguments import INTEGER_DTYPES, Labels, Mask, ObjectLabels, Pixels, wide
from pixelkernels.testing.tolerances import assert_agrees
from tests.helpers import (
    INTERPRETED,
    all_sizes,
    assert_same,
    backends,
    sampled,
    supported_dtypes,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LAYOUTS = tuple(testing.LAYOUTS)
ALL = ("eager", "cpu", "triton", "cuda")
COMPILED = ("cpu", "triton", "cuda")


@sampled(*COMPILED, dtypes=DTYPES, cost=0, when=lambda op, case: not case.unstable)
def test_agrees_with_the_oracle(sample, backend, dtype, device):
    # layouts take turns, and sizes under the interpreter, so that each operation meets all of them
    turn = list(sample.op.cases).index(sample.case) + DTYPES.index(dtype)
    sizes = all_sizes(sample.op)
    for i, dims in enumerate(sizes[turn % len(sizes) :][:1] if INTERPRETED else sizes):
        layout = LAYOUTS[(turn + i) % len(LAYOUTS)]
        call = sample.call(dims, device, dtype=dtype, layout=layout)
        assert_agrees(call, backend)
    if sample.op.name != "sample_reference":  # which returns features
        outputs = call.outputs(backend).values()
        assert all(x.dtype == wide(dtype) for x in outputs if x.is_floating_point())


@pytest.mark.slow
@sampled(
    *COMPILED,
    dtypes=DTYPES[:1] if INTERPRETED else DTYPES,
    when=lambda op, case: not case.unstable,
)
def test_agrees_with_the_oracle_at_every_size(sample, backend, dtype, device):
    # the interpreter meets the other sizes in the test above
    for i, dims in enumerate(sample.op.sizes.small[:: 2 if INTERPRETED else 1]):
        for layout in LAYOUTS[i % len(LAYOUTS) :][:1] if INTERPRETED else LAYOUTS:
            assert_agrees(sample.call(dims, device, dtype=dtype, layout=layout, seed=9), backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@sampled("cpu", cost=3, when=lambda op, case: "triplet" in op.name)
def test_gradients_written_past_the_caches(sample, backend, dtype):
    # more than 32 MiB, in planes and pixels that begin anywhere in a cache line
    channels = 84 // dtype.itemsize
    dims = {"B": 1, "C": channels, "H": 641, "W": 707, "K": 3000, "n": 3000}
    assert_agrees(sample.call(sample.op.sizes.ordinary[0] | dims, dtype=dtype), backend)


@sampled(
    *("cpu", "eager"),
    cost=2,
    when=lambda op, case: op.differentiable and case.gradcheck is not None,
)
def test_gradient_is_that_of_finite_differences(sample, backend):
    call = sample.call(sample.tiny, dtype=torch.float64, smooth=True)
    call = call.replaced(**call.case.gradcheck)
    names, leaves = zip(*call.differentiable.items(), strict=True)

    def run(*leaves):
        outputs = call.outputs(backend, **dict(zip(names, leaves, strict=True)))
        return [x[x.isfinite()] for x in outputs.values() if x.requires_grad]

    torch.autograd.gradcheck(run, [x.requires_grad_() for x in leaves])


# the result of expand_labels has the dtype of its labels
@sampled(*ALL, when=lambda op, case: op.name != "expand_labels")
def test_labels_and_masks_of_every_integer_dtype(sample, backend, device):
    call = sample.call(sample.tiny, device)
    integers = call.named(Labels, Mask, Pixels)
    for dtype in (torch.int16,) if INTERPRETED else INTEGER_DTYPES:
        most = 1 if dtype == torch.bool else torch.iinfo(dtype).max
        if any(x.max() > most for x in call.named(Pixels).values()):
            continue
        held = {name: x.long().clamp(0, min(most, 2**62)) for name, x in integers.items()}
        narrow = {name: x.to(dtype) for name, x in held.items()}
        assert_same(
            call.replaced(**narrow).results(backend), call.replaced(**held).results(backend)
        )


def outside(labels: torch.Tensor, kind: Labels, call) -> torch.Tensor:
    """Labels outside the range moved as far as int64 goes."""
    far = labels.where(labels >= 0, -(2**62))
    classes = call.arguments.get("num_regions", call.arguments.get("num_classes", kind.classes))
    return far if kind.classes is None else far.where(labels < classes, 2**33)


# of which any number is a label
ANY_NUMBER = ("compact_labels", "pixel_contrast_loss", "sample_anchors")


@sampled(*ALL, when=lambda op, case: op.name not in ANY_NUMBER)
def test_labels_outside_the_range_may_be_any_number(sample, backend, device):
    call = sample.call(device=device)
    kinds = {name: call.op.kind(call.case, name) for name in call.named(Labels)}
    kinds = {name: kind for name, kind in kinds.items() if not isinstance(kind, ObjectLabels)}
    if not kinds:
        pytest.skip("it has no labels")
    far = {name: outside(call.arguments[name], kind, call) for name, kind in kinds.items()}
    assert_same(call.replaced(**far).results(backend), call.results(backend))


@pytest.mark.parametrize("backend", backends("triton", "cuda"))
def test_float64_is_refused_on_a_gpu(backend, device):
    assert torch.float64 not in supported_dtypes(backend)
    features = testing.features(1, 2, 3, 4, dtype=torch.float64, device=device)
    labels = testing.random_labels(1, 3, 4, high=2).to(device)
    with pytest.raises(pk.BackendUnavailable, match="float64"):
        pk.region_stats(features, labels, 2, backend=backend)
