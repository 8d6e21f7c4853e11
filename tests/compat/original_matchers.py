"""What LoFTR's and DeDoDe's matchers compute, written down independently of the library."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def loftr_confidences(a, b, temperature, mask_a=None, mask_b=None, softmax=True):
    """LoFTR's matrix of confidences, of features [N, L, C] and [N, S, C]; EfficientLoFTR's
    optimised model takes the similarities themselves."""
    a, b = a / a.shape[2] ** 0.5, b / b.shape[2] ** 0.5
    s = torch.einsum("nlc,nsc->nls", a, b) / temperature
    if mask_a is not None:
        s = s.masked_fill(~(mask_a[:, :, None] & mask_b[:, None]), -1e9)
    return F.softmax(s, 2) * F.softmax(s, 1) if softmax else s


def loftr_matches(confidence, data, threshold, border):
    """What LoFTR finds in evaluation: pairs with the largest confidence of their row and column,
    above the threshold, away from the borders of both images or of their masks."""
    images, sizes = len(confidence), (*data["hw0_c"], *data["hw1_c"])
    allowed = torch.ones(images, *sizes, dtype=torch.bool)
    for image in range(images):
        ends = list(sizes)
        if "mask0" in data:
            ends = []
            for name in ("mask0", "mask1"):
                mask = data[name][image].long()
                ends += [int(mask.sum(0).max()), int(mask.sum(1).max())]
        for axis, end in enumerate(ends):
            place = torch.arange(sizes[axis])
            shape = [-1 if other == axis else 1 for other in range(4)]
            inner = (place >= border) & (place < end - border)
            allowed[image] &= inner.view(shape) | (border <= 0)
    found = allowed.view(confidence.shape) & (confidence > threshold)
    found &= confidence == confidence.max(2, keepdim=True).values
    found &= confidence == confidence.max(1, keepdim=True).values
    batch, i = found.any(2).nonzero(as_tuple=True)
    j = found[batch, i].int().argmax(1)
    points = []
    for name, at, size in (("scale0", i, data["hw0_c"]), ("scale1", j, data["hw1_c"])):
        step = data["hw0_i"][0] / data["hw0_c"][0]
        if name in data:
            step = step * data[name][batch]
        points.append(torch.stack([at % size[1], at // size[1]], 1) * step)
    mconf = confidence[batch, i, j]
    return {
        "b_ids": batch, "i_ids": i, "j_ids": j, "gt_mask": mconf == 0, "m_bids": batch,
        "mkpts0_c": points[0], "mkpts1_c": points[1], "mconf": mconf,
    }  # fmt: skip


def dedode(points_a, a, points_b, b, normalize, inv_temp, threshold):
    """DeDoDe's matched keypoints and their images, all pairs that tie included."""
    if normalize:
        a, b = (x / x.norm(dim=2, keepdim=True) for x in (a, b))
    s = inv_temp * torch.einsum("bnc,bmc->bnm", a, b)
    p = s.softmax(1) * s.softmax(2)
    best = (p == p.max(2, keepdim=True).values) & (p == p.max(1, keepdim=True).values)
    batch, i, j = (best & (p > threshold)).nonzero(as_tuple=True)
    return points_a[batch, i], points_b[batch, j], batch
