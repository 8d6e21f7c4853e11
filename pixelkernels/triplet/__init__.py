"""The triplet hinge over sampled pairs of pixels."""

from .api import is_triplet_loss, sample_pixels, triplet_hinge
from .modules import ISTripletLoss

__all__ = ["ISTripletLoss", "is_triplet_loss", "sample_pixels", "triplet_hinge"]
