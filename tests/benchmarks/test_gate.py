"""The speed check of CI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import gate
from benchmarks.gate import GATES, Gate
from benchmarks.ops import WORKLOADS


@pytest.mark.parametrize("one", GATES, ids=lambda g: g.workload)
def test_gates_name_existing_workloads_and_peers(one: Gate) -> None:
    (workload,) = (workload for workload in WORKLOADS if workload.name == one.workload)
    assert one.mode in workload.modes
    assert set(one.peers) <= {n for n, peer in workload.peers.items() if not peer.compiled}
    assert one.least > 1


@pytest.mark.parametrize(
    ("measured", "status", "left"),
    [([2.0, 9.0], 0, [9.0]), ([1.9, 2.1], 0, []), ([1.9, 1.5], 1, [])],
)
def test_ratio_below_the_limit_is_measured_twice(
    monkeypatch: pytest.MonkeyPatch, measured: list[float], status: int, left: list[float]
) -> None:
    def ratios(one: Gate) -> Iterator[float]:
        while True:
            yield measured.pop(0)

    monkeypatch.setattr(gate, "GATES", (Gate("w", "forward", 2.0, ("peer",)),))
    monkeypatch.setattr(gate, "ratios", ratios)
    monkeypatch.setattr(gate.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert gate.main() == status
    assert measured == left


def test_wrong_result_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(one: Gate) -> Iterator[float]:
        raise gate.WrongResult("output 0 is off")

    monkeypatch.setattr(gate, "ratios", wrong)
    monkeypatch.setattr(gate.torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert gate.main() == 1
    assert capsys.readouterr().out.count("not timed: output 0 is off") == len(GATES)


def test_ratio_compares_the_default_backend_with_the_named_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "EFFORT", gate.measure.Effort(rounds=1, seconds=0))
    small = gate.WORKLOADS[0].__class__.inputs
    monkeypatch.setattr(
        gate.WORKLOADS[0].__class__, "inputs", lambda self, variant: small(self, variant, shrink=16)
    )
    assert next(gate.ratios(GATES[0])) > 0


def test_machine_without_avx2_is_not_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate.torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert gate.main() == 0
    assert "not checked" in capsys.readouterr().out
