"""A second PNG strip per photo: simulated clicks, their maps, and the clicks of an interaction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import segmentation
from torch import Tensor

import pixelkernels as pk

from . import clicks
from .interaction import Interaction
from .photos import Photo
from .pictures import Panel, grey, highlight, strip
from .scene import Scene

DOT = 5  # radius
COLOURS = {1: (0, 150, 60), 0: (215, 30, 40)}  # by label
WHITE = (255, 255, 255)
OUTLINE = (255, 210, 0)  # of the object, where a prediction is shown


def write(out: Path, photos: list[Photo], scene: Scene, interaction: Interaction) -> list[Path]:
    """The strips' files, `<photo>-clicks.png`."""
    objects = scene.mask.cpu().numpy()
    maps = clicks.maps(scene.points, scene.click_labels, objects.shape[-1])
    distances = pk.distance_transform(scene.mask).clamp(max=objects.shape[-1])
    predictions = interaction.predictions.cpu().numpy()
    paths = []
    for index, photo in enumerate(photos):
        shown = highlight(photo.pixels, objects[index])
        panels = [
            ("simulate_clicks", _dots(shown, scene.points[index], scene.click_labels[index])),
            ("click_maps: positive", grey(maps[index, 0])),
            ("click_maps: negative", grey(maps[index, 1])),
            ("distance_transform", grey(distances[index] / distances[index].max().clamp(min=1))),
            *(
                _after(photo, objects[index], predictions[index], interaction, index, count)
                for count in (1, predictions.shape[1])
            ),
        ]
        paths.append(out / f"{photo.name}-clicks.png")
        strip(panels).save(paths[-1])
    return paths


def _after(
    photo: Photo,
    mask: NDArray[np.bool_],
    predictions: NDArray[np.bool_],
    interaction: Interaction,
    index: int,
    count: int,
) -> Panel:
    """The prediction after `count` clicks, with the outline of the true object and the clicks."""
    pixels = highlight(photo.pixels, predictions[count - 1])
    pixels[segmentation.find_boundaries(mask, mode="inner")] = OUTLINE
    clicked = interaction.points[index, :count], interaction.labels[index, :count]
    return (
        f"{count} click{'s' if count > 1 else ''}: IoU {interaction.iou[index, count - 1]:.2f}",
        _dots(pixels, *clicked, numbered=True),
    )


def _dots(
    pixels: NDArray[np.uint8], points: Tensor, labels: Tensor, numbered: bool = False
) -> NDArray[np.uint8]:
    """Green dots for positive clicks and red ones for negative ones, with their order if wanted."""
    image = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    for number, ((row, column), label) in enumerate(
        zip(points.tolist(), labels.tolist(), strict=True), 1
    ):
        if label in COLOURS:  # not padding
            draw.circle((column, row), DOT, COLOURS[label], WHITE)
            if numbered:
                draw.text((column, row), str(number), WHITE, font, anchor="mm")
    return np.asarray(image)
