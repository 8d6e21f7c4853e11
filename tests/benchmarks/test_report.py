"""Tables generated from result files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from benchmarks import report, summary
from benchmarks.ops import FAMILIES
from benchmarks.tables import NOTHING, Row, cores
from benchmarks.workload import BOTH, FORWARD

TABLES = "docs/benchmarks.md"


def row(name: str, side: str, ms: float, **more: object) -> Row:
    spread = {"p20": ms * 0.9, "p50": ms, "p80": ms * 1.1, "rounds": 5}
    about = {"title": "a workload", "workload": "w", "variant": "coherent", "mode": BOTH}
    measured = {"name": name, "side": side, "default": False, "ms": spread, "extra_mib": 2.0}
    return about | measured | more


OURS = {"default": True, "best_peer": "eager loop", "times_faster": 3.0, "share_of_floor": 0.3}
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
        row("cpu", "library", 4.0, **OURS),
    ],
}


def with_results(repository: Path, name: str, content: object, page: str = TABLES) -> str:
    """A page generated from the results and those of one more file."""
    path = repository / "benchmarks" / "results" / "some-cpu" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    report.update(repository, check=False)
    return (repository / page).read_text()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(summary, "MACHINE", "some-cpu")
    monkeypatch.setattr(summary, "DROP_INS_MACHINE", "some-cpu")
    monkeypatch.setattr(summary, "WORKLOADS", ("w",))
    results = tmp_path / "benchmarks" / "results"
    (results / "some-cpu").mkdir(parents=True)
    (results / "some-cpu" / "regions.json").write_text(json.dumps(CONTENT))
    marked = "<!-- {0}:begin -->\nold\n<!-- {0}:end -->\n\n"
    front = "".join(map(marked.format, ("why", "speed", "drop-ins")))
    (tmp_path / "README.md").write_text(f"before\n\n{front}after\n")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "models.md").write_text(marked.format("models"))
    (docs / "drop-ins.md").write_text(marked.format("compat"))
    for page in (results / "README.md", *(docs / f"{n}.md" for n in ("benchmarks", *FAMILIES))):
        page.write_text(f"before\n\n{marked.format('benchmarks')}after\n")
    tables = tmp_path / TABLES
    more = "".join(map(marked.format, ("sweep", "cores")))
    tables.write_text(tables.read_text().replace("before\n\n", f"before\n\n{more}"))
    return tmp_path


def test_pages_are_generated_from_results(repository: Path) -> None:
    pages = ["README.md", TABLES, "docs/models.md", "docs/drop-ins.md"]
    pages.append("benchmarks/results/README.md")
    pages += [f"docs/{name}.md" for name in FAMILIES]
    assert report.update(repository, check=True) == pages
    assert report.update(repository, check=False) == pages
    assert report.update(repository, check=True) == []
    text = (repository / TABLES).read_text()
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nafter\n")
    assert (
        "**Some CPU** (2 threads, torch 2.11.0, commit 0123456789ab, date 2026-11-21 10:00 UTC)"
        in text
    )
    assert "| a workload | eager loop | 12.00 | 4.00 | 3.00 | 2.0 | 2.0 | 30% |" in text
    full = (repository / "benchmarks" / "results" / "README.md").read_text()
    assert "## some-cpu/regions" in full
    assert "- commit: 0123456789ab" in full
    assert "Not measured: cas-r100." in full


def test_shares_of_the_floor_stand_by_threads(tmp_path: Path) -> None:
    for threads in (1, 2):
        folder = tmp_path / "some-cpu" / "cores" / f"{threads}-threads"
        folder.mkdir(parents=True)
        facts = {**CONTENT["environment"], "torch_threads": threads}
        (folder / "regions.json").write_text(json.dumps({**CONTENT, "environment": facts}))
    text = cores(tmp_path)
    assert "| workload | mode | 1 thread, ms | of floor | 2 threads, ms | of floor |" in text
    assert "| 4.00 | 30% | 4.00 | 30% |" in text


def test_each_family_page_has_its_own_tables(repository: Path) -> None:
    report.update(repository, check=False)
    pages = {name: (repository / "docs" / f"{name}.md").read_text() for name in FAMILIES}
    assert [name for name, page in pages.items() if "| a workload |" in page] == ["regions"]
    assert NOTHING in pages["triplet"]


def test_untimed_side_is_listed_with_its_reason(repository: Path) -> None:
    content = copy.deepcopy(CONTENT)
    ours = content["rows"][1]
    del ours["ms"]
    ours["problem"] = "output 0 is off"
    assert "not timed: output 0 is off" in with_results(repository, "regions.json", content)


def test_forward_pass_is_shown_only_without_a_backward_pass(repository: Path) -> None:
    content = copy.deepcopy(CONTENT)
    ours = {"default": True, "share_of_floor": 0.5}
    for variant, ms in (("random", 2.0), ("full", 3.0)):
        about = {"workload": "t", "title": "a transform", "variant": variant, "mode": FORWARD}
        content["rows"].append(row("cpu", "library", ms, **about, **ours))
    content["rows"].append(row("cpu", "library", 1.0, mode=FORWARD, **ours))
    text = with_results(repository, "regions.json", content)
    both, forward = text.split("| forward | best peer |")
    assert both.count("a workload") == 1
    assert "a workload" not in forward
    assert "| a transform | none |  | 2.00 |  |  | 2.0 | 50% |" in forward
    assert forward.count("a transform") == 1


def test_missing_results_and_missing_markers(repository: Path) -> None:
    (repository / "benchmarks" / "results" / "some-cpu" / "regions.json").unlink()
    report.update(repository, check=False)
    for page in ("README.md", TABLES):
        assert NOTHING in (repository / page).read_text()
    (repository / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match=r"README.md: expected one line <!-- why:begin -->"):
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


def test_tables_of_the_networks(repository: Path) -> None:
    text = with_results(repository, "models/models.json", NETWORKS, "docs/models.md")
    for line in (
        "| `MEnet` | 3 | 5 | 2 | 1.5 to 0.25 | 0.900 | 2e-07 |",
        "| `CASNet` | 30 | 20 | 1.50 | 10 | 3 |",
        "| CAS | 0.850 ± 0.071 |",
        "| Dice + IS-Triplet | 0.600 ± 0.141 |",
        "| none | 0.300 | 0.600 | 75% |",
    ):
        assert line in text


DROP_IN = {
    "project": "RITM", "function": "DistMaps", "ours_is": "ritm.DistMaps", "sizes": "2 images",
    "differs": "none", "theirs_ms": 9.0, "ours_ms": 2.0, "theirs_mib": 30.0, "ours_mib": 1.0,
    "differences": {"values": 1.2e-7, "gradients": 0.0}, "signature": True, "tolerance": 1e-6,
}  # fmt: skip


def test_table_of_the_drop_ins(repository: Path) -> None:
    drawn = {**DROP_IN, "ours_is": "ritm.get_next_points", "differences": {}}
    content = {"environment": CONTENT["environment"], "rows": [DROP_IN, drawn]}
    text = with_results(repository, "compat/compat.json", content, "docs/drop-ins.md")
    times = "9.00 | 2.00 | 4.5 | 30.0 | 1.0 | none |"
    compared = "values, gradients, signature | 2 images | values 1e-07, gradients 0"
    assert f"| RITM | DistMaps | `ritm.DistMaps` | {compared} | {times}" in text
    assert f"| `ritm.get_next_points` | signature | 2 images | random draws | {times}" in text
    readme = (repository / "README.md").read_text()
    assert "| RITM | `DistMaps` | 4.5 | 30 | 1 | 1e-07 |" in readme


def test_readme_has_a_number_for_each_reason(repository: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["rows"] += [
        row("eager", "peer", 1.0, workload="slow", extra_mib=8.0, share_of_floor=0.5),
        row("cpu", "library", 4.0, **OURS, workload="slow")
        | {"times_faster": 0.75, "best_peer": "eager", "extra_mib": 1.0},
    ]
    with_results(repository, "regions.json", content)
    approximate = DROP_IN | {"ours_is": "kornia.f", "differences": {"values": 0.3}, "ours_ms": 1.0}
    originals = {"environment": CONTENT["environment"], "rows": [DROP_IN]}
    originals["rows"] = [DROP_IN, approximate | {"tolerance": None}]
    text = with_results(repository, "compat/compat.json", originals, "README.md")
    # the geometric means of 3 and 0.75, and of 1 and 1/8
    assert "1.5 times as fast" in text
    assert "of 2 workloads, from 0.75 to 3, on Some CPU with 2 threads" in text
    assert "35% of the extra memory" in text
    assert "by at most 1e-07 of the largest entry" in text
    assert "2 functions and classes" in text
    assert "7 times faster in the median, on Some CPU" in text


def test_speed_in_readme_shows_chosen_workloads_and_counts_all(repository: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["rows"] += [
        row("eager", "peer", 1.0, workload="slow", title="another", share_of_floor=0.5),
        row("cpu", "library", 4.0, **OURS, workload="slow", title="another")
        | {"times_faster": 0.25, "best_peer": "eager"},
    ]
    text = with_results(repository, "regions.json", content, "README.md")
    assert "| a workload | eager loop | 12.00 | 4.00 | 3.0 | 2.0 | 2.0 |" in text
    assert "| another |" not in text
    assert "Of all 2 workloads measured there, 1 is slower than the best peer." in text
    assert "/benchmarks/results/some-cpu/plots/summary.png)" in text


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_readme_says_what_was_measured_until_a_gpu_was(repository: Path, device: str) -> None:
    content = copy.deepcopy(CONTENT)
    content["environment"]["device"] = device
    originals = {"environment": CONTENT["environment"], "rows": [DROP_IN]}
    with_results(repository, "compat/compat.json", originals)
    text = with_results(repository, "triplet.json", content, "README.md")
    assert (summary.ON_CPU_ONLY in text) == (device == "cpu")
