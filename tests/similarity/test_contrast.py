"""The contrast with a bank: its definition pair by pair, and what only it promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

import pixelkernels as pk
from pixelkernels.testing.inputs import features, random_labels
from tests.helpers import INTERPRETED, backends

ALL = backends("eager", "cpu", "triton")
COMPILED = backends("cpu", "triton")
DENOMINATORS = pytest.mark.parametrize("denominator", ["negatives", "all"])


def listed(anchors, labels, bank, bank_labels, temperature, denominator, itself):
    """The loss of each anchor by its definition, None without a positive."""
    losses = []
    for i, (anchor, label) in enumerate(zip(anchors.tolist(), labels.tolist(), strict=True)):
        pairs = [
            (sum(x * y for x, y in zip(anchor, entry, strict=True)) / temperature, other == label)
            for j, (entry, other) in enumerate(
                zip(bank.tolist(), bank_labels.tolist(), strict=True)
            )
            if label != -1 and other != -1 and not (itself and i == j)
        ]
        positives = [s for s, same in pairs if same]
        others = sum(math.exp(s) for s, same in pairs if not same or denominator == "all")
        own = [
            math.log(others + (math.exp(s) if denominator == "negatives" else 0)) - s
            for s in positives
        ]
        losses.append(sum(own) / len(own) if own else None)
    return losses


@pytest.mark.parametrize("backend", ALL)
@DENOMINATORS
@pytest.mark.parametrize("with_bank", [False, True])
def test_is_its_definition(backend, device, denominator, with_bank):
    anchors, labels = features(23, 5).double(), random_labels(23, low=-1, high=4)
    labels[labels == 3] = torch.where(torch.arange(23)[labels == 3] < 8, 3, 17)
    bank, bank_labels = anchors, labels
    if with_bank:
        bank, bank_labels = features(41, 5, seed=1).double(), random_labels(41, low=-1, high=3)
    expected = listed(anchors, labels, bank, bank_labels, 0.7, denominator, not with_bank)
    assert None in expected
    dtype = torch.float32 if backend == "triton" else torch.float64
    given = [x.to(device) for x in (anchors.to(dtype), labels)]
    if with_bank:
        given += [x.to(device) for x in (bank.to(dtype), bank_labels)]
    options = {"temperature": 0.7, "denominator": denominator, "backend": backend}
    losses = pk.pixel_contrast_loss(*given, reduction="none", **options)
    exact = torch.tensor([x or 0 for x in expected], dtype=torch.float64)
    torch.testing.assert_close(losses.cpu().double(), exact, rtol=1e-5, atol=1e-5)
    mean = pk.pixel_contrast_loss(*given, base_temperature=0.35, **options)
    known = [x for x in expected if x is not None]
    assert float(mean) == pytest.approx(2 * sum(known) / len(known), rel=1e-5)
    total = pk.pixel_contrast_loss(*given, reduction="sum", **options)
    assert float(total) == pytest.approx(sum(known), rel=1e-5)


@pytest.mark.parametrize("backend", ALL)
def test_an_anchor_is_compared_with_its_copy_in_a_bank(backend, device):
    anchors, labels = features(6, 3, device=device), torch.arange(6, device=device)
    alone = pk.pixel_contrast_loss(anchors, labels, reduction="none", backend=backend)
    assert alone.tolist() == [0] * 6
    copied = pk.pixel_contrast_loss(
        anchors, labels, anchors, labels, reduction="none", backend=backend
    )
    assert (copied > 0).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("ignore_index", [-1, 7, 2**63 - 1, -(2**63)])
def test_labels_are_any_numbers(backend, device, ignore_index):
    """Also those at the ends of int64, whichever of them is ignored."""
    numbers = torch.tensor([-1, 7, 2**63 - 1, -(2**63), 0])
    anchors, which = features(40, 3), random_labels(40, high=5)
    ignored = int((numbers == ignore_index).nonzero())
    expected = pk.pixel_contrast_loss(
        anchors.double(), which.where(which != ignored, -1), backend="eager"
    )
    loss = pk.pixel_contrast_loss(
        anchors.to(device), numbers[which].to(device), ignore_index=ignore_index, backend=backend
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("backend", COMPILED)
@DENOMINATORS
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_no_exponential_overflows(backend, device, denominator, temperature):
    """Similarities of thousands; the losses are differences of these, rounded in float32."""
    anchors, labels = features(50, 8), random_labels(50, high=3)
    bank, bank_labels = features(400, 8, seed=1), random_labels(400, high=3, seed=1)

    def results(backend, *tensors):
        leaves = [x.requires_grad_() for x in tensors]
        loss = pk.pixel_contrast_loss(
            leaves[0], labels.to(leaves[0].device), leaves[1], bank_labels.to(leaves[0].device),
            temperature=temperature, denominator=denominator, backend=backend,
        )  # fmt: skip
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    exact = results("eager", anchors.double(), bank.double())
    largest = float((anchors.double() @ bank.double().T).abs().max()) / temperature
    found = results(backend, anchors.detach().to(device), bank.detach().to(device))
    for one, other in zip(found, exact, strict=True):
        allowed = 8 * torch.finfo(torch.float32).eps * (1 + largest)
        error = (one.cpu().double() - other).abs().max() / other.abs().max()
        assert float(error) < allowed


@pytest.mark.parametrize("backend", backends("eager", "cpu"))
@DENOMINATORS
def test_gradients_without_a_bank_are_those_of_both_sides(backend, denominator):
    anchors, labels = features(9, 3, dtype=torch.float64).requires_grad_(), torch.arange(9) % 4
    assert gradcheck(
        lambda x: pk.pixel_contrast_loss(x, labels, denominator=denominator, backend=backend),
        (anchors,),
    )


@pytest.mark.parametrize("backend", COMPILED)
@DENOMINATORS
def test_one_class_has_no_negatives(backend, device, denominator):
    """Then the loss is 0 with a gradient of 0, if these are the denominator."""
    anchors = features(20, 4, device=device).requires_grad_()
    loss = pk.pixel_contrast_loss(
        anchors, anchors.new_zeros(20).bool(), denominator=denominator, backend=backend
    )
    (gradient,) = torch.autograd.grad(loss, anchors)
    if denominator == "negatives":
        assert float(loss.detach()) == 0
        assert not gradient.any()
    else:
        assert float(loss.detach()) > math.log(19) - 1
        assert gradient.any(1).all()


@pytest.mark.skipif(INTERPRETED, reason="minutes under Triton's interpreter")
@pytest.mark.parametrize("backend", COMPILED)
def test_the_order_of_the_bank_changes_rounding_alone(backend, device):
    anchors, labels = features(150, 9, device=device), random_labels(150, high=6).to(device)
    bank, bank_labels = features(9000, 9, seed=1), random_labels(9000, high=6, seed=1)
    order = torch.randperm(9000, generator=torch.Generator().manual_seed(0))
    one, other = (
        pk.pixel_contrast_loss(
            anchors, labels, bank[at].to(device), bank_labels[at].to(device), backend=backend
        )
        for at in (torch.arange(9000), order)
    )
    assert float(one) == pytest.approx(float(other), rel=1e-6)
