"""Every public function under torch.compile's default backend, which compiles C++ for the CPU.

A cold compilation takes seconds to a minute: `make test` has those of few kernels, `make test-all`
those of the compiled backend with static shapes, and `make test-inductor` the others.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch

import pixelkernels as pk
from pixelkernels.testing import inputs
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_within_budget
from tests.helpers import Sample, assert_same
from tests.promises.test_operators import seeded

# what these return, gradients included, comes from an operator: there is nothing to round again
OPERATORS = (
    *("region_stats", "background_distance", "masked_average_pool"),
    *("matching_scores", "label_transfer", "click_maps", "distance_transform"),
)
QUICK = (
    *("region_stats", "masked_average_pool", "background_distance", "matching_scores"),
    *("distance_transform", "sample_pixels"),
)


def compiled(function, dynamic):
    torch._dynamo.reset()
    # the random numbers of uncompiled torch, in the order of the calls
    options = {"fallback_random": True, "reorder_for_peak_memory": False}
    return torch.compile(function, fullgraph=True, dynamic=dynamic, options=options)


def samples():
    for op in OPS.values():
        for backend, dynamic in product(("cpu", "eager"), (False, True)):
            if op.compiles and backend in op.backends:
                few = op.name in QUICK
                quick = few and backend == "cpu" and not dynamic
                marks = [] if quick else [pytest.mark.slow]
                if backend == "eager" or (dynamic and not few):
                    marks.append(pytest.mark.inductor)
                yield pytest.param(
                    Sample(op, op.quick_cases[0]),
                    backend,
                    dynamic,
                    marks=marks,
                    id=f"{op.name}-{backend}-{'dynamic' if dynamic else 'static'}",
                )


@pytest.mark.parametrize(("sample", "backend", "dynamic"), list(samples()))
def test_results_and_gradients_are_those_without_compilation(sample, backend, dynamic):
    function = compiled(sample.op.function, dynamic)
    drawing = {"generator": None} if sample.op.draws else {}

    def results(call):
        with seeded():
            return call.results(backend, **drawing)

    for dims in (sample.op.sizes.tiny, sample.op.sizes.small[0])[: 1 + dynamic]:
        call = sample.call(dims)
        expected, oracle = results(call), results(call.double())
        # a graph whose memory is reused in the backward allows one backward; this takes several
        with torch._functorch.config.patch(donated_buffer=False):
            found = results(call.through(function))
        if backend == "cpu" and sample.op.name in OPERATORS:
            assert_same(found, expected)
            continue
        assert found.keys() == expected.keys()
        for name, plain in expected.items():
            assert (found[name].dtype, found[name].shape) == (plain.dtype, plain.shape), name
            finite = oracle[name].isfinite()
            assert torch.equal(found[name][~finite], plain[~finite]), name
            if plain.is_floating_point():
                values = (x[name][finite] for x in (found, oracle, expected))
                assert_within_budget(*values, name, sample.op.terms(call).get(name, 0.0))
            else:
                assert torch.equal(found[name], plain), name


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=[pytest.mark.slow])])
@pytest.mark.parametrize("dtype", [torch.bool, pytest.param(torch.int64, marks=[pytest.mark.slow])])
def test_next_click_takes_masks_of_any_dtype(dtype, dynamic):
    masks = [inputs.coherent_labels(2, 9, 11, 3, seed) == 1 for seed in (0, 1)]
    prediction, target = (mask.to(dtype) for mask in masks)
    function = compiled(pk.next_click, dynamic)
    found, expected = function(prediction, target), pk.next_click(prediction, target)
    assert_same(found._asdict(), expected._asdict())


@pytest.mark.slow
def test_random_numbers_of_inductor_sample_every_pixel_once():
    torch._dynamo.reset()
    mask = inputs.coherent_labels(2, 9, 11, 3) == 1
    pixels = torch.compile(pk.sample_pixels, fullgraph=True)(mask, mask[0].numel())
    for image, drawn in zip(mask, pixels, strict=True):
        inside = image.flatten().nonzero()[:, 0]
        assert torch.equal(drawn[drawn >= 0].sort().values, inside)
        assert not torch.equal(drawn[: len(inside)], inside)  # they are in random order
