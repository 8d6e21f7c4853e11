"""MEnet's loss layer as released (layers/pyloss.py, a caffe layer), for PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelkernels.regions import metric_expression_loss

# the least probability whose logarithm is taken
LEAST = 1e-10


class EuclideanLossLayer(nn.Module):
    """`EuclideanLossLayer()(metric, saliency, labels)`, the values and the hand-written gradients
    of the released layer.

    Args of the call:
        metric: features [N, C, H, W], which the layer divides by their norms.
        saliency: logits [N, 2, H, W]; further channels are not looked at.
        labels: [N, 1, H, W], 0 or 1.

    Returns: [2], the metric loss, as of `metric_expression_loss(normalize=True, grad="released")`,
    and the mean over N, both channels, H and W of -onehot log(softmax), half of the usual cross
    entropy. Neither gradient is the loss's own: the first is described there, the second is
    (softmax - onehot)/(2 H W), N times as large. caffe ignores what comes from above; here it
    scales, so the sum of the two has the released gradients. The picture that the layer draws when
    testing, from a background of random pixels, is not made.
    """

    def forward(self, metric: Tensor, saliency: Tensor, labels: Tensor) -> Tensor:
        mask = labels[:, 0] > 0.5
        expression = metric_expression_loss(
            metric, mask.byte(), normalize=True, mining="hard", grad="released"
        )
        logits = saliency[:, :2]
        onehot = torch.stack([~mask, mask], 1)
        with torch.no_grad():
            probability = logits.softmax(1).clamp(min=LEAST)
            entropy = -(probability.log() * onehot).mean()
            slope = (probability - onehot.to(probability.dtype)) / (2 * mask[0].numel())
        # of value 0 and gradient `slope`
        carrier = (logits * slope).sum()
        return torch.stack([expression, entropy + carrier - carrier.detach()])
