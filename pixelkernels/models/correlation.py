"""The correlation of co-segmentation networks (DOCS), over all displacements or a window."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def displacement_correlation(
    query: Tensor, reference: Tensor, displacement: int, step: int = 1
) -> Tensor:
    """`out[b, dy, dx, y, x] = <query[b, :, y, x], reference[b, :, y + dy, x + dx]> / C`, 0 where
    that is outside, for the multiples dy and dx of step from -displacement to displacement,
    row-major in the channels.

    Args:
        query: features [B, C, H, W].
        reference: features of the same shape.
        displacement: at least max(H, W) - 1 compares every position with every other.
        step: >= 1.

    Returns:
        [B, (2 * (displacement // step) + 1) ** 2, H, W].
    """
    if query.shape != reference.shape:
        raise ValueError(
            f"reference: expected the shape of query, {list(query.shape)}, got"
            f" {list(reference.shape)}"
        )
    batch, channels, height, width = query.shape
    window = 2 * (displacement // step) + 1
    products = query.flatten(2).mT @ reference.flatten(2) / channels
    d = displacement // step * step
    padded = F.pad(products.view(batch, height, width, height, width), (d, d, d, d))
    # (y, x, y + dy, x + dx) moves by the strides of both positions when y or x does
    image, row, column, far_row, far_column = padded.stride()
    strides = (image, step * far_row, step * far_column, row + far_row, column + far_column)
    shifted = padded.as_strided((batch, window, window, height, width), strides)
    return shifted.reshape(batch, window**2, height, width)
