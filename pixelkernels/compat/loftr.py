"""LoFTR's coarse matching (src/loftr/utils/coarse_matching.py), also EfficientLoFTR's and kornia's.

All three have a class of that name. For kornia's, `patch("loftr", package="kornia.feature.loftr")`.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from pixelkernels.similarity import mutual_matches

PACKAGE = "src.loftr"


def coarse_matching(
    matching: Any,
    feat_c0: Tensor,
    feat_c1: Tensor,
    data: dict[str, Any],
    mask_c0: Tensor | None = None,
    mask_c1: Tensor | None = None,
) -> None:
    """`CoarseMatching.forward`: coarse matches, in evaluation without the matrix of confidences.

    Adds to `data` what the original does, but no `conf_matrix`. The matrix is computed, and then
    everything is as in the original, where it may be needed: in training; where `data` has the
    supervision `conf_matrix_gt`, as in a validation step, which computes the loss; and where only
    one of `mask_c0` and `data["mask0"]` is there.

    Args:
        matching: the `CoarseMatching`, with match_type "dual_softmax". EfficientLoFTR's may skip
            the softmax, as its optimised model does.
        feat_c0, feat_c1: [N, L, C] and [N, S, C].
        data: has hw0_c, hw1_c, hw0_i; may have mask0, mask1, scale0, scale1.
        mask_c0, mask_c1: [N, L] and [N, S].

    Confidences are float32, whatever `fp16matmul` says. Of equal maxima the first of a row and of a
    column counts, the original takes the first of each row. Masked pixels match nothing; in the
    original, the confidence of two of them is 1 / (L S), which no usual threshold is below.
    Raises: ValueError for match_type "sinkhorn".
    """
    if getattr(matching, "match_type", "dual_softmax") != "dual_softmax":
        raise ValueError(
            f"match_type: expected 'dual_softmax', got {matching.match_type!r}; undo the patch"
        )
    one_mask = (mask_c0 is None) == ("mask0" in data)
    if matching.training or "conf_matrix_gt" in data or one_mask:
        data["conf_matrix"] = _confidences(matching, feat_c0, feat_c1, mask_c0, mask_c1)
        data.update(matching.get_coarse_match(data["conf_matrix"], data))
        return
    sizes = [[int(side) for side in data[name]] for name in ("hw0_c", "hw1_c")]
    sides = [x.mT.unflatten(2, size) for x, size in zip((feat_c0, feat_c1), sizes, strict=True)]
    masks = [
        None if mask is None else mask.unflatten(1, size) != 0
        for mask, size in zip((mask_c0, mask_c1), sizes, strict=True)
    ]
    # both sides are divided by the root of the number of channels
    scale = matching.temperature * feat_c0.shape[2]
    skips_softmax = getattr(matching, "skip_softmax", False)
    found = mutual_matches(
        *sides,
        temperature=scale,
        threshold=matching.thr * (scale if skips_softmax else 1),
        mode="nearest" if skips_softmax else "dual_softmax",
        mask_a=masks[0],
        mask_b=masks[1],
        border=max(matching.border_rm, 0),
    )
    confidence = found.confidence / scale if skips_softmax else found.confidence
    step = data["hw0_i"][0] / data["hw0_c"][0]
    points = [
        torch.stack((at % size[1], at // size[1]), 1) * _scaled(step, data, name, found.batch)
        for at, size, name in zip((found.i, found.j), sizes, ("scale0", "scale1"), strict=True)
    ]
    data.update(
        b_ids=found.batch,
        i_ids=found.i,
        j_ids=found.j,
        gt_mask=torch.zeros_like(confidence, dtype=torch.bool),
        m_bids=found.batch,
        mkpts0_c=points[0],
        mkpts1_c=points[1],
        mconf=confidence,
    )


def _scaled(step: Any, data: dict[str, Any], name: str, batch: Tensor) -> Any:
    """Pixels of the image per coarse pixel, for each match if the images have been resized."""
    return step * data[name][batch] if name in data else step


def _confidences(
    matching: Any, a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None
) -> Tensor:
    """The matrix of all confidences, with a gradient, in the precision of the original."""
    a, b = (x / x.shape[2] ** 0.5 for x in (a, b))
    in_full: Any = contextlib.nullcontext()
    if not getattr(matching, "fp16matmul", True):
        in_full = torch.autocast(a.device.type, enabled=False)
    with in_full:
        s = a @ b.mT / matching.temperature
    if mask_a is not None and mask_b is not None:
        both = (mask_a != 0)[:, :, None] & (mask_b != 0)[:, None]
        s = s.masked_fill(~both, -1e4 if s.dtype == torch.float16 else -1e9)
    return s if getattr(matching, "skip_softmax", False) else s.softmax(1) * s.softmax(2)


REPLACES = {"utils.coarse_matching:CoarseMatching.forward": coarse_matching}
