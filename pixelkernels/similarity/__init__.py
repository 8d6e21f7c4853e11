"""Dense similarity between two images, and the labels it transfers.

Common to all functions:

- Features: any strides, all of a call in one dtype: float16, bfloat16, float32, or float64 (`cpu`
  and `eager`). Products are accumulated, and scores returned, in float32 (float64 for float64).
  triton multiplies float32 as `torch.get_float32_matmul_precision()` says: in full precision
  ("highest", the default) or as TF32.
- Labels: any integer dtype or bool, on the device of the features. A point with a label outside
  [0, num_classes) is ignored: it enters no result and its gradient is 0, even if its features are
  NaN.
- The K x N matrix of all similarities, for K reference points and N query pixels, is never stored,
  neither forward nor backward, except by eager.
- Backends: triton, cpu and eager, in this order; `backend` asks for one of them and raises
  `BackendUnavailable` if it cannot serve. triton and cpu give the same bits on every run, do not
  synchronise with the device (but `mutual_matches`, which counts its matches), and differentiate
  once. Of equal maxima the first point gets the gradient.
- Wrong types and dtypes raise TypeError, wrong shapes, devices and options ValueError, before a
  kernel is launched.
"""

from .anchors import Anchors, sample_anchors
from .contrast import PixelContrastLoss, pixel_contrast_loss
from .dual_softmax import DualSoftmaxLoss, dual_softmax_loss
from .matching import LabelTransfer, TransferredLabels, label_transfer, matching_scores
from .mutual import Matches, mutual_matches
from .pair_loss import SiameseSimilarityLoss, pair_similarity_loss
from .prior import PriorMask, prior_mask
from .sampling import sample_reference

__all__ = [
    "Anchors",
    "DualSoftmaxLoss",
    "LabelTransfer",
    "Matches",
    "PixelContrastLoss",
    "PriorMask",
    "SiameseSimilarityLoss",
    "TransferredLabels",
    "dual_softmax_loss",
    "label_transfer",
    "matching_scores",
    "mutual_matches",
    "pair_similarity_loss",
    "pixel_contrast_loss",
    "prior_mask",
    "sample_anchors",
    "sample_reference",
]
