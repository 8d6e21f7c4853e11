"""Training of the networks: data sets, resumption, the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.__main__ import main

folder, run, score, tasks = (
    pytest.importorskip(f"examples.train.{name}", exc_type=ModuleNotFoundError)
    for name in ("folder", "run", "score", "tasks")
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


def command(data, out, *others, model="menet"):
    return main(
        [model, "--data", str(data), "--out", str(out), "--small", "--size", "64", "--batch", "2",
         "--ignore", "255", "--steps", "1", "--backend", "cpu", *others]
    )  # fmt: skip


def refusal(capsys, *arguments, **options):
    """The line that the command prints instead of training."""
    capsys.readouterr()
    assert command(*arguments, **options) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("train: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def copied(scenes, tmp_path):
    """The scenes, all with masks, to be damaged."""
    alone = shutil.ignore_patterns("without-mask.png")
    return shutil.copytree(scenes, tmp_path / "copied", ignore=alone)


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """The folder of a run of one step."""
    out = tmp_path_factory.mktemp("trained")
    assert command(scenes, out) == 0
    return out


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


def shorten(file, *, left=0.6):
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content))])


def as_shortened_jpeg(file):
    with Image.open(file) as image:
        image.save(file.with_suffix(".jpg"))
    file.unlink()
    shorten(file.with_suffix(".jpg"))


def blank(mode):
    return lambda file: Image.new(mode, (8, 8)).save(file)


def as_background(folder):
    for file in folder.iterdir():
        Image.new("L", (96, 80)).save(file)


def as_text(file):
    file.write_text("not an image")


def rename_all(folder):
    for file in list(folder.iterdir()):
        file.rename(file.with_name(f"other-{file.name}"))


@pytest.mark.parametrize(
    ("damage", "where", "reason"),
    [
        (shutil.rmtree, "images", "expected a folder, got .*images"),
        (shutil.rmtree, "masks", "expected a folder, got .*masks"),
        (lambda x: [file.unlink() for file in x.iterdir()], "images", "no image in .*images has a"),
        (rename_all, "masks", "has a mask of the same name in .*masks"),
        (shorten, "images/1.png", "images/1.png: cannot be read as an image: .*truncated"),
        (as_shortened_jpeg, "images/1.png", "1.jpg: cannot be read as an image: .*truncated"),
        (as_text, "images/1.png", "images/1.png: cannot be read as an image: no known format"),
        (lambda x: shorten(x, left=0), "images/1.png", "1.png: cannot be read .*: no known format"),
        (shorten, "masks/2.png", "masks/2.png: cannot be read as an image: "),
        (blank("I;16"), "images/1.png", "images/1.png: expected 8 bits .*, got mode I;16"),
        (blank("RGB"), "masks/2.png", "masks/2.png: expected one number for .*, got mode RGB"),
        (as_background, "masks", "no mask in .*masks has an object"),
    ],
)
def test_damaged_data_is_refused_in_one_line(damage, where, reason, copied, tmp_path, capsys):
    damage(copied / where)
    found = refusal(capsys, copied, tmp_path / "out")
    assert re.search(reason, found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (["--size", "63"], "images: expected floats .* of at least 64 x 64 pixels"),
        (["--batch", "1"], "Expected more than 1 value per channel when training"),
        (["--rate", "-1"], "Invalid learning rate: -1"),
        (["--backend", "fastest"], "expected one of .*, got 'fastest'"),
        (["--backend", "cuda"], "backend 'cuda'"),
        (["--rate", "1e30", "--steps", "3"], r"step \d: the loss is (nan|inf)"),
    ],
)
def test_impossible_training_is_refused_in_one_line_and_leaves_no_checkpoint(
    others, reason, copied, tmp_path, capsys
):
    assert re.search(reason, refusal(capsys, copied, tmp_path / "out", *others))
    assert not list((tmp_path / "out").glob("*"))


def test_too_few_images_are_refused_in_one_line(copied, tmp_path, capsys):
    for i in (1, 2, 3):
        (copied / "images" / f"{i}.png").unlink()
    found = refusal(capsys, copied, tmp_path / "out", model="coseg")
    assert "expected at least 2 images, got 1" in found


def test_unwritable_folder_is_refused_in_one_line(copied, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert f"{file}: File exists" in refusal(capsys, copied, file)
    assert f"{file}/out: Not a directory" in refusal(capsys, copied, file / "out")
    for name in ("checkpoint.new", "loss.png"):
        (tmp_path / name / name).mkdir(parents=True)
        assert f"{name}: Is a directory" in refusal(capsys, copied, tmp_path / name)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lacking(key, file):
    state = torch.load(file, weights_only=True)
    del state[key]
    torch.save(state, file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda x: shorten(x, left=0), "is no readable checkpoint"),
        (shorten, "is no readable checkpoint"),
        (flip_a_bit, "is no readable checkpoint .* is damaged"),
        (as_text, "is no readable checkpoint"),
        (lambda x: [x.unlink(), x.mkdir()], "is no readable checkpoint"),
        (lambda x: torch.save([1], x), "does not say from which data and options"),
        (lambda x: lacking("fingerprint", x), "does not say from which data and options"),
        (lambda x: lacking("generator", x), "does not fit this version of the network"),
    ],
)
def test_damaged_checkpoint_is_refused(damage, reason, copied, trained, tmp_path, capsys):
    file = shutil.copytree(trained, tmp_path / "out") / "checkpoint.pt"
    damage(file)
    found = refusal(capsys, copied, tmp_path / "out")
    assert re.search(f"{file}: {reason}.*; pass another --out or delete it", found)


@pytest.mark.parametrize(
    ("others", "then", "now"),
    [
        (["--size", "72", "--batch", "3"], "--size 64, --batch 2", "--size 72, --batch 3"),
        (["--seed", "1", "--rate", "0.5"], "--rate 0.03, --seed 0", "--rate 0.5, --seed 1"),
        (["--ignore", "254"], "--ignore 255", "--ignore 254"),
    ],
)
def test_checkpoint_of_other_options_is_refused(others, then, now, copied, trained, capsys):
    before = (trained / "checkpoint.pt").read_bytes()
    found = refusal(capsys, copied, trained, "--steps", "2", *others)
    assert f"{trained}/checkpoint.pt: was written with {then}, this run has {now}; pass" in found
    assert (trained / "checkpoint.pt").read_bytes() == before


def test_checkpoint_of_another_network_is_refused(copied, trained, capsys):
    found = refusal(capsys, copied, trained, model="coseg")
    assert "was written with model menet, --rate 0.03, this run has model coseg, --rate " in found
    assert main(["menet", "--data", str(copied), "--out", str(trained), "--size", "64"]) == 2
    found = capsys.readouterr().err
    assert "with --small, --ignore 255, --batch 2, --rate 0.03, this run has no --small" in found


@pytest.mark.parametrize("where", ["images/1.png", "masks/1.png", "name"])
def test_checkpoint_of_other_data_is_refused(where, copied, trained, capsys):
    if where == "name":
        for kind in ("images", "masks"):
            (copied / kind / "3.png").rename(copied / kind / "4.png")
    else:
        with Image.open(copied / where) as image:
            image.putpixel((0, 0), 1 if image.mode == "P" else (0, 0, 0))
            image.save(copied / where)
    found = refusal(capsys, copied, trained, "--steps", "2")
    assert "was written with images and masks of hash " in found


@pytest.mark.slow
def test_interruption_ends_after_the_step_and_can_be_resumed(copied, tmp_path, monkeypatch, capsys):
    step = run.Run.step

    def interrupted(self):
        if not self.losses:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(run.Run, "step", interrupted)
    assert command(copied, tmp_path / "out", "--steps", "3") == 0
    assert signal.getsignal(signal.SIGINT) is handler
    assert f"resumes from {tmp_path}/out/checkpoint.pt" in capsys.readouterr().out
    monkeypatch.undo()
    outs = tmp_path / "out", tmp_path / "whole"
    assert [command(copied, out, "--steps", "3") for out in outs] == [0, 0]
    resumed, whole = (json.loads((out / "losses.json").read_text()) for out in outs)
    assert resumed == whole


@pytest.mark.slow
@pytest.mark.keeps_memory
def test_command_trains_and_resumes(scenes, tmp_path, capsys):
    resumed, whole, eager = (tmp_path / name for name in ("resumed", "whole", "eager"))
    for out, steps, backend in (
        (resumed, 1, "cpu"), (resumed, 3, "cpu"), (whole, 3, "cpu"), (eager, 3, "eager")
    ):  # fmt: skip
        assert command(scenes, out, "--steps", str(steps), "--backend", backend) == 0
    losses = [json.loads((x / "losses.json").read_text()) for x in (resumed, whole, eager)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)
    written = {path.name for path in whole.iterdir()}
    pictures = {"loss.png", "0.png", "1.png", "2.png", "3.png"}
    assert written == {"checkpoint.pt", "losses.json", *pictures}
    out, err = capsys.readouterr()
    assert re.search(r"^loss -?\d.* after 3 steps, mean IoU [01]\.\d{3}; ", out, re.MULTILINE)
    assert "train: images without a mask are left out: 1\n" in err
    moved = shutil.copytree(whole, tmp_path / "moved")
    assert command(scenes, moved, "--steps", "4", "--backend", "eager") == 0
    assert json.loads((moved / "losses.json").read_text())[:3] == losses[1]


@pytest.mark.parametrize("predicted", [0, 1])
def test_prediction_of_one_label_is_warned_of(predicted, copied, trained, monkeypatch, capsys):
    constant = torch.full((4, 64, 64), predicted)
    monkeypatch.setattr(tasks.SaliencyTask, "predict", lambda self: constant)
    capsys.readouterr()
    assert command(copied, trained) == 0
    out, err = capsys.readouterr()
    assert "mean IoU 0." in out
    assert err.startswith("train: warning: 4 of 4 predictions have one label only where the masks")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_saliency_of_objects_of_any_size_is_learned(tmp_path, capsys):
    """The first covers a tenth of its image, the last most of it."""
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir(), (tmp_path / "masks").mkdir()
    for i, side in enumerate((20, 36, 54)):
        mask = np.zeros((64, 64), np.uint8)
        mask[4 : 4 + side, 6 : 6 + side] = 1
        image = random.integers(0, 120, (64, 64, 3)) + 100 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    assert command(tmp_path, tmp_path / "out", "--batch", "3", "--steps", "60") == 0
    out, err = capsys.readouterr()
    assert not err
    assert float(re.search(r"mean IoU (\S+);", out)[1]) > 0.95
    losses = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert max(losses[30:]) < -3.5


@pytest.mark.parametrize("count", [1, 2])
def test_batch_repeats_no_image_before_all_were_drawn(count, scenes):
    data = Folder(scenes / "images", scenes / "masks", (64, 64))
    task = tasks.SaliencyTask(data, "cpu", **tasks.SMALL["menet"])
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for batch in (2, 3, 6):
        for _ in range(20):
            drawn = task.draw(batch, count, generator)
            assert drawn.shape == (batch, count)
            assert all(row.unique().numel() == count for row in drawn)
            assert drawn.unique().numel() == min(batch * count, len(data))
            seen.add(tuple(drawn[0].tolist()))
    assert len(seen) == (4 if count == 1 else 12)


def test_unlabelled_pixels_are_in_no_region(scenes):
    data = Folder(scenes / "images", scenes / "masks", (80, 96), ignore=255)
    task = tasks.ClassAgnosticTask(data, "cpu", **tasks.SMALL["cas"])
    assert task.num_regions == 2
    assert torch.equal(task.regions, torch.where(data.labels == 7, 1, data.labels))
    assert torch.equal(task.truth, task.regions)


def test_score_counts_labelled_pixels_of_objects():
    truth = torch.tensor([[[0, 2, 2, -1]], [[5, 5, 0, 3]], [[0, 0, 0, 0]]])
    predicted = torch.tensor([[[2, 2, 0, 2]], [[5, 0, 0, 3]], [[0, 0, 1, 0]]])
    assert score.object_iou(predicted, truth) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert score.uniform(predicted, truth) == 0
    assert score.uniform(torch.zeros_like(predicted), truth) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["menet"], "expected --data"),
        (["menet", "--data", "x", "--steps", "0"], "expected at least 1, got 0"),
        (["unet", "--data", "x"], "invalid choice: 'unet'"),
    ],
)
def test_command_line_is_checked(arguments, reason, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert reason in capsys.readouterr().err
