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
    """Each channel's distances to its nearest zero, on the device of the image.

    Args:
        img: [C, H, W], array or tensor; nonzero is inside.
        sampling: of rows and columns.
        distances: where to write, in place of returning.
        block_params: without effect, as on the CPU there.
        float64_distances: on a GPU, float64 in place of float32; on the CPU it is float64 always.

    Indices, volumes and, without `sampling`, sides above 32767 are not served: ValueError. A
    channel without a zero has distance +inf.
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
        found = _root(squares).masked_fill_(far, torch.inf)
    else:
        rows, columns = np.broadcast_to(np.asarray(sampling, dtype=float), 2)
        found = distance_transform(zeros, sampling=(float(rows), float(columns)))
    found = found.to(torch.float64 if float64_distances or tensor.is_cpu else torch.float32)
    result = found if isinstance(img, Tensor) else found.numpy()
    if distances is None:
        return result
    distances[...] = result
    return None


def _root(squares: Tensor) -> Tensor:
    """In float64, on the CPU correctly rounded, which torch's is not everywhere."""
    if not squares.is_cpu:
        return squares.double().sqrt()
    return torch.from_numpy(np.sqrt(squares.numpy().astype(np.float64)))


REPLACES = {"transforms.utils:distance_transform_edt": distance_transform_edt}
