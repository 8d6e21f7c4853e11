"""The released CAS loss (cas.py of class_agnostic_loss_saliency), for masks of two regions."""

from __future__ import annotations

from torch import Tensor, nn

from pixelkernels.regions import cas_loss

BATCH_SIZE = 40  # the original divides by this constant, whatever the batch size


class lss(nn.Module):
    """`lss()(gt, softmaxed_tensor)` of 0/1 masks [B, 1, H, W], or [B, 2, H, W] with the mask twice,
    and softmax outputs [B, C, H, W]. Unlike the original, it does not accept soft masks.

    Args:
        batch_size: the divisor.
    """

    def __init__(self, batch_size: int = BATCH_SIZE) -> None:
        super().__init__()
        self.batch_size = batch_size

    def forward(self, gt: Tensor, softmaxed_tensor: Tensor) -> Tensor:
        labels = (gt[:, 0] > 0.5).byte()
        return cas_loss(softmaxed_tensor, labels, 2, variant="released", divisor=self.batch_size)
