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

    Args:
        img: [C, H, W], array or tensor; nonzero is inside.
        sampling: the spacing of rows and columns.
        distances: is written to, and None returned.
        block_params: ignored, as by MONAI on the CPU.
        float64_distances: return float64 on a GPU, instead of float32. The CPU returns float64.

    Raises ValueError for indices, for volumes and, without `sampling`, for sides above 32767. A
    channel without a zero has the distance +inf.
    """
    tensor = torch.as_tensor(np.asarray(img)) if not isinstance(img, Tensor) else img
    if return_indices or not return_distances or indices is not None:
        raise ValueError("return_indices: indices are not served; use MONAI's own function")
    if tensor.dim() != 3:
        raise ValueError(f"img: expected [C, H, W], got {list(tensor.shape)}")
    zeros = tensor == 0
    if sampling is None:
        squares = distance_transform(zeros, squared=True)
        far = ~zeros.flatten(1).any(1)[:, None, None]
        result = _root(squares).masked_fill_(far, torch.inf)
    else:
        rows, columns = np.broadcast_to(np.asarray(sampling, dtype=float), 2)
        result = distance_transform(zeros, sampling=(float(rows), float(columns)))
    result = result.to(torch.float64 if float64_distances or tensor.is_cpu else torch.float32)
    output = result if isinstance(img, Tensor) else result.numpy()
    if distances is None:
        return output
    distances[...] = output
    return None


def _root(squares: Tensor) -> Tensor:
    """In float64. NumPy's is correctly rounded on every CPU, torch's is not."""
    if not squares.is_cpu:
        return squares.double().sqrt()
    return torch.from_numpy(np.sqrt(squares.numpy().astype(np.float64)))


REPLACES = {"transforms.utils:distance_transform_edt": distance_transform_edt}
