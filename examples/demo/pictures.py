"""The pictures of the demo: PNG strips of panels with captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import color, segmentation
from torch import Tensor

import pixelkernels as pk

from .interaction import Interaction
from .photos import Photo, StereoPair
from .scene import Scene, click_maps
from .transfer import Transfer

Pixels = NDArray[np.uint8]
Panel = tuple[str, Pixels]

GAP = 4
CAPTION = 20
INK, PAPER = (40, 40, 40), (255, 255, 255)

DOT = 5  # radius
CLICK_COLOURS = {1: (0, 150, 60), 0: (215, 30, 40)}  # by label
OUTLINE = (255, 210, 0)  # of the object, on top of a prediction
WRONG, UNKNOWN = (255, 0, 255), (128, 128, 128)


def write_photos(
    out: Path, photos: list[Photo], scene: Scene, embeddings: dict[str, Tensor], saliency: Tensor
) -> list[Path]:
    """`<photo>.png`: the labels that the networks were trained with, and their features.

    `embeddings` has features [B, C, H, W] by the name of their loss.
    """
    paths = []
    for index, photo in enumerate(photos):
        regions = scene.regions[index].cpu().numpy()
        panels = [
            (photo.name, photo.pixels),
            ("two regions", _highlight(photo.pixels, scene.mask[index].cpu().numpy())),
            (f"{regions.max() + 1} regions", _regions(photo.pixels, regions)),
            *((name, _as_colour(features[index])) for name, features in embeddings.items()),
            ("background_distance", _grey(saliency[index])),
        ]
        paths.append(_write(out / f"{photo.name}.png", panels))
    return paths


def write_clicks(
    out: Path, photos: list[Photo], scene: Scene, interaction: Interaction
) -> list[Path]:
    """`<photo>-clicks.png`: simulated clicks, their maps, and an interaction's clicks."""
    objects = scene.mask.cpu().numpy()
    side = objects.shape[-1]
    maps = click_maps(scene.points, scene.click_labels, side)
    distances = pk.distance_transform(scene.mask).clamp(max=side)
    rounds = interaction.predictions.shape[1]
    paths = []
    for index, photo in enumerate(photos):
        object_ = _highlight(photo.pixels, objects[index])
        panels = [
            ("simulate_clicks", _dots(object_, scene.points[index], scene.click_labels[index])),
            ("click_maps: positive", _grey(maps[index, 0])),
            ("click_maps: negative", _grey(maps[index, 1])),
            ("distance_transform", _grey(distances[index] / distances[index].max().clamp(min=1))),
            _after(1, photo, objects[index], interaction, index),
            _after(rounds, photo, objects[index], interaction, index),
        ]
        paths.append(_write(out / f"{photo.name}-clicks.png", panels))
    return paths


def write_transfer(out: Path, pair: StereoPair, transfer: Transfer) -> Path:
    """`label-transfer.png`: the labelled photo, the other one, and the wrong labels in it."""
    left, right = pair.left.pixels, pair.right.pixels
    truth, shares = transfer.truth, list(transfer.share_right.values())
    panels = [
        ("left photo, labelled", _highlight(left, transfer.left == 1)),
        ("right photo", right),
        ("true labels; grey: unknown", _grey_unknown(_highlight(right, truth == 1), truth)),
        ("label_transfer", _highlight(right, transfer.found == 1)),
        (f"{shares[-1]:.1%} right; magenta: wrong", _mark_wrong(right, transfer.found, truth)),
        (f"copied in place: {shares[0]:.1%} right", _mark_wrong(right, transfer.left, truth)),
    ]
    return _write(out / "label-transfer.png", panels)


def _write(path: Path, panels: list[Panel]) -> Path:
    height, width = panels[0][1].shape[:2]
    strip = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(13)
    for index, (caption, pixels) in enumerate(panels):
        left = index * (width + GAP)
        strip.paste(Image.fromarray(pixels), (left, 0))
        draw.text((left + width // 2, height + CAPTION // 2), caption, INK, font, anchor="mm")
    strip.save(path)
    return path


def _after(
    count: int, photo: Photo, mask: NDArray[np.bool_], interaction: Interaction, index: int
) -> Panel:
    """The prediction after `count` clicks, the outline of the object, and the clicks."""
    predicted = interaction.predictions[index, count - 1].cpu().numpy()
    pixels = _highlight(photo.pixels, predicted)
    pixels[segmentation.find_boundaries(mask, mode="inner")] = OUTLINE
    clicks = interaction.points[index, :count], interaction.labels[index, :count]
    return (
        f"{count} click{'s' if count > 1 else ''}: IoU {interaction.iou[index, count - 1]:.2f}",
        _dots(pixels, *clicks, numbered=True),
    )


def _dots(pixels: Pixels, points: Tensor, labels: Tensor, numbered: bool = False) -> Pixels:
    """Green dots for positive clicks and red ones for negative ones."""
    image = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    for number, ((row, column), label) in enumerate(
        zip(points.tolist(), labels.tolist(), strict=True), 1
    ):
        if label in CLICK_COLOURS:  # not padding
            draw.circle((column, row), DOT, CLICK_COLOURS[label], PAPER)
            if numbered:
                draw.text((column, row), str(number), PAPER, font, anchor="mm")
    return np.asarray(image)


def _highlight(photo: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The masked part in its colours, the rest dark."""
    return np.where(mask[..., None], photo, photo // 5)


def _mark_wrong(photo: Pixels, found: NDArray[np.int64], truth: NDArray[np.int64]) -> Pixels:
    """Wrong labels in a colour that the photo does not have."""
    pixels = _grey_unknown(_highlight(photo, found == 1), truth)
    pixels[(truth >= 0) & (found != truth)] = WRONG
    return pixels


def _grey_unknown(pixels: Pixels, truth: NDArray[np.int64]) -> Pixels:
    return np.where((truth >= 0)[..., None], pixels, np.asarray(UNKNOWN, np.uint8))


def _regions(photo: Pixels, regions: NDArray[np.int64]) -> Pixels:
    """Every region in its mean colour, with its outline."""
    flat = color.label2rgb(regions, photo, kind="avg", bg_label=-1)
    return _bytes(segmentation.mark_boundaries(flat, regions, color=(1, 1, 1)))


def _as_colour(features: Tensor) -> Pixels:
    """[C, H, W]: the three strongest principal components as red, green and blue."""
    pixels = features.flatten(1).double().cpu()
    pixels = pixels - pixels.mean(1, keepdim=True)
    axes = torch.linalg.eigh(pixels @ pixels.T).eigenvectors[:, -3:].flip(1)
    # the sign of an axis is arbitrary: a positive largest entry makes it the same in every run
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    components = axes.T @ pixels
    low, high = (components.quantile(q, dim=1, keepdim=True) for q in (0.01, 0.99))
    scaled = (components - low) / (high - low).clamp(min=1e-12)
    return _bytes(scaled.T.reshape(*features.shape[1:], 3).numpy())


def _grey(values: Tensor) -> Pixels:
    return np.repeat(_bytes(values.cpu().numpy())[..., None], 3, axis=2)


def _bytes(values: NDArray[np.floating]) -> Pixels:
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
