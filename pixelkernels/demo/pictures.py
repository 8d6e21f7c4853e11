"""One PNG strip per photo: what the networks saw, what they were told, and what they made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import color, segmentation
from torch import Tensor

from .photos import Photo
from .scene import Scene

Panel = tuple[str, NDArray[np.uint8]]

GAP = 4
CAPTION = 20
INK, PAPER = (40, 40, 40), (255, 255, 255)


def write(
    out: Path, photos: list[Photo], scene: Scene, embeddings: dict[str, Tensor], saliency: Tensor
) -> list[Path]:
    """The strips' files, `<photo>.png`; `embeddings` are features [B, C, H, W] by the name of their
    loss.
    """
    paths = []
    for index, photo in enumerate(photos):
        regions = scene.regions[index].cpu().numpy()
        panels = [
            (photo.name, photo.pixels),
            ("two regions", highlight(photo.pixels, scene.mask[index].cpu().numpy())),
            (f"{regions.max() + 1} regions", _regions(photo.pixels, regions)),
            *((name, _as_colour(features[index])) for name, features in embeddings.items()),
            ("background_distance", grey(saliency[index])),
        ]
        paths.append(out / f"{photo.name}.png")
        strip(panels).save(paths[-1])
    return paths


def strip(panels: list[Panel]) -> Image.Image:
    height, width = panels[0][1].shape[:2]
    strip = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(13)
    for index, (caption, pixels) in enumerate(panels):
        left = index * (width + GAP)
        strip.paste(Image.fromarray(pixels), (left, 0))
        draw.text((left + width // 2, height + CAPTION // 2), caption, INK, font, anchor="mm")
    return strip


def highlight(photo: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The masked part in its colours, the rest dark."""
    return np.where(mask[..., None], photo, photo // 5)


def _regions(photo: NDArray[np.uint8], regions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Every region in its mean colour, with its outline."""
    flat = color.label2rgb(regions, photo, kind="avg", bg_label=-1)
    return _bytes(segmentation.mark_boundaries(flat, regions, color=(1, 1, 1)))


def _as_colour(features: Tensor) -> NDArray[np.uint8]:
    """[C, H, W]: the three strongest principal components as red, green and blue."""
    pixels = features.flatten(1).double().cpu()
    pixels = pixels - pixels.mean(1, keepdim=True)
    axes = torch.linalg.eigh(pixels @ pixels.T).eigenvectors[:, -3:].flip(1)
    # an axis has no sign of its own: its largest entry is made positive, the same in every run
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    shares = axes.T @ pixels
    low, high = (shares.quantile(q, dim=1, keepdim=True) for q in (0.01, 0.99))
    return _bytes(
        ((shares - low) / (high - low).clamp(min=1e-12)).T.reshape(*features.shape[1:], 3).numpy()
    )


def grey(values: Tensor) -> NDArray[np.uint8]:
    return np.repeat(_bytes(values.cpu().numpy())[..., None], 3, axis=2)


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
