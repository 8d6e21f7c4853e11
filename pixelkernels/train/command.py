"""The command itself: `python -m pixelkernels train`.

What the models need beyond the library is imported when it runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from pixelkernels._command import positive, refuse

EXTRAS = ("torchvision", "torchmetrics", "PIL", "matplotlib", "tqdm")
MODELS = ("coseg", "menet", "cas", "transfer", "interactive")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", choices=MODELS)
    add("--data", type=Path, metavar="DIR", help="a folder with the folders images and masks")
    add("--images", type=Path, metavar="DIR", help="the images, where they are elsewhere")
    add("--masks", type=Path, metavar="DIR", help="the masks: label images of the images' names")
    add("--ignore", type=int, metavar="LABEL", help="a value of the masks that is no label")
    add("--steps", type=positive, default=100, metavar="N", help="in all (default: %(default)s)")
    add("--batch", type=positive, default=3, metavar="N", help="(default: %(default)s)")
    add("--size", type=positive, default=224, metavar="N", help="sides (default: %(default)s)")
    add("--rate", type=float, metavar="X", help="of learning (default: the paper's)")
    add("--small", action="store_true", help="a network of few layers, to try things on a CPU")
    add("--backend", metavar="NAME", help="of every call of the library (default: the best)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    add("--out", type=Path, default=Path("train-out"), metavar="DIR", help="(default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """0: done, interrupted or not; 2: it could not start, and says why."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        return refuse("train", "--device cuda: torch sees no GPU")
    if arguments.data is None and (arguments.images is None or arguments.masks is None):
        return refuse("train", "expected --data, or --images and --masks")
    try:
        from . import pictures
        from .folder import Folder
        from .run import Run, train
        from .small import OPTIONS
        from .tasks import TASKS
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        return refuse("train", f"it needs {error.name}: pip install 'pixelkernels[models]'")
    out: Path = arguments.out
    try:
        images = arguments.images or arguments.data / "images"
        masks = arguments.masks or arguments.data / "masks"
        size = (arguments.size, arguments.size)
        data = Folder(images, masks, size, ignore=arguments.ignore)
        torch.manual_seed(arguments.seed)
        options = OPTIONS[arguments.model] if arguments.small else {}
        task = TASKS[arguments.model](data, arguments.device, **options)
        training = Run(
            task, len(data), arguments.batch, arguments.rate, arguments.backend, arguments.seed,
            arguments.device,
        )  # fmt: skip
        train(training, arguments.steps, out)
    except ValueError as error:
        return refuse("train", str(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted: the same command goes on from {out}/checkpoint.pt")
        return 0
    (out / "losses.json").write_text(json.dumps(training.losses) + "\n")
    pictures.loss_curve(training.losses, out / "loss.png")
    task.network.eval()
    written = pictures.predictions(data, task.predict(), out)
    print(f"loss {training.losses[-1]:.4g} after {len(training.losses)} steps;", end=" ")
    print(f"{out}/loss.png and {len(written)} pictures of predictions")
    return 0
