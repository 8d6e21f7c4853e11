"""The targets and the gate name what there is, and judge it as they say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gate, targets
from benchmarks.gate import GATES, Gate, Timing
from benchmarks.registry import WORKLOADS
from benchmarks.targets import MEGABYTES, RATIO, TARGETS, Target
from benchmarks.workload import BOTH, FORWARD

BY_NAME = {workload.name: workload for workload in WORKLOADS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.workload}-{t.text()}")
def test_targets_name_what_is_registered(target: Target) -> None:
    workload = BY_NAME[target.workload]
    assert set(target.variants) <= set(workload.variants)
    assert target.mode in workload.modes
    known = workload.variants if target.measure == RATIO else workload.peers
    assert set(target.against or ()) <= set(known)


@pytest.mark.parametrize("one", GATES, ids=lambda g: g.workload)
def test_gates_name_what_is_registered(one: Gate) -> None:
    workload = gate.workload_of(one)
    assert one.mode in workload.modes
    assert set(one.peers) <= {n for n, peer in workload.peers.items() if not peer.compiled}
    assert one.least > 1


def row(name: str, ms: float, **more: Any) -> targets.Row:
    about = {"workload": "w", "variant": "coherent", "mode": FORWARD, "extra_mib": 50.0}
    kind = {"side": "library" if name == "cpu" else "peer", "default": name == "cpu"}
    return about | kind | {"name": name, "ms": {"p50": ms}} | more


def table(results: Path, rows: Iterable[targets.Row] = (), device: str = "cpu") -> str:
    folder = results / f"some-{device}"
    folder.mkdir(exist_ok=True)
    environment = {"device": device, "machine": f"Some {device}"}
    content = {"environment": environment, "rows": list(rows)}
    (folder / "regions.json").write_text(json.dumps(content))
    return targets.tables(results)


def test_met_short_and_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ("coherent",)
    untimed = row("compiled", 0, problem="off")
    del untimed["ms"]
    rows = [
        row("cpu", 4.0),
        row("slow peer", 20.0),
        row("fast peer", 10.0),
        untimed,
        row("cpu", 10.0, variant="random"),
        row("fast peer", 10.0, variant="random"),
        row("cpu", 20.0, mode=BOTH, extra_mib=None),
    ]
    wanted = {
        Target("a", "w", 2, one): "2 times faster than the best peer | 2.50 | met |",
        Target("b", "w", 4, one): "4 times faster than the best peer | 2.50 | short by 38% |",
        Target("c", "w", 4, one, FORWARD, ("slow peer",), "s"): "faster than s | 5.00 | met |",
        Target("d", "w", 1, one, FORWARD, ("compiled",), "c"): "than c | - | not measured |",
        Target("e", "w", 2): "e | coherent, random | 2 times faster than the best peer"
        " | 2.50, 1.00 | random short by 50% |",
        Target("f", "w", 1): "no slower than the best peer | 2.50, 1.00 | met |",
        Target("g", "w", 4, one, measure=targets.MS): "at most 4 ms | 4.00 | met |",
        Target("h", "w", 50, one, measure=MEGABYTES): "extra memory | 52.43 | short by 5% |",
        Target("i", "w", 50, one, BOTH, measure=MEGABYTES): "| - | not measured |",
        Target("j", "w", 2, ("random",), against=one, opponent="coherent", measure=RATIO): "at most"
        " 2 times the time of coherent | 2.50 | short by 25% |",
        Target("k", "w", 2, ("random", "full")): "| 1.00, - | random short by 50%; full not",
        Target("l", "elsewhere", 2): "| -, - | not measured |",
        Target("m", "w", 2.51, one): "| 2.50 | short by less than 1% |",
    }
    monkeypatch.setattr(targets, "TARGETS", tuple(wanted))
    text = table(tmp_path, rows)
    assert text.startswith("**Some cpu**\n\n| what |")
    lines = {line.split(" | ")[0][2:]: line for line in text.splitlines() if " | " in line}
    for target, part in wanted.items():
        assert part in lines[target.what]


def test_drop_ins_short_of_the_target_are_named(tmp_path: Path) -> None:
    assert "| drop-ins |  | 3 times faster than the original |  | not measured |" in table(tmp_path)
    took = {"ritm.DistMaps": 90.0, "cas.lss": 15.0, "pfenet.prior": 11.0}
    rows = [{"ours_is": name, "theirs_ms": ms, "ours_ms": 10.0} for name, ms in took.items()]
    folder = tmp_path / "some-cpu" / "compat"
    folder.mkdir()
    (folder / "compat.json").write_text(json.dumps({"rows": rows}))
    text = targets.tables(tmp_path)
    assert (
        "| drop-in `cas.lss` |  | 3 times faster than the original | 1.50 | short by 50% |" in text
    )
    assert "|  | met by 1 of 2 |" in text
    assert "pfenet" not in text


def test_exponents_above_theory_are_named(tmp_path: Path) -> None:
    assert "exponent" not in table(tmp_path)
    series = [
        {"name": "a", "variable": "HW", "theory": 1, "exponent": 1.05},
        {"name": "b", "variable": "K", "theory": 1, "exponent": 1.25, "memory_theory": 0,
         "memory_exponent": None},
        {"name": "c", "variable": "N", "theory": 2, "exponent": 1.9, "memory_theory": 1,
         "memory_exponent": 1.5},
    ]  # fmt: skip
    folder = tmp_path / "some-cpu" / "scaling"
    folder.mkdir()
    (folder / "scaling.json").write_text(json.dumps({"series": series}))
    text = targets.tables(tmp_path)
    assert "| b: time in K |  | exponent at most 0.1 above theory | 0.25 above | short by" in text
    assert "| c: memory in N |  | exponent at most 0.1 above theory | 0.50 above | short by" in text
    assert "|  | met by 2 of 4 |" in text


def test_gpus_are_missed_until_one_is_measured(tmp_path: Path) -> None:
    assert targets.tables(tmp_path) == ""
    assert table(tmp_path).endswith(targets.NO_GPU)
    text = table(tmp_path, device="cuda")
    assert targets.NO_GPU not in text
    assert "**Some cpu**" in text
    assert "**Some cuda**" not in text


@pytest.mark.parametrize(
    ("ratios", "passed", "counts"),
    [([2.0], True, 2.0), ([1.9, 2.1], True, 2.1), ([1.9, 1.5], False, 1.5)],
)
def test_a_small_ratio_is_measured_once_more(
    ratios: list[float], passed: bool, counts: float
) -> None:
    left = list(ratios)
    one = Gate("w", FORWARD, 2.0, ("peer",))
    timing, verdict = gate.decide(one, lambda: Timing("peer", 10 * left.pop(0), 10.0))
    assert verdict == passed
    assert timing.ratio == counts
    assert left == []
    assert gate.line(one, timing, verdict)[-1] == ("" if passed else "TOO SLOW")


def stub(monkeypatch: pytest.MonkeyPatch, ratio: float, capability: str = "AVX2") -> int:
    monkeypatch.setattr(gate, "timed", lambda one: lambda: Timing("peer", ratio, 1.0))
    monkeypatch.setattr(gate.torch.backends.cpu, "get_cpu_capability", lambda: capability)
    return gate.main([])


def test_gate_fails_with_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stub(monkeypatch, 2.0) == 1
    text = capsys.readouterr().out
    assert all(one.workload in text for one in GATES)
    assert text.count("TOO SLOW") == sum(one.least > 2.0 for one in GATES)
    assert stub(monkeypatch, 100.0, "AVX512") == 0
    assert "TOO SLOW" not in capsys.readouterr().out


def test_gate_fails_on_a_wrong_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(one: Gate) -> None:
        raise gate.WrongResult("output 0 is off")

    monkeypatch.setattr(gate, "timed", wrong)
    monkeypatch.setattr(gate.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert gate.main([]) == 1
    assert "not timed: output 0 is off" in capsys.readouterr().out


def test_gate_needs_the_instructions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stub(monkeypatch, 0.1, "DEFAULT") == 0
    assert "does not apply" in capsys.readouterr().out
