"""scikit-image's growth of labels into the background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pixelkernels import distance as ours
from pixelkernels._core.dispatch import BackendUnavailable

from .scipy import distance_transform_edt

PACKAGE = "skimage"


def expand_labels(
    label_image: np.ndarray, distance: float = 1, spacing: float | Sequence[float] = 1
) -> np.ndarray:
    """Grow every label by up to `distance`, without overlap.

    A background pixel takes the label of the nearest labelled pixel, if that is within `distance`.
    Where several are equally near, scikit-image may take the label of another one.

    Integer images and volumes with a spacing of 1 take one pass, on the calling process's threads.
    The rest is computed in scikit-image's steps, with our `scipy.distance_transform_edt`.

    Args:
        label_image: an array of any shape, 0 is the background.
        distance: in the unit of `spacing`.
        spacing: of the pixels: a number, or one for each axis.

    Returns: a new array of the shape and dtype of `label_image`.
    """
    if label_image.ndim in (2, 3) and np.all(np.asarray(spacing) == 1):
        try:
            labels = torch.from_numpy(np.ascontiguousarray(label_image))
            found = ours.expand_labels(
                labels, distance, spatial_dims=label_image.ndim, backend="cpu"
            )
            return found.numpy()
        except (TypeError, ValueError, BackendUnavailable):
            pass  # a dtype or distance that it rejects, or no compiled library
    indices: Any
    distances, indices = distance_transform_edt(
        label_image == 0, sampling=spacing, return_indices=True
    )
    expanded = np.zeros_like(label_image)
    near = distances <= distance
    expanded[near] = label_image[tuple(index[near] for index in indices)]
    return expanded


REPLACES = {"segmentation._expand_labels:expand_labels": expand_labels}
