"""Draw the pictures of README into docs/images, from what the demo and training write:

python -m examples.demo && python docs/images.py [DEMO_OUT]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from examples.demo.photos import SIDE, packaged
from examples.demo.pictures import GAP
from examples.demo.scene import salient_object
from examples.train.__main__ import main as train

FOLDER = Path(__file__).resolve().parent / "images"
# pictures of the demo, and the panel of each
PANELS = (
    ("coffee", 0),
    ("coffee", 3),
    ("coffee-clicks", 0),
    ("coffee-clicks", 1),
    ("coffee-clicks", 5),
    ("label-transfer", 4),
)
TRAINED = ("coffee", "rocket")


def strip(demo: Path) -> Image.Image:
    """A photo, an embedding, clicks, their map, the interaction and the label transfer."""
    step = SIDE + GAP
    panels = []
    for name, index in PANELS:
        picture = Image.open(demo / f"{name}.png")
        panels.append(picture.crop((index * step, 0, index * step + SIDE, picture.height)))
    return side_by_side(panels)


def predictions() -> Image.Image:
    """What training writes for two photos, after the command in README."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        for photo in packaged():
            if photo.name in TRAINED:
                Image.fromarray(photo.pixels).save(folder / "images" / f"{photo.name}.png")
                mask = salient_object(photo.pixels).astype(np.uint8)
                Image.fromarray(mask).save(folder / "masks" / f"{photo.name}.png")
        options = ["menet", "--data", name, "--small", "--steps", "150", "--size", "128"]
        train([*options, "--out", f"{name}/out"])
        return side_by_side([Image.open(folder / "out" / f"{photo}.png") for photo in TRAINED])


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    width = sum(picture.width + GAP for picture in pictures) - GAP
    row = Image.new("RGB", (width, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    strip(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")).save(FOLDER / "strip.png")
    predictions().save(FOLDER / "networks.png")
