"""Triton's kernels of the contrast, compared with their contract in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pixelkernels.similarity import contrast, ops
from pixelkernels.similarity import triton as kernels
from pixelkernels.testing import LAYOUTS
from tests.helpers import backends, supported_dtypes

TRITON = pytest.mark.parametrize("backend", backends("triton"))
SCALE = 8.0
IGNORED = 1
# several tiles of anchors and of entries, and a part that ends within a class
ANCHORS, ENTRIES = 110, 400
STEP = ops.contrast_step(ENTRIES, 4)
# rounding of the weights of rows: to bfloat16, or to TF32
ROUNDING = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-9}
# channels in one tile, and in two chunks, vectorised or not; every dtype in `make test-all`
KINDS = (
    (True, False, 0, 7, "contiguous"),
    (True, True, 2, 150, "transposed"),
    (False, True, 0, 272, "cropped"),
    (False, False, 3, 16, "contiguous"),
)
DTYPES = supported_dtypes("triton")
PROBLEMS = pytest.mark.parametrize(
    ("negatives", "with_itself", "common", "channels", "layout", "dtype"),
    [
        pytest.param(*kind, dtype, marks=[pytest.mark.slow] if (i + k) % len(DTYPES) else [])
        for i, kind in enumerate(KINDS)
        for k, dtype in enumerate(DTYPES)
    ],
)


class Problem(NamedTuple):
    """The first arguments of both operators, and for each pair what it is, [N, M] in order."""

    anchors: Tensor
    bank: Tensor
    order: Tensor
    ranges: Tensor
    valid: Tensor
    similarities: Tensor
    compared: Tensor
    positive: Tensor

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return self[:5]

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The anchors and the ordered entries that count, else 0, in float64."""
        n, m = self.valid
        anchors, bank = self.anchors.double(), self.bank[self.order].double()
        anchors[n:] = bank[m:] = 0
        return anchors, bank

    def tolerance(self, weights: float) -> float:
        """Relative to the sum of the sizes of terms e^s b_j or f(log_sum - s), rows of length 1.

        The products err by eps sqrt(D) and s by SCALE times as much, which is the relative error of
        e^s; a sum over the entries errs by eps sqrt(M) more.
        """
        eps = torch.finfo(torch.float32).eps
        return 4 * (eps * (SCALE * self.anchors.shape[1] ** 0.5 + ENTRIES**0.5) + weights)


def problem(negatives, with_itself, common, channels, layout, dtype, device) -> Problem:
    """Most anchors have the label `common`, so a tile has no other; ignored rows are NaN."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((ANCHORS,), common)
    labels[::4] = torch.randint(0, 5, (len(labels[::4]),), generator=generator)
    bank_labels = torch.randint(0, 4, (ENTRIES,), generator=generator)
    diagonal = 30 if with_itself else None
    if with_itself:
        bank_labels[30 : 30 + ANCHORS] = labels
    anchors, bank = (
        normalize(torch.randn(len(x), channels, generator=generator), dim=1).to(dtype)
        for x in (labels, bank_labels)
    )
    anchors[labels == IGNORED] = bank[bank_labels == IGNORED] = torch.nan
    labels, bank_labels = labels.to(device), bank_labels.to(device)
    order, bank_order, ranges, valid = contrast._sorted(labels, bank_labels, IGNORED, diagonal)
    anchors = anchors.to(device)[order].contiguous()
    given = (anchors, LAYOUTS[layout](bank.to(device)), bank_order, ranges, valid)
    return described(given, negatives)


def described(given: tuple[Tensor, ...], negatives: bool) -> Problem:
    nothing = torch.empty(0)
    anchors, bank = Problem(*given, nothing, nothing, nothing).rows
    start, end, itself = given[3][..., None]
    n, m = given[4]
    i, j = (torch.arange(len(x), device=x.device) for x in (anchors, bank))
    valid = (i < n)[:, None] & (j < m)
    same, others = (j >= start) & (j < end), j != itself
    compared = valid & (~same if negatives else others)
    return Problem(*given, SCALE * anchors @ bank.mT, compared, valid & same & others)


def log_sums(given: Problem) -> Tensor:
    s = given.similarities.masked_fill(~given.compared, -torch.inf)
    return s.logsumexp(1).float()


def slope_of(x: Tensor, negatives: bool) -> Tensor:
    return x.sigmoid() if negatives else torch.ones_like(x)


def assert_near(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=atol)


@TRITON
@PROBLEMS
def test_first_pass_sums_over_the_pairs_of_the_denominator(
    negatives, with_itself, common, channels, layout, dtype, backend, device
):
    given = problem(negatives, with_itself, common, channels, layout, dtype, device)
    n = int(given.valid[0])
    options = (None, SCALE, negatives)
    found = kernels.contrast_pass(*given.arguments, *options, True, STEP)
    alone = kernels.contrast_pass(*given.arguments, *options, False, STEP)
    largest, sums, rows = found
    assert largest.shape == sums.shape == (3, ANCHORS)
    assert rows.shape == (3, channels, ANCHORS)
    assert alone[2].shape == (0,)
    _, bank = given.rows
    s = given.similarities.masked_fill(~given.compared, -torch.inf)
    for part in range(3):
        own, entries = s[:n, part * STEP :][:, :STEP], bank[part * STEP :][:STEP]
        top = own.amax(1)
        weights = torch.where(own > -torch.inf, (own - top[:, None]).exp(), 0)
        total = weights.sum(1)
        tolerance = given.tolerance(0)
        for one in (largest, alone[0]):
            assert_near(one[part, :n], top, tolerance)
        for one in (sums, alone[1]):
            assert_near(one[part, :n], total, tolerance * float(total.max()))
        tolerance = given.tolerance(ROUNDING[dtype])
        assert_near(rows[part, :, :n].mT, weights @ entries, tolerance * float(total.max()))


@TRITON
@PROBLEMS
def test_second_pass_sums_over_the_positives(
    negatives, with_itself, common, channels, layout, dtype, backend, device
):
    given = problem(negatives, with_itself, common, channels, layout, dtype, device)
    n, log_sum = int(given.valid[0]), log_sums(given)
    log_sum[n:] = torch.nan
    options = (log_sum, SCALE, negatives)
    losses, slopes, rows = kernels.contrast_pass(*given.arguments, *options, True, STEP)
    alone = kernels.contrast_pass(*given.arguments, *options, False, STEP)
    _, bank = given.rows
    x = log_sum.double()[:, None] - given.similarities
    loss = torch.where(given.positive, x.logaddexp(torch.zeros_like(x)) if negatives else x, 0)
    weight = torch.where(given.positive, slope_of(x, negatives), 0)
    for part in range(3):
        of_part = slice(part * STEP, (part + 1) * STEP)
        total, weights = loss[:n, of_part].sum(1), weight[:n, of_part]
        tolerance = given.tolerance(0)
        for one in (losses, alone[0]):
            assert_near(one[part, :n], total, tolerance * float(total.max()))
        largest = float(weights.sum(1).max())
        for one in (slopes, alone[1]):
            assert_near(one[part, :n], weights.sum(1), tolerance * largest)
        tolerance = given.tolerance(ROUNDING[dtype])
        assert_near(rows[part, :, :n].mT, weights @ bank[of_part], tolerance * largest)


@TRITON
@PROBLEMS
def test_bank_gradient_sums_over_the_anchors(
    negatives, with_itself, common, channels, layout, dtype, backend, device
):
    given = problem(negatives, with_itself, common, channels, layout, dtype, device)
    n, log_sum = given.valid[0], log_sums(given)
    weights = torch.rand(2, ANCHORS, generator=torch.Generator().manual_seed(1)).to(device)
    log_sum[n:] = weights[:, n:] = torch.nan
    found = kernels.contrast_bank_gradient(*given.arguments, log_sum, weights, SCALE, negatives)
    assert found.dtype == dtype
    assert found.stride() == torch.empty_like(given.bank).stride()
    anchors, _ = given.rows
    x = log_sum.double()[:, None] - given.similarities
    u, v = weights.double()[..., None]
    pulls = torch.where(given.positive, v * slope_of(x, negatives), 0)
    pushes = torch.where(given.compared, u * (-x).exp(), 0)
    expected = (pushes - pulls).mT @ anchors
    largest = float((pushes + pulls).sum(0).max())
    rounding = ROUNDING[dtype] + (dtype != torch.float32) * torch.finfo(dtype).eps
    assert_near(found[given.order], expected, given.tolerance(rounding) * largest)
    assert (found[given.order[given.valid[1] :]] == 0).all()


@TRITON
@pytest.mark.parametrize("negatives", [True, False])
def test_anchors_without_a_pair_in_the_denominator(negatives, backend, device):
    """One class has no negatives; a single entry, the anchor itself, leaves the others nothing."""
    anchors = torch.ones(3, 2, device=device)
    bank = torch.ones(70 if negatives else 1, 2, device=device)
    order = torch.arange(len(bank), device=device)
    ranges = torch.tensor([[0] * 3, [len(bank)] * 3, [0] * 3], device=device)
    valid = torch.tensor([3, len(bank)], device=device)
    given = (anchors, bank, order, ranges, valid)
    largest, sums, rows = kernels.contrast_pass(*given, None, SCALE, negatives, True, STEP)
    assert (largest == -torch.inf).all()
    assert not sums.any()
    assert not rows.any()
    nothing = largest[0]
    for part in kernels.contrast_pass(*given, nothing, SCALE, negatives, True, STEP):
        assert (part == 0).all()
    weights = torch.ones(2, 3, device=device)
    gradient = kernels.contrast_bank_gradient(*given, nothing, weights, SCALE, negatives)
    assert (gradient == 0).all()


@TRITON
@pytest.mark.parametrize(
    ("anchors", "entries", "channels"), [(0, 5, 3), (4, 0, 3), (0, 0, 0), (4, 5, 0)]
)
def test_empty_sides(anchors, entries, channels, backend, device):
    rows = [torch.ones(n, channels, device=device) for n in (anchors, entries)]
    order = torch.arange(entries, device=device)
    ranges = torch.zeros(3, anchors, dtype=torch.int64, device=device)
    valid = torch.tensor([anchors, entries], device=device)
    given = (*rows, order, ranges, valid)
    for log_sum in (None, torch.zeros(anchors, device=device)):
        first, second, sums = kernels.contrast_pass(*given, log_sum, SCALE, True, True, STEP)
        assert first.shape == second.shape == (1, anchors)
        assert sums.shape == (1, channels, anchors)
        if log_sum is None:  # similarities without channels are 0
            assert (first == (0 if entries else -torch.inf)).all()
            assert (second == entries).all()
    weights = torch.ones(2, anchors, device=device)
    gradient = kernels.contrast_bank_gradient(
        *given, torch.zeros(anchors, device=device), weights, SCALE, True
    )
    assert gradient.shape == (entries, channels)
    assert not gradient.any()
