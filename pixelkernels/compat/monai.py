"""MONAI's distance transform of images, `monai.transforms.utils.distance_transform_edt`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelkernels.distance import distance_transform

PACKAGE = "monai"


def distance_transform_edt(
    img: Any,
    sampling: float | list[float] | None = None,
    return_distances: bool = True,
    return_indices: bool = False,
    distances: Any = None,
    indices: Any = None,
    *,
    block_params: tuple[int, int, int] | None = None,
    float64_distances: bool = False,
) -> Any:
    """The distance of every pixel to the nearest zero of its channel, on the image's device.

    Like MONAI on the CPU, it returns SciPy's result for each channel: its bits for a spacing of 1,
    and for others float64 that agrees to float32's rounding.

    SciPy itself serves the rest, on the CPU: volumes, indices, channels without a zero, sides above
    32767 for a spacing of 1, and a `sampling` that `pixelkernels.distance_transform` rejects. It
    measures a channel without a zero to a pixel that does not exist. MONAI serves all of this on
    the GPU if cuCIM is installed.

    Args:
        img: [C, H, W] or [C, H, W, D], array or tensor; nonzero is inside.
        sampling: the spacing of the axes of a channel.
        distances, indices: if given, the result is not returned. MONAI 1.6 does not write into
            them either.
        block_params: ignored, as by MONAI on the CPU.
        float64_distances: return float64 on a GPU, instead of float32. The CPU returns float64.

    Returns: the distances, the indices of the nearest zeros (int32 [C, 2, H, W] or
    [C, 3, H, W, D]), or a list of both, of the image's type; None if `distances` and `indices`
    leave nothing to return.
    """
    if not (return_distances or return_indices):
        raise RuntimeError("return_distances, return_indices: expected one of them to be True")
    if img.ndim not in (3, 4):
        raise RuntimeError(f"img: expected [C, H, W] or [C, H, W, D], got {list(img.shape)}")
    zeros = img == 0 if isinstance(img, Tensor) else torch.from_numpy(np.asarray(img) == 0)
    found = None
    if img.ndim == 3 and not return_indices and zeros.flatten(1).any(1).all():
        found = _exact(zeros, 1.0 if sampling is None else sampling)
    distance, *nearest = _of_scipy(zeros, sampling) if found is None else (found,)
    results = []
    if return_distances and distances is None:
        in_float64 = float64_distances or zeros.is_cpu
        results.append(distance.to(torch.float64 if in_float64 else torch.float32))
    if return_indices and indices is None:
        results += nearest
    outputs = results if isinstance(img, Tensor) else [x.numpy() for x in results]
    return outputs if len(outputs) > 1 else next(iter(outputs), None)


def _exact(zeros: Tensor, sampling: Any) -> Tensor | None:
    """None for sides and spacings that `distance_transform` rejects."""
    try:
        rows, columns = map(float, sampling if np.ndim(sampling) else (sampling, sampling))
        if not rows == columns == 1:
            return distance_transform(zeros, sampling=(rows, columns))
        squares = distance_transform(zeros, squared=True)
    except ValueError:
        return None
    if not squares.is_cpu:
        return squares.double().sqrt()
    # NumPy's root is correctly rounded on every CPU, torch's is not
    return squares.new_tensor(np.sqrt(squares.numpy().astype(np.float64)), dtype=torch.float64)


def _of_scipy(zeros: Tensor, sampling: Any) -> tuple[Tensor, ...]:
    """The distances and the indices of the nearest zeros, channel by channel."""
    from scipy import ndimage

    channels, *size = zeros.shape
    distance = np.zeros((channels, *size))
    nearest = np.zeros((channels, len(size), *size), np.int32)
    for image, *out in zip(zeros.cpu().numpy(), distance, nearest, strict=True):
        ndimage.distance_transform_edt(~image, sampling, True, True, *out)
    return (
        zeros.new_tensor(distance, dtype=torch.float64),
        zeros.new_tensor(nearest, dtype=torch.int32),
    )


REPLACES = {"transforms.utils:distance_transform_edt": distance_transform_edt}
