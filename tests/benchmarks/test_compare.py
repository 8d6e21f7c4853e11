"""Two result files side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import compare, run
from benchmarks.workload import FORWARD
from tests.benchmarks.test_run import result


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


def test_rows_are_joined_and_their_ratios_averaged(two, capsys):
    assert compare.main([*map(str, two)]) == 0
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


def test_rows_of_one_file_alone_are_listed(tmp_path):
    a = write(tmp_path / "a.json", result("cpu", "library", 1.0))
    b = write(tmp_path / "b.json", result("cpu", "library", 1.0) | {"workload": "v"})
    text = compare.comparison(a, b)
    assert "no row is in both" in text
    assert "only in B:\n  v, coherent, forward+backward: cpu" in text


def test_unreadable_results_are_rejected(two, tmp_path, capsys):
    text = tmp_path / "text.json"
    text.write_text('{"rows": []}')
    (tmp_path / "empty").mkdir()
    (two[1] / "again.json").write_text((two[1] / "regions.json").read_text())
    for path, reason in (
        (tmp_path / "none.json", f"{tmp_path / 'none.json'}: there is no such file or folder"),
        (tmp_path / "empty", "the folder has no result files"),
        (text, "expected a file written by benchmarks.run"),
        (two[1], "regions.json: w coherent forward+backward cpu is in another"),
    ):
        with pytest.raises(SystemExit, match="2"):
            compare.main([str(two[0]), str(path)])
        assert reason in capsys.readouterr().err
