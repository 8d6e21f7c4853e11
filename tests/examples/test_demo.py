"""The demo writes pictures and numbers, and reports every difference between the backends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import pixelkernels as pk
from examples.demo import interaction, photos, scene, steps, training, transfer
from examples.demo.__main__ import main
from pixelkernels._core import dispatch
from tests.helpers import first_quick

pytestmark = pytest.mark.keeps_memory  # filling memory would slow down the trainings

CLICK_STEPS = ("simulate_clicks", "click_maps", "distance_transform", "next_click")


@pytest.fixture(autouse=True)
def small_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "SIDE", 64)
    monkeypatch.setattr(steps, "ROUNDS", 2)


def run(*arguments: object) -> int:
    return main(list(map(str, arguments)))


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


@pytest.mark.slow
def test_packaged_photos(tmp_path, capsys):
    assert run("--steps", 2, "--out", tmp_path) == 0
    strips = pictures(tmp_path)
    names = {"astronaut", "coffee", "chelsea", "rocket", "motorcycle"}
    assert set(strips) == names | {f"{name}-clicks" for name in names} | {"label-transfer"}
    for strip in strips.values():
        panels = np.array_split(strip[:64], strip.shape[1] // 64, axis=1)
        assert len(panels) >= 5
        assert all(panel.std() > 5 for panel in panels), "a panel is blank"
    facts = json.loads((tmp_path / "demo.json").read_text())
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in facts["steps"]}
    assert set(rows) == {step.name for step in steps.STEPS} | {"label_transfer"}
    assert all(name in out for name in rows)
    assert rows["label_transfer"]["backward"] is True
    transferred = facts["label_transfer"]
    assert 0.7 < transferred["share_known"] < 1
    assert transferred["share_equal"] > 0.99
    for name, share in transferred["share_right"].items():
        assert f"{name} {share:.1%}" in out
    in_place, *_, found = transferred["share_right"].values()
    assert in_place < found < 1
    for name in CLICK_STEPS:
        assert rows[name]["backward"] is False
        assert min(rows[name]["milliseconds"].values()) > 0
    assert [entry["photo"] for entry in facts["interaction"]] == facts["photos"]
    for entry in facts["interaction"]:
        assert entry["labels"][0] == 1, "the first click is not on the object"
        clicks = zip(map(tuple, entry["points"]), entry["labels"], strict=True)
        clicked = [point for point, label in clicks if label >= 0]
        assert len(set(clicked)) == len(clicked), "a pixel was clicked twice"
        assert 0 < max(entry["iou"]) <= 1


@pytest.mark.slow
def test_photos_of_a_folder(tmp_path):
    Image.fromarray(data.coffee()).save(tmp_path / "one.png")
    Image.fromarray(data.rocket()).save(tmp_path / "two.jpg")
    assert run("--steps", 1, "--images", tmp_path, "--out", tmp_path / "out") == 0
    names = {"one.png", "two.jpg"}
    expected = names | {f"{name}-clicks" for name in names} | {"label-transfer"}
    assert set(pictures(tmp_path / "out")) == expected


def test_folder_without_photos_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--images", tmp_path)
    assert "expected .jpg, .jpeg, .png files" in capsys.readouterr().err


def test_wrong_loss_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "FIRST_TOLERANCE", -1.0)
    assert run("--steps", 1, "--out", tmp_path) == 1
    assert "the backends disagree: cas_loss: at step 1" in capsys.readouterr().err


def two_halves(objects: torch.Tensor) -> tuple[torch.Tensor, scene.Scene]:
    """Features that separate the left half of an image from the right one, and a scene."""
    batch, height, width = objects.shape
    features = torch.zeros(batch, 2, height, width)
    features[:, 0, :, : width // 2] = features[:, 1, :, width // 2 :] = 1
    return features, scene.Scene(
        names=[str(index) for index in range(batch)],
        images=torch.zeros(batch, 3, height, width),
        mask=objects,
        regions=objects.long(),
        num_regions=2,
        background=torch.ones(batch, height, width),
        points=torch.tensor([[[9, 3], [9, 30]]]).expand(batch, -1, -1),
        click_labels=torch.tensor([[1, 0]]).expand(batch, -1),
        pixels=scene.draw_pixels(objects),
    )


def left_half() -> torch.Tensor:
    objects = torch.zeros(1, 32, 32, dtype=torch.bool)
    objects[:, :, :16] = True
    return objects


def corrupt(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Add 1 to the last element of a function's result, unless the backend is eager."""
    original = getattr(pk, name)

    def wrong(*arguments, **options):
        result = original(*arguments, **options)
        if dispatch.requested(None) != "eager":
            first = result[0] if isinstance(result, tuple) else result
            first.view(-1)[-1] += 1
        return result

    monkeypatch.setattr(pk, name, wrong)


def test_clicks_segment_an_object_that_the_features_separate():
    nothing = torch.zeros(1, 32, 32, dtype=torch.bool)
    result = interaction.interact(*two_halves(torch.cat([left_half(), nothing])))
    assert result.labels[0, 0] == 1
    assert torch.equal(result.predictions[0, -1], left_half()[0])
    assert result.iou[0, -1] == 1
    assert (result.labels[1] == -1).all(), "a click without an error"
    assert (result.iou[1] == 1).all()


@pytest.mark.parametrize("name", first_quick(*CLICK_STEPS))
def test_wrong_step_without_gradient_is_reported(monkeypatch, name):
    monkeypatch.setattr(steps, "STEPS", [step for step in steps.STEPS if step.name == name])
    features, setting = two_halves(left_half())
    assert [cost.step.name for cost in steps.compare_all(features, setting, "cpu")] == [name]
    corrupt(monkeypatch, name)
    with pytest.raises(steps.Mismatch, match=f"{name}: "):
        steps.compare_all(features, setting, "cpu")


@pytest.mark.parametrize("name", ["next_click", "click_maps"])
def test_wrong_step_of_the_interaction_is_reported(monkeypatch, name):
    corrupt(monkeypatch, name)
    with pytest.raises(steps.Mismatch, match=f"{name}: "):
        interaction.interact(*two_halves(left_half()))


def test_columns_of_the_stereo_pair_show_the_same_spots():
    pair = photos.stereo_pair()
    known = pair.columns >= 0
    columns = np.broadcast_to(np.arange(photos.SIDE), known.shape)
    matched = np.take_along_axis(pair.left.pixels, pair.columns.clip(min=0)[..., None], axis=1)
    gaps = [
        np.abs(pixels.astype(int) - pair.right.pixels)[known].mean()
        for pixels in (matched, pair.left.pixels)
    ]
    assert gaps[0] < gaps[1] / 3
    assert (pair.columns >= columns)[known].all(), "a spot is further right in the right photo"
    assert np.array_equal(pair.carry_over(columns), pair.columns)


def test_labels_are_transferred_to_the_same_photo():
    pair = photos.stereo_pair()
    columns = np.broadcast_to(np.arange(photos.SIDE), pair.columns.shape)
    same = photos.StereoPair(pair.left, pair.left, columns)
    result = transfer.transfer(same, training.initial_network("cpu"), "cpu")
    assert np.array_equal(result.truth, scene.salient_object(pair.left.pixels))
    assert result.share_right["copied in place"] == 1
    *_, found = result.share_right.values()
    assert found > 0.9


def test_wrong_transferred_labels_are_reported(monkeypatch):
    corrupt(monkeypatch, "label_transfer")
    with pytest.raises(steps.Mismatch, match="label_transfer: 1 of"):
        transfer.transfer(photos.stereo_pair(), training.initial_network("cpu"), "cpu")


def test_transferred_labels_may_differ_only_at_ties():
    scores = torch.tensor([[[0.2, 0.9, 0.5], [0.8, 0.1, 0.5]]])
    eager = pk.TransferredLabels(torch.tensor([[1, 0, 0]]), scores)
    assert transfer.share_equal(eager, eager) == 1
    tied = eager._replace(labels=torch.tensor([[1, 0, 1]]))
    assert transfer.share_equal(eager, tied) == pytest.approx(2 / 3)
    with pytest.raises(steps.Mismatch, match="1 of 3 labels"):
        transfer.share_equal(eager, eager._replace(labels=torch.tensor([[0, 0, 0]])))
    with pytest.raises(steps.Mismatch, match="a result or gradient"):
        transfer.share_equal(eager, eager._replace(scores=scores + 0.1))
