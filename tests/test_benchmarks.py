"""Benchmarks compare what computes the same, and the report is what the results say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import measure, report, run
from benchmarks.case import Case, Side, WrongResult, library_sides, peer_sides
from benchmarks.peers import Peer
from benchmarks.registry import FAMILIES, WORKLOADS, select
from benchmarks.workload import BOTH, FORWARD, Workload

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
    if variant != "empty":  # where there is nothing to measure from, peers differ
        sides += peer_sides(workload, "cpu", compiled=False)
    for side in sides:
        for mode in () if side.missing else workload.modes:
            case.check(side, mode)


@pytest.mark.parametrize(("workload", "variant"), VARIANTS)
def test_what_has_a_gradient_is_nowhere_only_zeros(workload: Workload, variant: str) -> None:
    """Zeros are right whatever a side computes."""
    if BOTH in workload.modes:
        for exact in tiny(workload, variant)._exact:
            assert exact.count_nonzero() > 0


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_floors_are_positive_and_grow_with_the_backward_pass(workload: Workload) -> None:
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
    # one sum per class in place of its 100 points
    assert floors["label-transfer-prototypes"].operations == transfer.operations // 100
    assert floors["matching-scores-k200"].operations == 3 * transfer.operations
    # of 3x3 support pixels 4 are kept
    assert floors["prior-mask"].operations == 4 * 2 * 2048 * 9 * 4


@pytest.mark.parametrize(
    "name",
    [
        "region-stats-menet",
        "click-maps-ritm-tanh",
        "next-click",
        "label-transfer-k200",
        "prior-mask",
        "sample-reference",
    ],
)
def test_inputs_are_seeded(name: str) -> None:
    workload = select(name)[0]
    variant = workload.variants[0]
    first, second = (workload.inputs(variant, shrink=SHRINK).tensors for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_wrong_side_is_not_timed() -> None:
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


def test_random_results_are_held_to_what_they_promise() -> None:
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


def test_a_peer_without_its_package_is_reported() -> None:
    absent = Peer(lambda mask: (mask,), package="no_such_package")
    workload = replace(select("distance-transform-davis")[0], peers={"absent": absent})
    (side,) = peer_sides(workload, "cpu")
    effort = measure.Effort(rounds=1, seconds=0)
    (row,) = run.measure_mode(tiny(workload, "random"), FORWARD, [side], "cpu", effort)
    assert row["problem"] == "not available: the package no_such_package is not installed"
    assert "ms" not in row


def test_peers_are_those_of_the_device() -> None:
    workload = select("distance-transform-davis")[0]
    names = {device: {side.name for side in peer_sides(workload, device)} for device in DEVICES}
    assert names == {"cpu": {"OpenCV precise", "edt", "SciPy"}, "cuda": {"CuPy"}}


def test_slow_backends_are_not_timed() -> None:
    workload = select("distance-transform-davis")[0]
    inputs = workload.inputs("random", shrink=SHRINK)
    assert "eager" in {side.name for side in library_sides(workload, inputs, slow=True)}
    assert "eager" not in {side.name for side in library_sides(workload, inputs)}


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ([], set()),
        (["--full"], {f"{family}.json" for family in FAMILIES}),
        (["--full", "--family", "distance"], {"distance.json"}),
        (["--full", "--only", "cas"], set()),
        (["--quick"], set()),
        (["--only", "cas", "--out", "some.json"], {"some.json"}),
        (["--out", "folder"], {f"{family}.json" for family in FAMILIES}),
    ],
)
def test_where_results_go(arguments: list[str], files: set[str]) -> None:
    options = run.parse(arguments)
    families = {workload.family for workload in run.chosen(options)}
    outputs = run.targets(options, families, "Some CPU")
    assert {path.name for path in outputs.values()} == files


def test_selection() -> None:
    assert {w.name for w in select("cas")} == {"cas-r2", "cas-r20", "cas-r100"}
    assert all(workload.quick for workload in select(quick=True))
    assert {w.family for w in select(family="distance")} == {"distance"}
    assert {w.family for w in select(quick=True)} == set(FAMILIES)
    with pytest.raises(ValueError, match="no workload matches 'nothing'"):
        select("nothing")


def test_rounds_are_bounded_by_time() -> None:
    effort = measure.Effort(rounds=1000, seconds=0, least=3)
    spread = measure.in_turn({"nothing": lambda: None}, measure.Clock("cpu"), effort)["nothing"]
    assert spread.rounds == 3
    assert 0 <= spread.p20 <= spread.p50 <= spread.p80


@pytest.mark.keeps_memory
def test_extra_memory_is_what_a_call_allocates() -> None:
    extra = measure.extra_memory(lambda: torch.ones(32 * measure.MIB // 4), "cpu")
    if extra is None:
        pytest.skip("this system does not tell")
    assert 31 < extra < 40


def row(name: str, side: str, ms: float, **more: object) -> report.Row:
    spread = {"p20": ms * 0.9, "p50": ms, "p80": ms * 1.1, "rounds": 5}
    about = {"title": "a workload", "workload": "w", "variant": "coherent", "mode": BOTH}
    return about | {
        "name": name,
        "side": side,
        "default": False,
        "ms": spread,
        "extra_mib": 2.0,
        **more,
    }


CONTENT = {
    "environment": {
        "device": "cpu",
        "machine": "Some CPU",
        "torch_threads": 2,
        "torch": "2.11.0",
        "triton": None,
        "commit": "0123456789ab",
        "date": "2026-11-21 10:00 UTC",
    },
    "ceilings": {"copy_bytes_per_second": 2e10},
    "not_measured": ["cas-r100"],
    "rows": [
        row("eager loop", "peer", 12.0, share_of_floor=0.1),
        row(
            "cpu",
            "library",
            4.0,
            default=True,
            best_peer="eager loop",
            times_faster=3.0,
            share_of_floor=0.3,
        ),
    ],
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    results = tmp_path / "benchmarks" / "results"
    (results / "some-cpu").mkdir(parents=True)
    (results / "some-cpu" / "regions.json").write_text(json.dumps(CONTENT))
    marked = "<!-- {0}:begin -->\nold\n<!-- {0}:end -->\n\n"
    measured, *others = map(marked.format, ("benchmarks", "models", "compat", "targets"))
    (tmp_path / "README.md").write_text(f"before\n\n{''.join(others)}{measured}after\n")
    (tmp_path / "docs").mkdir()
    for page in (results / "README.md", *(tmp_path / "docs" / f"{name}.md" for name in FAMILIES)):
        page.write_text(f"before\n\n{measured}after\n")
    return tmp_path


def test_report_is_generated_and_stable(repository: Path) -> None:
    pages = ["README.md", "benchmarks/results/README.md", *(f"docs/{name}.md" for name in FAMILIES)]
    assert report.update(repository, check=True) == pages
    assert report.update(repository, check=False) == pages
    assert report.update(repository, check=True) == []
    text = (repository / "README.md").read_text()
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nafter\n")
    assert (
        "**Some CPU** (2 threads, torch 2.11.0, commit 0123456789ab, date 2026-11-21 10:00 UTC)"
        in text
    )
    assert "| a workload | eager loop | 12.00 | 4.00 | 3.00 | 2.0 | 2.0 | 30% |" in text
    full = (repository / pages[1]).read_text()
    assert "## some-cpu/regions" in full
    assert "- commit: 0123456789ab" in full
    assert "not measured |" in text.split("<!-- targets:begin -->")[1]
    assert "Not measured: cas-r100." in full


def test_report_gives_each_family_its_page(repository: Path) -> None:
    report.update(repository, check=False)
    pages = {name: (repository / "docs" / f"{name}.md").read_text() for name in FAMILIES}
    assert [name for name, page in pages.items() if "| a workload |" in page] == ["regions"]
    assert report.NOTHING in pages["triplet"]


def test_report_says_what_was_not_timed(repository: Path) -> None:
    content = copy.deepcopy(CONTENT)
    ours = content["rows"][1]
    del ours["ms"]
    ours["problem"] = "output 0 is off"
    path = repository / "benchmarks" / "results" / "some-cpu" / "regions.json"
    path.write_text(json.dumps(content))
    report.update(repository, check=False)
    assert "not timed: output 0 is off" in (repository / "README.md").read_text()


def test_report_shows_workloads_without_a_backward_pass_by_their_forward_pass(
    repository: Path,
) -> None:
    content = copy.deepcopy(CONTENT)
    ours = {"default": True, "share_of_floor": 0.5}
    for variant, ms in (("random", 2.0), ("full", 3.0)):
        about = {"workload": "t", "title": "a transform", "variant": variant, "mode": FORWARD}
        content["rows"].append(row("cpu", "library", ms, **about, **ours))
    # the forward pass of a workload that has both is left to the full table
    content["rows"].append(row("cpu", "library", 1.0, mode=FORWARD, **ours))
    path = repository / "benchmarks" / "results" / "some-cpu" / "regions.json"
    path.write_text(json.dumps(content))
    report.update(repository, check=False)
    text = (repository / "README.md").read_text()
    both, forward = text.split("| forward | best peer |")
    assert both.count("a workload") == 1
    assert "a workload" not in forward
    assert "| a transform | none |  | 2.00 |  |  | 2.0 | 50% |" in forward
    assert forward.count("a transform") == 1


def test_report_without_results_or_markers(repository: Path) -> None:
    (repository / "benchmarks" / "results" / "some-cpu" / "regions.json").unlink()
    report.update(repository, check=False)
    assert report.NOTHING in (repository / "README.md").read_text()
    (repository / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match=r"README.md: expected one line <!-- benchmarks:begin -->"):
        report.update(repository, check=True)


NETWORKS = {
    "environment": {"machine": "Some CPU", "torch_threads": 2, "torch": "2.11.0", "commit": "01"},
    "size": [8, 9],
    "overfit": [
        {"model": "menet", "images": 3, "steps": 5, "seconds": 2.4, "first_loss": 1.5,
         "last_loss": 0.25, "iou": 0.9, "largest_relative_difference": 2e-7},
    ],
    "step_costs": [
        {"model": "cas", "eager_ms": 30.0, "default_ms": 20.0, "eager_mib": 9.6,
         "default_mib": 3.2},
    ],
    "flipped_labels": [{"loss": "cas", "iou": [0.8, 0.9]}],
    "with_triplets": [{"triplet_weight": 1.0, "steps": [30], "iou": [[0.5], [0.7]]}],
    "over_clicks": [{"refinement": None, "iou": [0.3, 0.6], "clicked_pixels_right": [0.5, 0.75]}],
}  # fmt: skip


def test_report_of_the_networks(repository: Path) -> None:
    folder = repository / "benchmarks" / "results" / "some-cpu" / "models"
    folder.mkdir()
    (folder / "models.json").write_text(json.dumps(NETWORKS))
    report.update(repository, check=False)
    text = (repository / "README.md").read_text()
    for line in (
        "| `MEnet` | 3 | 5 | 2 | 1.5 to 0.25 | 0.900 | 2e-07 |",
        "| `CASNet` | 30 | 20 | 1.50 | 10 | 3 |",
        "| CAS | 0.850 ± 0.071 |",
        "| Dice + IS-Triplet | 0.600 ± 0.141 |",
        "| none | 0.300 | 0.600 | 75% |",
    ):
        assert line in text


def test_report_of_the_drop_ins(repository: Path) -> None:
    folder = repository / "benchmarks" / "results" / "some-cpu" / "compat"
    folder.mkdir()
    drop_in = {
        "project": "RITM", "function": "DistMaps", "ours_is": "ritm.DistMaps", "sizes": "2 images",
        "differs": "none", "theirs_ms": 9.0, "ours_ms": 2.0, "theirs_mib": 30.0, "ours_mib": 1.0,
    }  # fmt: skip
    content = {"environment": CONTENT["environment"], "rows": [drop_in]}
    (folder / "compat.json").write_text(json.dumps(content))
    report.update(repository, check=False)
    line = (
        "| RITM | DistMaps | `ritm.DistMaps` | 2 images | 9.00 | 2.00 | 4.5 | 30.0 | 1.0 | none |"
    )
    assert line in (repository / "README.md").read_text()
