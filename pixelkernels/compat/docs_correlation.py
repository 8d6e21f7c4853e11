"""The correlation layer of DOCS (models/correlation_package), without its CUDA extension. It needs
`pip install 'pixelkernels[models]'`.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelkernels.models.correlation import displacement_correlation

PACKAGE = "models"


class Correlation(nn.Module):
    """FlowNet's correlation of features [B, C, H, W]: the inner product divided by C, for each
    displacement that is a multiple of stride2 up to max_displacement, 0 outside the image. The
    result is [B, displacements, H, W], with the column displacement varying fastest.

    Args:
        pad_size: must be max_displacement, so that the size stays the same.
        kernel_size, stride1, corr_multiply: must be 1, as in DOCS.
        max_displacement, stride2: as above.

    Raises ValueError for other values.
    """

    def __init__(
        self,
        pad_size: int = 0,
        kernel_size: int = 0,
        max_displacement: int = 0,
        stride1: int = 1,
        stride2: int = 2,
        corr_multiply: int = 1,
    ) -> None:
        super().__init__()
        if (pad_size, kernel_size, stride1, corr_multiply) != (max_displacement, 1, 1, 1):
            raise ValueError(
                "pad_size, kernel_size, stride1, corr_multiply: expected max_displacement, 1, 1, 1,"
                f" got {pad_size}, {kernel_size}, {stride1}, {corr_multiply}"
            )
        self.max_displacement, self.stride2 = max_displacement, stride2
        self.out_channels = (2 * (max_displacement // stride2) + 1) ** 2

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return displacement_correlation(input1, input2, self.max_displacement, self.stride2)


REPLACES = {"correlation_package.correlation:Correlation": Correlation}
