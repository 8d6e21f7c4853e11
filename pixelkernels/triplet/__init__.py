"""The triplet hinge over sampled pairs of pixels."""

from .api import ISTripletLoss, is_triplet_loss, sample_pixels, triplet_hinge

__all__ = ["ISTripletLoss", "is_triplet_loss", "sample_pixels", "triplet_hinge"]
