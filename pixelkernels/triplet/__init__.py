"""The triplet hinge over sampled pairs of pixels.

Common to all functions:

- Features: [B, C, H, W] in any strides; float16, bfloat16, float32, or float64 (`cpu` and `eager`).
  Distances are accumulated, and losses returned, in float32 (float64 for float64).
- A pixel is a flat index, row * W + column; -1 stands for none.
- The gradient is dense, written once, in the layout of the features. The contributions of a pixel
  that occurs several times are added in a fixed order.
- Backends: triton, cpu and eager, in this order; `backend` asks for one of them and raises
  `BackendUnavailable` if it cannot serve. triton and cpu give the same bits on every run, do not
  synchronise with the device, and differentiate once. The same generator state gives the same
  pixels on one backend.
- Wrong types and dtypes raise TypeError, wrong shapes, devices and options ValueError, before a
  kernel is launched.
"""

from .hinge import ISTripletLoss, is_triplet_loss, sample_pixels, triplet_hinge

__all__ = ["ISTripletLoss", "is_triplet_loss", "sample_pixels", "triplet_hinge"]
