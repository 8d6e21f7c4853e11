"""Mutual matches between the pixels of two images.

Notation: N pixels a_i and M pixels b_j, s_ij = <a_i, b_j> / temperature; r_i and c_j the logsumexp
of row i and of column j of s. The logarithm of the dual softmax is 2 s_ij - r_i - c_j, so that two
passes over the pairs find its maxima: the first for r and c, the second for the best j of each
i, where r_i does not matter, and the best i of each j, where c_j does not.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._core import validation as check
from .._core.dispatch import choose
from .._core.named_tuples import serializable
from .._core.numerics import wide
from .._core.operators import flat_masks, masks_of
from . import ops, reference

Mode = Literal["dual_softmax", "nearest"]


@serializable
class Matches(NamedTuple):
    """K matches in the order of (batch, i): `batch`, the flat pixels `i` and `j`, int64 [K] each,
    and the `confidence` [K]."""

    batch: Tensor
    i: Tensor
    j: Tensor
    confidence: Tensor


def mutual_matches(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float = 0.1,
    threshold: float = 0.2,
    mode: Mode = "dual_softmax",
    mask_a: Tensor | None = None,
    mask_b: Tensor | None = None,
    border: int = 0,
    backend: str | None = None,
) -> Matches:
    """The pairs of pixels of two images that are each other's best match.

    With s_ij = <a_i, b_j> / temperature, the confidence of a pair is its dual softmax,
    p_ij = softmax_j(s)_ij softmax_i(s)_ij. Pixels i and j match if p_ij is the maximum of row i and
    of column j, and above the threshold. Equivalent eager code, for one image without equal maxima:

        s = a.flatten(1).T @ b.flatten(1) / temperature
        p = s.softmax(0) * s.softmax(1)
        best = (p == p.amax(0)) & (p == p.amax(1, keepdim=True)) & (p > threshold)
        i, j = best.nonzero(as_tuple=True)

    Args:
        a: [B, D, H, W] or [B, D, N]. Features are not normalised here.
        b: [B, D, H', W'] or [B, D, M].
        temperature: > 0; without effect in mode "nearest".
        threshold: a match has a larger confidence.
        mode: "dual_softmax", or "nearest": mutual nearest neighbours, where the confidence of a
            pair is the product <a_i, b_j> itself.
        mask_a, mask_b: of the spatial shape of a and b, bool or integer. A pixel where its mask is
            0 is in no pair, and its features may be NaN.
        border: matches with a pixel closer than this to the border of its image are left out; they
            compete with others all the same. Above 0 both images are [B, D, H, W]. With a mask, the
            lower and the right border are those of the kept pixels: the height is the number of
            kept pixels in the fullest column, the width that in the fullest row.

    Returns: Matches(batch, i, j, confidence), int64 [K] three times and [K] in float32 (float64 for
    float64), in the order of (batch, i). i and j are flat pixel indices. No pixel is in two
    matches: of equal maxima of a row or a column the first counts. Without a gradient.

    The number of matches depends on the values, so a call synchronises with the device and breaks
    the graph under torch.compile. The N x M confidences are not stored. The mode "dual_softmax"
    visits each pair twice, "nearest" once. Memory: a packed copy of a and b, and some 40 bytes per
    pixel.
    Source: LoFTR (Sun et al., section 3.3, and the released code's border); DeDoDe. Of equal
    maxima, LoFTR's code takes the first of each row, DeDoDe's all. The confidence of two masked
    pixels is 1 / (N M) in LoFTR's code.

    Example:

        >>> a = torch.nn.functional.normalize(torch.randn(1, 64, 20, 20), dim=1)
        >>> batch, i, j, confidence = pk.mutual_matches(a, a.flip(3), temperature=0.02)
        >>> [i.shape == j.shape, torch.equal(j % 20, 19 - i % 20)]
        [True, True]
    """
    a, b = check.feature_pair("a", a, "b", b)
    temperature = check.positive("temperature", temperature)
    threshold = check.number("threshold", threshold)
    check.option("mode", mode, get_args(Mode))
    border = check.integer("border", border, minimum=0)
    masks = masks_of(a, b, mask_a, mask_b)
    for name, x in (("a", a), ("b", b)):
        if border and x.dim() != 4:
            raise ValueError(
                f"{name}: expected shape [B, D, H, W] with a border, got {list(x.shape)}"
            )
        if x.device.type == "meta":
            raise ValueError(f"{name}: expected a device that holds values, got meta")
    tensors = tuple(x for x in (a, b, *masks) if x is not None)
    chosen = choose("mutual_matches", tensors, backend)
    x, y = (side.detach().flatten(2) for side in (a, b))
    kept = flat_masks(masks)
    if chosen == "eager":
        scale = 1 / temperature if mode == "dual_softmax" else 1.0
        found = reference.mutual_best(x, y, *kept, scale, mode == "dual_softmax")
    elif mode == "nearest":
        found = ops.mutual_best(chosen, x, y, *kept, None, None, 1.0)
    else:
        rows, columns = ops.log_sums(chosen, x, y, *kept, 1 / temperature)
        dtype = wide(x[:0]).dtype
        best_b, similarity, best_a = ops.mutual_best(
            chosen, x, y, *kept, rows.to(dtype), columns.to(dtype), 2 / temperature
        )
        # the difference of these is smaller than they are
        others = rows + pad(columns, (0, 1)).gather(1, best_b.clamp(min=0))
        found = best_b, (similarity - others).exp().to(dtype), best_a
    inner = (_inside(side, mask, border) for side, mask in zip((a, b), masks, strict=True))
    return _matches(*found, threshold, *inner)


def _inside(x: Tensor, mask: Tensor | None, border: int) -> Tensor | None:
    """Which pixels [B, N] are at least `border` pixels from the border; None if all are."""
    if not border:
        return None
    height, width = x.shape[2:]
    if mask is None:
        mask = x.new_ones((x.shape[0], height, width), dtype=torch.bool)
    inside = x.new_ones((), dtype=torch.bool)
    for axis, place in ((1, torch.arange(height)[:, None]), (2, torch.arange(width))):
        place = place.to(x.device)
        # one more line: a maximum over nothing would raise
        extent = pad(mask.sum(axis), (0, 1)).amax(1)[:, None, None]
        inside = inside & (place >= border) & (place < extent - border)
    return inside.flatten(1)


def _matches(
    best_b: Tensor,
    confidence: Tensor,
    best_a: Tensor,
    threshold: float,
    inner_a: Tensor | None,
    inner_b: Tensor | None,
) -> Matches:
    """The pixels that are each other's best."""
    # a pixel without a best one looks at the entry past the last
    j = torch.where(best_b >= 0, best_b, best_a.shape[1])
    own = torch.arange(best_b.shape[1], device=best_b.device)
    found = (pad(best_a, (0, 1), value=-1).gather(1, j) == own) & (confidence > threshold)
    if inner_a is not None and inner_b is not None:
        found &= inner_a & pad(inner_b, (0, 1)).gather(1, j)
    batch, i = found.nonzero(as_tuple=True)
    return Matches(batch, i, best_b[batch, i], confidence[batch, i])
