"""MEnet's released loss layer (layers/pyloss.py, a Caffe layer) for PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelkernels.regions import metric_expression_loss

# lower bound of probabilities before the logarithm
LEAST = 1e-10


class EuclideanLossLayer(nn.Module):
    """`EuclideanLossLayer()(metric, saliency, labels)`: the released layer's values and its
    hand-written gradients.

    Args of the call:
        metric: features [N, C, H, W]; the layer normalises them.
        saliency: logits [N, 2, H, W]; further channels are ignored.
        labels: [N, 1, H, W], 0 or 1.

    Returns: [2]: `metric_expression_loss(normalize=True, mining="hard", grad="released")`, and the
    mean over N, both channels, H and W of -onehot log(softmax), half the usual cross entropy. Its
    gradient is (softmax - onehot) / (2 H W), N times that of the value. Caffe ignores the incoming
    gradient; here it scales both, so the gradients of the sum are the released ones. The picture
    that the layer draws in its test phase is not made.
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
        linear = (logits * slope).sum()
        # linear - linear.detach() has the value 0 and the gradient `slope`
        return torch.stack([expression, entropy + linear - linear.detach()])
