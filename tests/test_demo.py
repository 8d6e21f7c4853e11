"""The demo: it trains, compares, and writes pictures and numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pixelkernels.demo import command, photos, steps, training

pytestmark = pytest.mark.keeps_memory  # it trains: time matters


@pytest.fixture(autouse=True)
def small_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "SIDE", 64)


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(map(str, arguments))))


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def test_packaged_photos(tmp_path, capsys):
    assert run("--steps", 2, "--out", tmp_path) == 0
    strips = pictures(tmp_path)
    assert set(strips) == {"astronaut", "coffee", "chelsea", "rocket", "motorcycle"}
    for strip in strips.values():
        panels = np.array_split(strip[:64], strip.shape[1] // 64, axis=1)
        assert len(panels) >= 5
        assert all(panel.std() > 5 for panel in panels), "a panel is blank"
    facts = json.loads((tmp_path / "demo.json").read_text())
    out = capsys.readouterr().out
    for step in steps.STEPS:
        assert step.name in out
        assert step.name in json.dumps(facts)


def test_photos_of_a_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(data.coffee()).save(folder / "one.png")
    Image.fromarray(data.rocket()).save(folder / "two.jpg")
    assert run("--steps", 1, "--images", folder, "--out", tmp_path / "out") == 0
    assert len(pictures(tmp_path / "out")) == 2
    (folder / "one.png").unlink()
    (folder / "two.jpg").unlink()
    assert run("--images", folder) == 2


def test_a_wrong_loss_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "FIRST_TOLERANCE", -1.0)
    assert run("--steps", 1, "--out", tmp_path) == 1
    assert "the backends disagree: cas_loss: at step 1" in capsys.readouterr().err
