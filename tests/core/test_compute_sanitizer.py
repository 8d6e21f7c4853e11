"""The calls made under compute-sanitizer."""

from __future__ import annotations

import pytest

from pixelkernels.testing.samples import OPS
from tools import compute_sanitizer


@pytest.mark.parametrize("backend", ["cpu", "eager"])
def test_every_call_of_an_operation_succeeds(backend, monkeypatch, capsys):
    monkeypatch.setattr(compute_sanitizer, "OPS", {"next_click": OPS["next_click"]})
    assert compute_sanitizer.main(backend) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_failed_call_is_reported_and_the_others_still_run(monkeypatch, capsys):
    chosen = {name: OPS[name] for name in ("sample_pixels", "next_click")}
    monkeypatch.setattr(compute_sanitizer, "OPS", chosen)
    failing = chosen["sample_pixels"].quick_cases[0]
    monkeypatch.setattr(
        compute_sanitizer,
        "samples",
        lambda op, device: [None] if op is chosen["sample_pixels"] else [],
    )
    assert compute_sanitizer.main("cpu") == 1
    printed = capsys.readouterr().out
    assert f"FAILED sample_pixels, {failing}" in printed
    assert "next_click" in printed
