"""python -m pixelkernels bench: what it measures, prints and writes, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import compare, environment, measure, run
from benchmarks.peers import Peer
from benchmarks.registry import FAMILIES, WORKLOADS, select
from benchmarks.workload import BOTH, FORWARD
from pixelkernels import bench
from pixelkernels.__main__ import main


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> str:
    """One workload, small and with one peer, and a machine that needs no measuring."""
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
def test_it_prints_and_writes_what_it_measured(
    stub, tmp_path, monkeypatch, capsys, arguments, rounds, variants
):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    out = tmp_path / environment.slug(environment.cpu_name()) / "distance.json"
    if "--full" not in arguments:
        out = tmp_path / "rows.json"
        arguments = [*arguments, "--out", str(out)]
    assert main(["bench", *arguments]) == 0
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


def test_a_short_run_times_long_calls_once(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "LONG", 0)
    out = tmp_path / "rows.json"
    assert main(["bench", "--out", str(out)]) == 0
    timed = [row for row in json.loads(out.read_text())["rows"] if "ms" in row]
    assert {row["ms"]["rounds"] for row in timed} == {1}
    assert all("extra_mib" in row and row["ms"]["p50"] > 0 for row in timed)


def test_a_run_ends_with_its_time(stub, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert main(["bench", "--minutes", "-1", "--out", str(out)]) == 0
    assert f"not measured, out of time: {stub}" in capsys.readouterr().out
    assert not out.exists()


def test_a_short_run_has_every_workload_and_begins_with_the_quick_ones():
    chosen = run.chosen(run.parse([]))
    assert set(chosen) == set(WORKLOADS)
    quick = [workload.quick for workload in chosen]
    assert quick == sorted(quick, reverse=True)
    assert run.chosen(run.parse(["--full"])) == list(WORKLOADS)


def result(name: str, side: str, ms: float | None, **more: object) -> run.Row:
    about = {"workload": "w", "family": "regions", "variant": "coherent", "mode": BOTH}
    row = about | {"name": name, "side": side, "default": name == "cpu", "extra_mib": 2.0}
    if ms is None:
        return row | {"problem": "output 0 is off"}
    return row | {"ms": {"p20": ms, "p50": ms, "p80": ms, "rounds": 5}} | more


def test_the_table_says_how_many_times_faster_than_each_peer():
    rows = [
        result("cpu", "library", 2.0),
        result("eager", "library", 16.0),
        result("one", "peer", 8.0),
        result("other", "peer", 12.0),
        result("wrong", "peer", None),
    ]
    run.judge(rows, floor_ms=1.0)
    lines = [line.split() for line in run.table(rows).splitlines()[1:]]
    assert lines[0][:3] == ["*", "cpu,", "default"]
    assert lines[0][-3:] == ["4.00", "2.0", "50%"]
    assert lines[1][0] == "one"
    assert [line[-3] for line in lines[1:4]] == ["4.00", "6.00", "0.50"]
    assert " ".join(lines[4]) == "wrong not timed: output 0 is off"


def write(path: Path, *rows: run.Row) -> Path:
    path.parent.mkdir(exist_ok=True)
    run.write(path, {"machine": "Some CPU", "commit": "0123"}, {}, list(rows), [])
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    other = {"family": "distance", "workload": "d", "mode": FORWARD}
    before, after = tmp_path / "before", tmp_path / "after"
    write(
        before / "regions.json",
        result("cpu", "library", 2.0),
        result("eager", "library", 8.0),
        result("one", "peer", 8.0),
        result("gone", "peer", 1.0),
    )
    write(before / "distance.json", result("cpu", "library", 1.0) | other)
    write(
        after / "regions.json",
        result("cpu", "library", 1.0) | {"extra_mib": None},
        result("eager", "library", 16.0),
        result("one", "peer", None),
    )
    write(after / "distance.json", result("cpu", "library", 3.0) | other)
    return before, after


def test_two_results_beside_each_other(two, capsys):
    assert main(["bench", "--compare", *map(str, two)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"A: {two[0]}/distance.json: machine Some CPU, commit 0123" in lines
    for line in (
        "w, coherent, forward+backward",
        "* cpu 2.000 1.000 0.50 2.0 -",
        "* eager 8.000 16.000 2.00 2.0 2.0",
        "one 8.000 not timed - 2.0 2.0",
        "distance 3.000 1 - 0",
        "regions 1.000 2 - 0",
    ):
        assert line in lines
    assert lines[lines.index("only in A:") + 1] == "w, coherent, forward+backward: gone"
    assert "only in B:" not in lines


def test_files_without_a_common_row(tmp_path):
    a = write(tmp_path / "a.json", result("cpu", "library", 1.0))
    b = write(tmp_path / "b.json", result("cpu", "library", 1.0) | {"workload": "v"})
    text = compare.comparison(a, b)
    assert "nothing is in both" in text
    assert "only in B:\n  v, coherent, forward+backward: cpu" in text


def test_what_is_no_result(two, tmp_path, capsys):
    text = tmp_path / "text.json"
    text.write_text('{"rows": []}')
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "none.json", "there is no such file or folder"),
        (tmp_path / "empty", "the folder has no result files"),
        (text, "expected a file that benchmarks/run.py wrote"),
    ):
        assert main(["bench", "--compare", str(two[0]), str(path)]) == 2
        assert f"bench: --compare {path}: {reason}" in capsys.readouterr().err
    (two[0] / "again.json").write_text((two[0] / "regions.json").read_text())
    assert main(["bench", "--compare", *map(str, two)]) == 2
    assert "regions.json: w coherent forward+backward cpu is in another" in capsys.readouterr().err


def test_it_refuses_what_it_cannot_do(monkeypatch, tmp_path, capsys):
    def refused(*arguments: str) -> str:
        assert main(["bench", *arguments]) == 2
        return capsys.readouterr().err.removeprefix("python -m pixelkernels bench: ").rstrip()

    assert refused("--only", "nothing").startswith("--only: no workload matches 'nothing'")
    assert refused("--quick", "--only", "cas-r2").startswith("--quick --only: no workload")
    compared = ("--compare", "a", "b")
    assert refused(*compared, "--out", "c").startswith("--out: not with --compare")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert refused("--device", "cuda") == "--device cuda: torch sees no GPU"
    with monkeypatch.context() as patch:
        patch.setattr(bench, "ROOT", tmp_path)
        assert "from a checkout of the repository" in refused()
    with monkeypatch.context() as patch:
        patch.delattr("benchmarks.run")
        patch.delitem(sys.modules, "benchmarks.run")
        patch.setitem(sys.modules, "tqdm", None)
        assert refused() == "it needs tqdm: pip install 'pixelkernels[bench]'"
    for arguments, named in (
        (["--quick", "--full"], "--full: not allowed with argument --quick"),
        (["--full", *compared], "--compare: not allowed with argument --full"),
        (["--family", "unknown"], "--family: invalid choice"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", *arguments])
        assert f"argument {named}" in capsys.readouterr().err


def test_options_name_the_families_that_there_are():
    assert bench.FAMILIES == FAMILIES


def test_it_runs_from_elsewhere(two, tmp_path):
    """Also where the working directory has benchmarks of its own."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise AssertionError('not these')")
    done = subprocess.run(
        [sys.executable, "-m", "pixelkernels", "bench", "--compare", *map(str, two)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(bench.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "geometric mean" in done.stdout
