"""The growth study, and plots that match the committed results."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

import pixelkernels as pk
from benchmarks import growth, measure, plots, summary
from benchmarks.growth import SERIES, Series
from benchmarks.plots import spread
from benchmarks.run import RESULTS
from benchmarks.workload import BOTH, FORWARD

pytestmark = pytest.mark.slow

TINY = {
    "region-stats-pixels": (16, 64),
    "region-stats-channels": (2, 3),
    "region-stats-regions": (2, 5),
    "distance-transform-pixels": (64, 256),
    "next-click-pixels": (1024, 4096),
    "click-maps-clicks": (2, 8),
    "label-transfer-points": (4, 8),
    "label-transfer-pixels": (16, 64),
    "matching-scores-points": (4, 8),
    "matching-scores-pixels": (16, 64),
    "is-triplet-loss-samples": (4, 8),
    "pair-loss-pixels": (16, 32),
}


def rows(power: float, factor: float = 3.0) -> list[dict[str, Any]]:
    values = (10, 20, 40, 80, 160)
    return [{"value": v, "ms": factor * v**power, "extra_mib": v**power} for v in values]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_of_a_power_law_is_its_power(power: float) -> None:
    assert growth.exponent(rows(power), "ms") == pytest.approx(power, abs=1e-12)


def test_memory_below_the_resolution_does_not_count_as_growth() -> None:
    found = [row | {"extra_mib": 1e-3 * row["value"]} for row in rows(1)]
    assert growth.fits(found)["memory_exponent"] == 0
    found[2]["extra_mib"] = None
    assert growth.fits(found)["memory_exponent"] is None


def test_exponents_above_their_bound_are_listed() -> None:
    about = {"name": "n", "variable": "HW", "theory": 1, "memory_theory": 1}
    assert growth.above(about | growth.fits(rows(1 + 0.9 * growth.TOLERANCE))) == []
    slow = growth.fits(rows(1.2))
    assert [line.split(" grows")[0] for line in growth.above(about | slow)] == [
        "n: time",
        "n: extra memory",
    ]
    assert growth.above(about | slow | {"memory_exponent": None, "theory": 2}) == []


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.name)
def test_series_call_public_functions_at_geometric_values(series: Series) -> None:
    assert series.op in pk.__all__
    assert series.mode in (FORWARD, BOTH)
    assert len(series.values) == 5
    # about geometric, so that the fit weights all values equally
    steps = [math.log(high / low) for low, high in itertools.pairwise(series.values)]
    assert min(steps) > 0.9 * max(steps)
    assert [each.name for each in SERIES].count(series.name) == 1


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.name)
def test_every_series_runs(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(growth.EFFORT, "cpu", measure.Effort(rounds=1, seconds=1))
    monkeypatch.setattr(measure, "extra_memory", lambda call, device: 1.0)
    found = growth.measured(replace(series, values=TINY[series.name], images=1), "cpu")
    assert [row["value"] for row in found["rows"]] == list(TINY[series.name])
    assert all(0 < row["p20"] <= row["ms"] <= row["p80"] for row in found["rows"])
    assert math.isfinite(found["exponent"])
    assert json.loads(json.dumps(found)) == found


def test_committed_exponents_are_within_their_bounds() -> None:
    for path in RESULTS.glob("*/scaling/scaling.json"):
        series = json.loads(path.read_text())["series"]
        assert {found["name"] for found in series} == {each.name for each in SERIES}
        for found in series:
            for name, value in growth.fits(found["rows"]).items():
                assert found[name] == pytest.approx(value)
            assert growth.above(found) == []


def family(name: str, names: list[str]) -> dict[str, Any]:
    """Results of a family whose workloads have both passes and two inputs."""
    environment = {"device": "cpu", "machine": "A CPU", "torch": "2", "torch_threads": 2}
    found = []
    for number, workload in enumerate(names, 1):
        for variant, mode in itertools.product(("first", "second"), (FORWARD, BOTH)):
            about = {"workload": workload, "title": workload, "variant": variant, "mode": mode}
            floor = {"floor_bytes": 10**6, "floor_operations": 10 ** (4 + number)}
            ours = {"default": True, "name": "cpu", "ms": {"p50": 1.0}, "share_of_floor": 0.5}
            peer = {"best_peer": "eager", "times_faster": 0.5 + number, "extra_mib": 2.0}
            found.append(about | floor | ours | peer)
            other = {"default": False, "name": "eager", "ms": {"p50": 2.0}, "extra_mib": 6.0}
            found.append(about | floor | other)
    ceilings = {"copy_bytes_per_second": 3e10, "float32_operations_per_second": 2e11}
    return {
        "environment": environment | {"commit": name},
        "ceilings": ceilings,
        "rows": found,
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(plots.STYLE, "savefig.dpi", 40)
    monkeypatch.setattr(summary, "WORKLOADS", ("a", "c"))
    machine = tmp_path / "a-cpu"
    (machine / "scaling").mkdir(parents=True)
    for name, names in {"regions": ["a", "b"], "distance": ["c"]}.items():
        (machine / f"{name}.json").write_text(json.dumps(family(name, names)))
    timed = [row | {"p20": row["ms"], "p80": row["ms"]} for row in rows(1)]
    about = {"op": "region_stats", "mode": BOTH, "variable": "HW", "fixed": "C 16"}
    series = about | {"theory": 1, "memory_theory": 1, "rows": timed} | growth.fits(timed)
    grown = {"environment": family("x", [])["environment"], "series": [series]}
    (machine / "scaling" / "scaling.json").write_text(json.dumps(grown))
    return tmp_path


def change(path: Path) -> None:
    content = json.loads(path.read_text())
    content["environment"]["torch"] = "3"
    path.write_text(json.dumps(content))


def test_plots_are_out_of_date_when_results_change(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results / "a-cpu" / "plots"
    names = {f"a-cpu/plots/{name}{form}" for name in plots.DRAW for form in plots.FORMS}
    assert set(plots.update(results, check=True)) == names
    assert not folder.exists()
    assert set(plots.update(results, check=False)) == names
    assert plots.update(results, check=True) == []
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert min(map(len, before.values())) > 1000

    change(results / "a-cpu" / "scaling" / "scaling.json")
    growth = {f"scaling{form}" for form in plots.FORMS}
    assert set(plots.update(results, check=True)) == {f"a-cpu/plots/{name}" for name in growth}
    plots.update(results, check=False)
    # the same results give the same bytes
    assert {n for n, drawn in before.items() if (folder / n).read_bytes() != drawn} == growth

    change(results / "a-cpu" / "distance.json")
    families = names - {f"a-cpu/plots/{name}" for name in growth}
    assert set(plots.update(results, check=True)) == families

    (results / "a-cpu" / "scaling" / "scaling.json").unlink()
    assert set(plots.update(results, check=True)) == names
    monkeypatch.setattr(plots, "write", lambda *_: None)
    plots.update(results, check=False)
    assert {path.stem for path in folder.iterdir()} == {"summary", "speed", "roofline"}


def test_summary_has_two_bars_per_chosen_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "WORKLOADS", ("a", "c"))
    found = {"regions": family("regions", ["a", "b"]), "distance": family("distance", ["c"])}
    (axes,) = plots.summary(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c"]
    # times faster, then times less memory
    assert [text.get_text() for text in axes.texts] == ["1.5", "3.0", "1.5", "3.0"]


def test_command_lists_plots_that_are_out_of_date(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plots, "RESULTS", results)
    monkeypatch.setattr(plots, "write", lambda *_: None)
    assert plots.main(["--check"]) == 1
    assert "a-cpu/plots/speed.png: out of date" in capsys.readouterr().out
    assert plots.main([]) == 0


def test_labels_move_only_as_far_as_needed() -> None:
    assert spread([0.0, 5.0, 9.0], 1) == [0, 5, 9]
    assert spread([1.0, 1.0, 1.0, 9.0], 1) == pytest.approx([0, 1, 2, 9])
    assert spread([], 1) == []
