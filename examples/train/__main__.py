"""Train one of the reference networks on a folder of images and masks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from examples.command import imports_of_extra, positive, require_device
from pixelkernels import BackendUnavailable

MODELS = ("coseg", "menet", "cas", "transfer", "interactive")


def main(arguments: list[str] | None = None) -> int:
    """0: done or interrupted; 2: training cannot start or go on, for the reason it prints."""
    parser = _parser()
    options = parser.parse_args(arguments)
    require_device(parser, options.device)
    if options.data is None and (options.images is None or options.masks is None):
        parser.error("expected --data, or --images and --masks")
    with imports_of_extra(parser):
        from .folder import Folder
        from .run import Run, train, write_loss_curve, write_predictions
        from .score import object_iou, uniform
        from .tasks import SMALL, SMALL_RATES, TASKS
    model, out = options.model, options.out
    try:
        images = options.images or options.data / "images"
        masks = options.masks or options.data / "masks"
        data = Folder(images, masks, (options.size, options.size), ignore=options.ignore)
        if data.skipped:
            _say(f"images without a mask are left out: {data.skipped}")
        torch.manual_seed(options.seed)
        network: dict[str, Any] = SMALL[model] if options.small else {}
        rate = SMALL_RATES[model] if options.small and options.rate is None else options.rate
        run = Run(
            TASKS[model](data, options.device, **network), len(data), options.batch, rate,
            options.backend, options.seed, options.device,
            {
                "model": model, "--small": options.small, "--size": options.size,
                "--ignore": options.ignore, "--batch": options.batch, "--rate": rate,
                "--seed": options.seed, "images and masks of hash": data.digest[:12],
            },
        )  # fmt: skip
        train(run, options.steps, out)
        (out / "losses.json").write_text(json.dumps(run.losses) + "\n")
        write_loss_curve(run.losses, out / "loss.png")
        run.task.network.eval()
        predicted, truth = run.task.predict(), run.task.truth
        write_predictions(data, truth, predicted, out)
    except KeyboardInterrupt:
        checkpoint = out / "checkpoint.pt"
        resumes = f": the same command resumes from {checkpoint}" if checkpoint.exists() else ""
        print(f"\ninterrupted{resumes}")
        return 0
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 2
    except (ValueError, FloatingPointError, BackendUnavailable) as error:
        _say(" ".join(str(error).split()))
        return 2
    iou = object_iou(predicted, truth)
    print(f"loss {run.losses[-1]:.4g} after {len(run.losses)} steps, mean IoU {iou:.3f};", end=" ")
    print(f"pictures of the loss and of {len(data)} predictions in {out}")
    if count := uniform(predicted, truth):
        _say(
            f"warning: {count} of {len(data)} predictions have one label only where the masks have"
            " more; train longer, or with another --rate"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.train", description=__doc__)
    add = parser.add_argument
    add("model", choices=MODELS)
    add("--data", type=Path, metavar="DIR", help="a folder with the folders images and masks")
    add("--images", type=Path, metavar="DIR", help="the images, if they are elsewhere")
    add("--masks", type=Path, metavar="DIR", help="the masks: label images named as the images")
    add("--ignore", type=int, metavar="LABEL",
        help="the masks' value for unlabelled pixels: no part of the IoU; coseg, menet and"
        " interactive train with them as background")  # fmt: skip
    add("--steps", type=positive, default=100, metavar="N", help="in total (default: %(default)s)")
    add("--batch", type=positive, default=3, metavar="N", help="(default: %(default)s)")
    add("--size", type=positive, default=224, metavar="N",
        help="height and width (default: %(default)s)")  # fmt: skip
    add("--rate", type=float, metavar="X",
        help="learning rate (default: the paper's, or with --small one for training from"
        " scratch)")  # fmt: skip
    add("--small", action="store_true", help="a network of few layers, to try training on a CPU")
    add("--backend", metavar="NAME", help="of every library call (default: the best)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    add("--out", type=Path, default=Path("train-out"), metavar="DIR",
        help="a checkpoint there is resumed if it is of the same model, data and options, but"
        " --steps, --backend and --device (default: %(default)s)")  # fmt: skip
    return parser


def _say(text: str) -> None:
    print(f"train: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
