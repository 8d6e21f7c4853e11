"""Train one of the reference networks on a folder of images and masks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from examples.command import imports_of_extra, positive, require_device

MODELS = ("coseg", "menet", "cas", "transfer", "interactive")


def main(arguments: list[str] | None = None) -> int:
    """0: done or interrupted. Exits with 2 where training cannot start."""
    parser = argparse.ArgumentParser(prog="python -m examples.train", description=__doc__)
    add = parser.add_argument
    add("model", choices=MODELS)
    add("--data", type=Path, metavar="DIR", help="a folder with the folders images and masks")
    add("--images", type=Path, metavar="DIR", help="the images, if they are elsewhere")
    add("--masks", type=Path, metavar="DIR", help="the masks: label images named as the images")
    add("--ignore", type=int, metavar="LABEL", help="the masks' value for unlabelled pixels")
    add("--steps", type=positive, default=100, metavar="N", help="in total (default: %(default)s)")
    add("--batch", type=positive, default=3, metavar="N", help="(default: %(default)s)")
    add("--size", type=positive, default=224, metavar="N",
        help="height and width (default: %(default)s)")  # fmt: skip
    add("--rate", type=float, metavar="X", help="learning rate (default: the paper's)")
    add("--small", action="store_true", help="a network of few layers, to try training on a CPU")
    add("--backend", metavar="NAME", help="of every library call (default: the best)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    add("--out", type=Path, default=Path("train-out"), metavar="DIR", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    require_device(parser, options.device)
    if options.data is None and (options.images is None or options.masks is None):
        parser.error("expected --data, or --images and --masks")
    with imports_of_extra(parser):
        from .folder import Folder
        from .run import Run, train, write_loss_curve, write_predictions
        from .tasks import SMALL, TASKS
    out: Path = options.out
    try:
        images = options.images or options.data / "images"
        masks = options.masks or options.data / "masks"
        data = Folder(images, masks, (options.size, options.size), ignore=options.ignore)
        torch.manual_seed(options.seed)
        network = SMALL[options.model] if options.small else {}
        task = TASKS[options.model](data, options.device, **network)
        run = Run(
            task, len(data), options.batch, options.rate, options.backend, options.seed,
            options.device,
        )  # fmt: skip
        train(run, options.steps, out)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted: the same command resumes from {out}/checkpoint.pt")
        return 0
    (out / "losses.json").write_text(json.dumps(run.losses) + "\n")
    write_loss_curve(run.losses, out / "loss.png")
    task.network.eval()
    written = write_predictions(data, task.predict(), out)
    print(f"loss {run.losses[-1]:.4g} after {len(run.losses)} steps;", end=" ")
    print(f"{out}/loss.png and {len(written)} pictures of predictions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
