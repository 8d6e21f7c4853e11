"""The correlation layer of co-segmentation networks (DOCS)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def displacement_correlation(
    query: Tensor, reference: Tensor, displacement: int, step: int = 1
) -> Tensor:
    """Correlation of each position with the displaced positions of another image:
    `out[b, dy, dx, y, x] = <query[b, :, y, x], reference[b, :, y + dy, x + dx]> / C`, 0 where
    (y + dy, x + dx) is outside the image.

    Args:
        query: features [B, C, H, W].
        reference: features of the same shape.
        displacement: the largest |dy| and |dx|. From max(H, W) - 1 on, every position is compared
            with every other.
        step: dy and dx are multiples of it, >= 1.

    Returns:
        [B, (2 * (displacement // step) + 1) ** 2, H, W], dx varying fastest.
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
    # y and x step both positions of (y, x, y + dy, x + dx), so their strides are sums of two
    image, row, column, far_row, far_column = padded.stride()
    strides = (image, step * far_row, step * far_column, row + far_row, column + far_column)
    shifted = padded.as_strided((batch, window, window, height, width), strides)
    return shifted.reshape(batch, window**2, height, width)
