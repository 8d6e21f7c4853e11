"""Reference networks of five papers, built from the library's public functions, so that
`pixelkernels.use_backend` selects their backend. They need `pip install 'pixelkernels[models]'`.
"""

from .cas import CASNet
from .correlation import displacement_correlation
from .coseg import CoSegmentation, CoSegNet
from .interactive import Clicks, FewShotInteractiveNet, Support
from .losses import class_agnostic_cross_entropy, dice_loss
from .menet import MEnet, Saliency, adaptive_mask
from .refinement import Step, click_loop, refined_logits
from .transfer import LabelTransferNet

__all__ = [
    "CASNet",
    "Clicks",
    "CoSegNet",
    "CoSegmentation",
    "FewShotInteractiveNet",
    "LabelTransferNet",
    "MEnet",
    "Saliency",
    "Step",
    "Support",
    "adaptive_mask",
    "class_agnostic_cross_entropy",
    "click_loop",
    "dice_loss",
    "displacement_correlation",
    "refined_logits",
]
