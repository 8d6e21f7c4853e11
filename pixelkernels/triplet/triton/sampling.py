"""draw_pixels: random ranks, looked up in a prefix sum of the mask."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.triton_permutation import sample_ranks


def draw_pixels(mask: Tensor, seeds: Tensor, num: int) -> Tensor:
    counts = mask.flatten(1).cumsum(1, dtype=torch.int32)
    if counts.numel() == 0:
        return seeds.new_full((len(mask), len(seeds), num), -1)
    ranks = sample_ranks(counts[:, -1].long(), seeds, num).transpose(0, 1).contiguous()
    wanted = ranks.flatten(1).int() + 1
    pixels = torch.searchsorted(counts, wanted).view(ranks.shape)
    return torch.where(ranks >= 0, pixels, -1)
