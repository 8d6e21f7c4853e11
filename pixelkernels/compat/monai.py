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
        float64_distances: float64 in place of float32. MONAI takes it for tensors on a GPU alone,
            and gives float64 arrays for arrays.

    Indices and volumes are not served: ValueError. A channel without a zero has distance +inf.
    """
    tensor = torch.as_tensor(np.asarray(img)) if not isinstance(img, Tensor) else img
    if return_indices or not return_distances or indices is not None:
        raise ValueError("return_indices: indices are not served; use MONAI's own function")
    if tensor.dim() != 3:
        raise ValueError(f"img: expected [C, H, W], got {list(tensor.shape)}")
    zeros = tensor == 0
    if sampling is None:
        squares = distance_transform(zeros, squared=True)
        found = torch.where(
            zeros.flatten(1).any(1)[:, None, None], squares.double().sqrt(), torch.inf
        )
    else:
        rows, columns = np.broadcast_to(np.asarray(sampling, dtype=float), 2)
        found = distance_transform(zeros, sampling=(float(rows), float(columns)))
    is_array = not isinstance(img, Tensor)
    found = found.to(torch.float64 if float64_distances or is_array else torch.float32)
    result = found.numpy() if is_array else found
    if distances is None:
        return result
    distances[...] = result
    return None


REPLACES = {"transforms.utils:distance_transform_edt": distance_transform_edt}
