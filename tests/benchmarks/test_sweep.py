import json

import pytest

from benchmarks import measure, tables
from benchmarks.sweep import __main__ as sweep
from benchmarks.sweep.lists import BEHIND, COSTLY, SLOWED, lists
from benchmarks.sweep.plans import PLANS, VALUES, Point, points
from pixelkernels.testing.arguments import Features
from pixelkernels.testing.samples import OPS


def row(ms, other_ms, value="", elements=100, **what):
    point = {"op": "region_stats", "case": "", "mode": "forward", "size": "", "dtype": "float32"}
    times = {"ms": ms, "other_ms": other_ms, "elements": elements}
    return {**point, "layout": "contiguous", "value": value, **times, **what}


def test_lists_name_what_is_slow():
    rows = [row(1, 2), row(1, 4), row(3.5, 4), row(2, 1.8), row(1.4, 1, "NaN"), row(1.2, 1, "NaN")]
    found = lists(rows)
    assert [(each["ms"], each["ratio"]) for each in found[SLOWED]] == [(1.4, 1.4)]
    assert [each["ms"] for each in found[BEHIND]] == [2]
    assert [each["ms"] for each in found[COSTLY]] == []
    dear = lists([*rows, row(9, 10)])[COSTLY]
    assert [(each["ms"], each["ratio"]) for each in dear] == [(9, 4.5)]


def test_table_gives_a_reason(tmp_path):
    what = {"size": "B2 C1 H9 W9", "op": "cas_loss"}
    rows = [row(1, 20), row(1, 20), row(9, 20, **what), *(row(1, 20, **what) for _ in range(2))]
    (tmp_path / "some-cpu" / "sweep").mkdir(parents=True)
    facts = {"device": "cpu", "machine": "Some CPU", "torch": "2.11.0", "triton": None}
    facts |= {"torch_threads": 2, "commit": "0123", "date": "today"}
    content = json.dumps({"environment": facts, "rows": rows})
    (tmp_path / "some-cpu" / "sweep" / "sweep.json").write_text(content)
    text = tables.sweep(tmp_path)
    assert "5 cases: 0 slower than eager, 0 slowed down by their values, 1 that cost much" in text
    assert (
        "| 9.00 | 9.0 | the work for a pixel's label or weight is shared by few channels |" in text
    )


def test_values_do_not_enter_the_median():
    rows = [row(1, 2), row(1, 2), row(50, 50, "NaN"), row(50, 50, "NaN"), row(50, 50, "NaN")]
    assert not any(lists(rows).values())


def test_every_operation_is_swept():
    assert PLANS.keys() == OPS.keys()
    chosen = list(points())
    assert len(set(chosen)) == len(chosen) >= 500
    for op in OPS.values():
        if any(isinstance(kind, Features) for kind in op.arguments.values()):
            assert {point.value for point in chosen if point.op == op.name} >= VALUES.keys()


@pytest.mark.parametrize("value", ["", "subnormal"])
def test_a_case_is_timed(value, monkeypatch):
    monkeypatch.setattr(sweep, "BRIEF", measure.Effort(rounds=1, seconds=0))
    monkeypatch.setattr(sweep, "LONG", measure.Effort(rounds=1, seconds=0))
    point = Point("masked_average_pool", "", "forward+backward", "B1 C3 H8 W9", value=value)
    found = sweep.measured(point, measure.Clock("cpu"))
    assert found["elements"] == 216
    assert found["ms"] > 0 < found["other_ms"]
