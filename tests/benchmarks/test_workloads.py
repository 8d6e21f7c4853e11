"""Every backend and peer of a workload computes the same, at sizes small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks import measure, run
from benchmarks.case import Case, Side, WrongResult, library_sides, peer_sides
from benchmarks.ops import WORKLOADS, select
from benchmarks.workload import BOTH, FORWARD, Peer, Workload

SHRINK = 16
DEVICES = ("cpu", "cuda")
VARIANTS = [
    pytest.param(workload, variant, id=f"{workload.name}-{variant}")
    for workload in WORKLOADS
    for variant in workload.variants
]


def tiny(workload: Workload, variant: str) -> Case:
    return Case(workload, variant, workload.inputs(variant, shrink=SHRINK))


@pytest.mark.parametrize(("workload", "variant"), VARIANTS)
def test_every_side_agrees_with_the_oracle(workload: Workload, variant: str) -> None:
    case = tiny(workload, variant)
    sides = library_sides(workload, case.inputs, slow=True)
    if variant != "empty":  # peers differ without a False pixel
        sides += peer_sides(workload, "cpu", compiled=False)
    for side in sides:
        for mode in () if side.missing else workload.modes:
            case.check(side, mode)
    if BOTH in workload.modes:  # a gradient of zeros would prove nothing
        assert all(exact.count_nonzero() > 0 for exact in case._exact)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_floors_are_positive_and_larger_with_a_backward_pass(workload: Workload) -> None:
    inputs = workload.inputs(workload.variants[0], shrink=SHRINK)
    forward = workload.floor(inputs, FORWARD)
    assert min(forward.bytes, forward.operations) > 0
    assert (BOTH in workload.modes) == bool(inputs.differentiable)
    if inputs.differentiable:
        both = workload.floor(inputs, BOTH)
        assert forward.bytes < both.bytes
        assert forward.operations < both.operations


def test_floors_of_distances() -> None:
    floors = {
        workload.name: workload.floor(workload.inputs("random", shrink=SHRINK), FORWARD).bytes
        for workload in select(family="distance")
    }
    assert floors["click-maps-ritm-tanh"] == 28 * 2 * 20 * 30 * 4
    assert floors["distance-transform-4k"] == 135 * 240 * (1 + 4)
    assert floors["next-click"] == 28 * 20 * 30 * (1 + 4)


def test_floors_of_similarity() -> None:
    pixels, channels = 15 * 26, 128
    floors = {
        workload.name: workload.floor(
            workload.inputs(workload.variants[0], shrink=SHRINK), workload.modes[0]
        )
        for workload in select(family="similarity")
    }
    transfer = floors["label-transfer-k200"]
    read = 4 * channels * (pixels + 200) + 8 * 200
    assert transfer.bytes == read + pixels * (4 * 2 + 8)
    assert transfer.operations == 2 * channels * 200 * pixels
    # one sum per class replaces its 100 points
    assert floors["label-transfer-prototypes"].operations == transfer.operations // 100
    assert floors["matching-scores-k200"].operations == 3 * transfer.operations
    # 4 of the 3x3 support pixels are kept
    assert floors["prior-mask"].operations == 4 * 2 * 2048 * 9 * 4


@pytest.mark.parametrize("workload", select(quick=True), ids=lambda workload: workload.name)
def test_inputs_are_seeded(workload: Workload) -> None:
    variant = workload.variants[0]
    first, second = (workload.inputs(variant, shrink=SHRINK).tensors for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_wrong_side_is_not_timed() -> None:
    workload = select("menet-means")[0]
    case = tiny(workload, "coherent")
    wrong = Side("wrong", "peer", lambda f, m: (1.01 * workload.library(f, m, backend="eager")[0],))
    with pytest.raises(WrongResult):
        case.check(wrong, BOTH)
    effort = measure.Effort(rounds=1, seconds=0)
    (row,) = run.measure_mode(case, BOTH, [wrong], "cpu", effort)
    assert "ms" not in row
    assert "off by" in row["problem"]


@pytest.mark.parametrize(
    ("name", "variant"), [("distance-transform-davis", "empty"), ("next-click", "coherent")]
)
def test_infinities_and_integers_are_compared_exactly(name: str, variant: str) -> None:
    workload = select(name)[0]
    case = tiny(workload, variant)

    def off(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, *others = workload.library(*tensors, backend="eager")
        first = first.clone()
        first[-1, ..., -1] = 0 if variant == "empty" else first[-1, ..., -1] + 1
        return (first, *others)

    with pytest.raises(WrongResult):
        case.check(Side("wrong", "peer", off), FORWARD)


def test_random_results_are_checked_by_their_properties() -> None:
    workload = select("sample-reference")[0]
    case = tiny(workload, "coherent")

    def side(change: Callable[[torch.Tensor, torch.Tensor], object]) -> Side:
        def call(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            points, labels = workload.library(*tensors, backend="eager")
            change(points, labels)
            return points, labels

        return Side("side", "peer", call)

    def other_features(points: torch.Tensor, labels: torch.Tensor) -> None:
        points[0, 5, 0] += 1e-3

    def other_class(points: torch.Tensor, labels: torch.Tensor) -> None:
        points[0, :, 0] = points[0, :, labels[0] != labels[0, 0]][:, 0]

    def other_label(points: torch.Tensor, labels: torch.Tensor) -> None:
        labels[0, 0] += 1

    def twice(points: torch.Tensor, labels: torch.Tensor) -> None:
        points[0, :, 0] = points[0, :, 1]

    case.check(side(lambda points, labels: None), FORWARD)
    for change in (other_features, other_class, other_label, twice):
        with pytest.raises(WrongResult):
            case.check(side(change), FORWARD)


def test_peer_without_its_package_is_reported() -> None:
    absent = Peer(lambda mask: (mask,), package="no_such_package")
    workload = replace(select("distance-transform-davis")[0], peers={"absent": absent})
    (side,) = peer_sides(workload, "cpu")
    effort = measure.Effort(rounds=1, seconds=0)
    (row,) = run.measure_mode(tiny(workload, "random"), FORWARD, [side], "cpu", effort)
    assert row["problem"] == "not available: the package no_such_package is not installed"
    assert "ms" not in row


def test_peers_match_the_device() -> None:
    workload = select("distance-transform-davis")[0]
    names = {device: {side.name for side in peer_sides(workload, device)} for device in DEVICES}
    assert names == {"cpu": {"OpenCV precise", "edt", "SciPy"}, "cuda": {"CuPy"}}


def test_slow_backends_are_not_timed() -> None:
    workload = select("distance-transform-davis")[0]
    inputs = workload.inputs("random", shrink=SHRINK)
    assert "eager" in {side.name for side in library_sides(workload, inputs, slow=True)}
    assert "eager" not in {side.name for side in library_sides(workload, inputs)}


def test_time_limit_ends_the_rounds() -> None:
    effort = measure.Effort(rounds=1000, seconds=0, least=3)
    spread = measure.in_turn({"nothing": lambda: None}, measure.Clock("cpu"), effort)["nothing"]
    assert spread.rounds == 3
    assert 0 <= spread.p20 <= spread.p50 <= spread.p80


@pytest.mark.keeps_memory
def test_extra_memory_is_what_a_call_allocates() -> None:
    extra = measure.extra_memory(lambda: torch.ones(32 * measure.MIB // 4), "cpu")
    if extra is None:
        pytest.skip("this system does not report it")
    assert 31 < extra < 40
