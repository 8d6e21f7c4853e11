"""Training of the networks: data sets, resumption, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.__main__ import main

folder, run, tasks = (
    pytest.importorskip(f"examples.train.{name}", exc_type=ModuleNotFoundError)
    for name in ("folder", "run", "tasks")
)
Folder = folder.Folder
TASKS = [
    pytest.param(
        name, marks=[pytest.mark.slow] if name in ("cas", "transfer", "interactive") else []
    )
    for name in tasks.TASKS
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four images of a bright square on noise with palette masks, in which 255 is unlabelled."""
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
    Image.new("RGB", (8, 8)).save(root / "images" / "without-mask.png")
    return root


def test_folder_pairs_images_with_masks(scenes):
    data = Folder(scenes / "images", scenes / "masks", (80, 96), ignore=255)
    assert data.names == ["0", "1", "2", "3"]
    assert data.images.shape == (4, 3, 80, 96)
    assert data.labels.unique().tolist() == [-1, 0, 7]
    assert (data.labels > 0).sum().item() == 40 * (30 + 31 + 32 + 33)
    with Image.open(scenes / "images" / "2.png") as image:
        assert np.array_equal(folder.pixels(data.images[2]).numpy(), np.array(image))
    resized = Folder(scenes / "images", scenes / "masks", (40, 48))
    assert resized.labels.shape == (4, 40, 48)


def test_folder_names_what_is_wrong(scenes, tmp_path):
    with pytest.raises(ValueError, match="expected a folder"):
        Folder(tmp_path / "absent", scenes / "masks", (8, 8))
    with pytest.raises(ValueError, match="no image in"):
        Folder(scenes / "images", tmp_path, (8, 8))
    with pytest.raises(ValueError, match="one number for each pixel"):
        Folder(scenes / "images", scenes / "images", (8, 8))


@pytest.mark.parametrize("name", TASKS)
def test_resumed_run_has_the_same_bits_as_an_uninterrupted_one(name, scenes):
    def start():
        torch.manual_seed(0)
        data = Folder(scenes / "images", scenes / "masks", (64, 72), ignore=255)
        task = tasks.TASKS[name](data, "cpu", **tasks.SMALL[name])
        return run.Run(task, len(data), batch=2, rate=1e-3)

    whole, first, second = start(), start(), start()
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.load(first.state())
    for _ in range(2):
        second.step()
    assert second.losses == whole.losses
    expected, found = (r.task.network.state_dict() for r in (whole, second))
    assert all(torch.equal(x, found[key]) for key, x in expected.items())


@pytest.mark.slow
@pytest.mark.keeps_memory
def test_command_trains_and_resumes(scenes, tmp_path, capsys):
    def train(out, steps, backend="cpu"):
        return main(
            ["menet", "--data", str(scenes), "--ignore", "255", "--small", "--size", "64",
             "--batch", "2", "--steps", str(steps), "--backend", backend, "--out", str(out)]
        )  # fmt: skip

    resumed, whole, eager = (tmp_path / name for name in ("resumed", "whole", "eager"))
    for status in (train(resumed, 1), train(resumed, 3), train(whole, 3), train(eager, 3, "eager")):
        assert status == 0
    losses = [json.loads((x / "losses.json").read_text()) for x in (resumed, whole, eager)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)
    written = {path.name for path in whole.iterdir()}
    pictures = {"loss.png", "0.png", "1.png", "2.png", "3.png"}
    assert written == {"checkpoint.pt", "losses.json", *pictures}
    assert "after 3 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["menet"], "expected --data"), (["cas", "--data", "absent"], "expected a folder")],
)
def test_command_refuses_to_start(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert reason in capsys.readouterr().err
