"""Clicks and the distances to them.

Common to all functions:

- Pixel centres lie at integers, distances are Euclidean and in pixels, points are (row, column).
- A mask is bool, or an integer dtype with nonzero meaning True.
- Distances between pixels are computed on integers: every backend gives the same bits.
- Clicks and masks are data: they have no gradient. The losses have one in the prediction alone,
  and other results carry no graph.
- Backends: cuda, triton, cpu and eager, in this order; `backend` asks for one of them and raises
  `BackendUnavailable` if it cannot serve. All give the same bits on every run, and none
  synchronises with the device.
- Wrong types and dtypes raise TypeError, wrong shapes, devices and options ValueError, before a
  kernel is launched. Wrong values (a NaN coordinate, a label other than 1, 0 and -1) raise
  ValueError on CPU tensors; on a device, where reading them would stall, such a click counts as
  absent.
"""

from .clicks import NextClick, next_click, simulate_clicks
from .expand import expand_labels
from .hausdorff import HausdorffLoss, hausdorff_loss
from .losses import BoundaryLoss, boundary_loss
from .maps import ClickMaps, click_maps
from .signed import signed_distance
from .transform import DistanceTransform, distance_transform

__all__ = [
    "BoundaryLoss",
    "ClickMaps",
    "DistanceTransform",
    "HausdorffLoss",
    "NextClick",
    "boundary_loss",
    "click_maps",
    "distance_transform",
    "expand_labels",
    "hausdorff_loss",
    "next_click",
    "signed_distance",
    "simulate_clicks",
]
