"""python -m benchmarks.run: what it prints and writes, and which options it rejects."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import environment, measure, run
from benchmarks.ops import FAMILIES, WORKLOADS, select
from benchmarks.workload import BOTH, Peer

pytestmark = pytest.mark.slow


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> str:
    """One small workload with one peer, and fixed ceilings."""
    real = select("distance-transform-davis")[0]

    def eager(mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return real.library(mask, backend="eager")

    small = replace(
        real,
        variants=real.variants[:2],
        draw=lambda variant, generator, shrink: real.draw(variant, generator, 32),
        peers={"plain": Peer(eager), "absent": Peer(eager, package="no_such_package")},
        slow=("triton",),
    )
    ceilings = {"copy_bytes_per_second": 1e10, "float32_operations_per_second": 1e11}
    monkeypatch.setattr(run, "select", lambda *_, **__: [small])
    monkeypatch.setattr(measure, "ceilings", lambda device: ceilings)
    monkeypatch.setattr(measure, "SETTLE", 0)
    return small.name


@pytest.mark.parametrize(
    ("arguments", "rounds", "variants"),
    [([], 11, 1), (["--quick"], 3, 1), (["--full"], 21, 2)],
)
def test_run_prints_and_writes_its_measurements(
    stub, tmp_path, monkeypatch, capsys, arguments, rounds, variants
):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    out = tmp_path / environment.slug(environment.cpu_name()) / "distance.json"
    if "--full" not in arguments:
        out = tmp_path / "rows.json"
        arguments = [*arguments, "--out", str(out)]
    assert run.main(arguments) == 0
    content = json.loads(out.read_text())
    assert content["not_measured"] == []
    timed = [row for row in content["rows"] if "ms" in row]
    assert {row["ms"]["rounds"] for row in timed} == {rounds}
    assert {row["name"] for row in timed} >= {"eager", "plain"}
    assert len({row["variant"] for row in timed}) == variants
    printed = capsys.readouterr().out
    for text in ("times faster", "* eager", "  plain", "extra MiB", "of floor", f"written: {out}"):
        assert text in printed
    assert "absent not timed: not available: the package no_such_package" in printed


def test_default_run_times_long_calls_once(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "LONG", 0)
    out = tmp_path / "rows.json"
    assert run.main(["--out", str(out)]) == 0
    timed = [row for row in json.loads(out.read_text())["rows"] if "ms" in row]
    assert {row["ms"]["rounds"] for row in timed} == {1}
    assert all("extra_mib" in row and row["ms"]["p50"] > 0 for row in timed)


def test_no_workload_starts_after_the_time_limit(stub, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert run.main(["--minutes", "-1", "--out", str(out)]) == 0
    assert f"not measured, out of time: {stub}" in capsys.readouterr().out
    assert not out.exists()


def test_default_run_covers_every_workload_and_starts_with_the_quick_ones():
    _, chosen = run.parse([])
    assert set(chosen) == set(WORKLOADS)
    quick = [workload.quick for workload in chosen]
    assert quick == sorted(quick, reverse=True)
    assert run.parse(["--full"])[1] == list(WORKLOADS)


def result(name: str, side: str, ms: float | None, **more: object) -> run.Row:
    about = {"workload": "w", "family": "regions", "variant": "coherent", "mode": BOTH}
    row = about | {"name": name, "side": side, "default": name == "cpu", "extra_mib": 2.0}
    if ms is None:
        return row | {"problem": "output 0 is off"}
    return row | {"ms": {"p20": ms, "p50": ms, "p80": ms, "rounds": 5}} | more


def test_table_compares_the_default_backend_with_every_peer():
    rows = [
        result("cpu", "library", 2.0),
        result("eager", "library", 16.0),
        result("one", "peer", 8.0),
        result("other", "peer", 12.0),
        result("wrong", "peer", None),
    ]
    run.add_ratios(rows, floor_ms=1.0)
    lines = [line.split() for line in run.table(rows).splitlines()[1:]]
    assert lines[0][:3] == ["*", "cpu,", "default"]
    assert lines[0][-3:] == ["4.00", "2.0", "50%"]
    assert lines[1][0] == "one"
    assert [line[-3] for line in lines[1:4]] == ["4.00", "6.00", "0.50"]
    assert " ".join(lines[4]) == "wrong not timed: output 0 is off"


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
def test_results_are_written_only_by_full_runs_or_with_out(
    arguments: list[str], files: set[str]
) -> None:
    options, workloads = run.parse(arguments)
    families = {workload.family for workload in workloads}
    outputs = run.destinations(options, families, "Some CPU")
    assert {path.name for path in outputs.values()} == files


def test_selection_by_name_family_and_quick() -> None:
    assert {w.name for w in select("cas")} == {"cas-r2", "cas-r20", "cas-r100"}
    assert all(workload.quick for workload in select(quick=True))
    assert {w.family for w in select(family="distance")} == {"distance"}
    assert {w.family for w in select(quick=True)} == set(FAMILIES)
    assert select("nothing") == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--only", "nothing"], "no workload matches the options; there are region-stats-menet"),
        (["--quick", "--only", "cas-r2"], "no workload matches"),
        (["--device", "cuda"], "--device cuda: torch sees no GPU"),
        (["--quick", "--full"], "--full: not allowed with argument --quick"),
        (["--family", "unknown"], "argument --family: invalid choice"),
    ],
)
def test_options_that_cannot_be_served_are_rejected(arguments, reason, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run.main(arguments)
    assert reason in capsys.readouterr().err
