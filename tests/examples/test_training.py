"""The models' data sets, figures, training and command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.__main__ import main

metrics, folder, run, tasks = (
    pytest.importorskip(name, exc_type=ModuleNotFoundError)
    for name in (
        "pixelkernels.models.metrics",
        *("examples.train.folder", "examples.train.run", "examples.train.tasks"),
    )
)
Folder, TASKS = folder.Folder, tasks.TASKS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four images of a bright square on noise, and its masks as palette images; 255 is no label."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "images").mkdir(), (root / "masks").mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        mask = np.zeros((80, 96), np.uint8)
        mask[20 : 50 + i, 30:70] = 7
        mask[:, -1] = 255
        image = random.integers(0, 90, (80, 96, 3)) + 120 * (mask == 7)[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i}.png")
        indexed = Image.fromarray(mask).convert("P")
        indexed.putdata(mask.flatten().tolist())
        indexed.save(root / "masks" / f"{i}.png")
    Image.new("RGB", (8, 8)).save(root / "images" / "without.png")
    return root


def test_a_folder_pairs_images_with_masks(scenes):
    data = Folder(scenes / "images", scenes / "masks", (80, 96), ignore=255)
    assert data.names == ["0", "1", "2", "3"]
    assert data.images.shape == (4, 3, 80, 96)
    assert data.labels.unique().tolist() == [-1, 0, 7]
    assert (data.labels > 0).sum().item() == 40 * (30 + 31 + 32 + 33)
    with Image.open(scenes / "images" / "2.png") as image:
        assert np.array_equal(folder.pixels(data.images[2]).numpy(), np.array(image))
    resized = Folder(scenes / "images", scenes / "masks", (40, 48))
    assert resized.labels.shape == (4, 40, 48)


def test_a_folder_says_what_is_wrong(scenes, tmp_path):
    with pytest.raises(ValueError, match="expected a folder"):
        Folder(tmp_path / "absent", scenes / "masks", (8, 8))
    with pytest.raises(ValueError, match="no image in"):
        Folder(scenes / "images", tmp_path, (8, 8))
    with pytest.raises(ValueError, match="one number for each pixel"):
        Folder(scenes / "images", scenes / "images", (8, 8))


def test_metrics_by_hand():
    target = torch.tensor([[1, 1, 0, 0, 0, 0]]).bool()
    found = torch.tensor([[1, 0, 1, 0, 0, 0]]).bool()
    assert metrics.jaccard(found, target) == pytest.approx(1 / 3)
    assert metrics.pixel_precision(found, target) == pytest.approx(4 / 6)
    assert metrics.foreground_background_iou(found, target) == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert metrics.mean_iou([found, target], [target, target]) == pytest.approx(2 / 3)
    ious = torch.tensor([[0.2, 0.9], [0.8, 0.5], [0.3, 0.1]])
    assert metrics.clicks_to_reach(ious, 0.8).tolist() == [2, 1]
    assert metrics.clicks_to_reach(ious, 0.95).tolist() == [3, 3]


def test_saliency_measures_by_hand():
    saliency = torch.tensor([[[0.9, 0.8, 0.1, 0.2]]])
    target = torch.tensor([[[1, 0, 1, 0]]])
    found = metrics.saliency_measures(saliency, target)
    # twice the mean is 1.0, the most that a threshold can be
    assert found["MAE"] == pytest.approx((0.1 + 0.8 + 0.9 + 0.2) / 4)
    dark = metrics.saliency_measures(saliency * 0.5, target)
    assert dark["adaptive F-beta"] == pytest.approx(found["adaptive F-beta"], abs=1e-6)
    lone = metrics.saliency_measures(torch.tensor([[[0.8, 0.1, 0.0, 0.0]]]), target)
    precision, recall = 1, 0.5
    expected = 1.3 * precision * recall / (0.3 * precision + recall)
    assert lone["adaptive F-beta"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(name, scenes):
    def started():
        torch.manual_seed(0)
        data = Folder(scenes / "images", scenes / "masks", (64, 72), ignore=255)
        return run.Run(TASKS[name](data, "cpu", **tasks.SMALL[name]), len(data), batch=2, rate=1e-3)

    whole, first, second = started(), started(), started()
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.load(first.state())
    for _ in range(2):
        second.step()
    assert second.losses == whole.losses
    states = [r.task.network.state_dict() for r in (whole, second)]
    assert all(torch.equal(x, states[1][key]) for key, x in states[0].items())


@pytest.mark.keeps_memory
def test_the_command_trains_and_takes_up_a_checkpoint(scenes, tmp_path, capsys):
    def train(out, steps, backend="cpu"):
        return main(
            ["menet", "--data", str(scenes), "--ignore", "255", "--small", "--size", "64",
             "--batch", "2", "--steps", str(steps), "--backend", backend, "--out", str(out)]
        )  # fmt: skip

    parted, whole, eager = (tmp_path / name for name in ("parted", "whole", "eager"))
    assert train(parted, 1) == train(parted, 3) == train(whole, 3) == train(eager, 3, "eager") == 0
    losses = [json.loads((x / "losses.json").read_text()) for x in (parted, whole, eager)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)
    written = {path.name for path in whole.iterdir()}
    pictures = {"loss.png", "0.png", "1.png", "2.png", "3.png"}
    assert written == {"checkpoint.pt", "losses.json", *pictures}
    assert "after 3 steps" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    for arguments, reason in (
        (["menet"], "expected --data"),
        (["cas", "--data", str(tmp_path)], "expected a folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert reason in capsys.readouterr().err
