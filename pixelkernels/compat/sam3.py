"""SAM 3's distance transform and correction clicks (sam3/model), on every device.

`sam3.model.edt` needs Triton. This module can take its place before `sam3` is imported:

    sys.modules["sam3.model.edt"] = pixelkernels.compat.sam3
"""

from __future__ import annotations

from torch import Tensor

from pixelkernels.distance import distance_transform

from .sam2 import error_centers, sample_random_points_from_errors

PACKAGE = "sam3"
# the root of the sentinel for "no zero yet", 1e18, of the original
NOWHERE = 1e9


def edt_triton(data: Tensor) -> Tensor:
    """The exact distance of every nonzero pixel to the nearest zero of its image.

    Args:
        data: images [B, H, W], of any dtype.

    Returns: float32 [B, H, W]; 1e9 in an image without a zero, as in the original.
    """
    if data.dim() != 3:
        raise ValueError(f"data: expected [B, H, W], got {list(data.shape)}")
    return distance_transform(data.logical_not()).clamp_(max=NOWHERE)


def sample_one_point_from_error_center(
    gt_masks: Tensor, pred_masks: Tensor | None, padding: bool = True
) -> tuple[Tensor, Tensor]:
    """As SAM 2's (`pixelkernels.compat.sam2`), but the points [B, 1, 2] and the labels [B, 1] are
    int64."""
    return error_centers(gt_masks, pred_masks, padding)


REPLACES = {
    "model.edt:edt_triton": edt_triton,
    "model.sam3_tracker_utils:sample_one_point_from_error_center": (
        sample_one_point_from_error_center
    ),
    "model.sam3_tracker_utils:sample_random_points_from_errors": sample_random_points_from_errors,
}
