"""DeDoDe's matcher of descriptions (DeDoDe/matchers/dual_softmax_matcher.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from pixelkernels.similarity import mutual_matches

PACKAGE = "DeDoDe"


@torch.no_grad()
def match(
    matcher: Any,
    keypoints_A: Any,
    descriptions_A: Any,
    keypoints_B: Any,
    descriptions_B: Any,
    P_A: Any = None,
    P_B: Any = None,
    normalize: bool = False,
    inv_temp: float = 1,
    threshold: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """`DualSoftMaxMatcher.match`: keypoints whose descriptions are each other's best.

    Args:
        matcher, P_A, P_B: without effect, as in the original.
        keypoints_A, keypoints_B: [B, N, 2] and [B, M, 2].
        descriptions_A, descriptions_B: [B, N, C] and [B, M, C]. Or all four are lists of B tensors
            without the first dimension.
        normalize: whether descriptions are divided by their length.
        inv_temp: > 0, multiplies the similarities.
        threshold: of the confidences.

    Returns: the matched keypoints of A and of B, [K, 2] each, and their images [K]. Of equal maxima
    the first counts; the original returns all.
    """
    if isinstance(descriptions_A, list):
        options: dict[str, Any] = {
            "normalize": normalize, "inv_temp": inv_temp, "threshold": threshold,
        }  # fmt: skip
        images = []
        for number, sides in enumerate(
            zip(keypoints_A, descriptions_A, keypoints_B, descriptions_B, strict=True)
        ):
            of_a, of_b, batch = match(matcher, *(x[None] for x in sides), **options)
            images.append((of_a, of_b, batch + number))
        all_of_a, all_of_b, batches = zip(*images, strict=True)
        return torch.cat(all_of_a), torch.cat(all_of_b), torch.cat(batches)
    a, b = descriptions_A, descriptions_B
    if normalize:
        a, b = unit(a, dim=2), unit(b, dim=2)
    found = mutual_matches(a.mT, b.mT, temperature=1 / inv_temp, threshold=threshold)
    at_a, at_b = keypoints_A[found.batch, found.i], keypoints_B[found.batch, found.j]
    return at_a, at_b, found.batch


REPLACES = {"matchers.dual_softmax_matcher:DualSoftMaxMatcher.match": match}
