"""Where labels change: what the transform of labels takes in place of a mask."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import launch, next_power_of_2

# bits: the label is another than that of the pixel before along an axis; the distance is 0
ALONG_DEPTH, ALONG_ROWS, ALONG_COLUMNS = 1, 2, 4
BACKGROUND: tl.constexpr = tl.constexpr(8)
COLUMNS = 1024


@triton.jit
def _changes_kernel(
    labels, changes, depth, height, width, KEPT: tl.constexpr, COLUMNS: tl.constexpr
):
    """COLUMNS pixels of one line."""
    program = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(width, COLUMNS)
    line = program // tiles
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    row, plane = line % height, line // height
    below_first, behind_first = row > 0, plane % depth > 0
    # line is int64, and so are all offsets
    own = tl.load(labels + line * width + column, mask=inside, other=0)
    left = tl.load(labels + line * width + column - 1, mask=inside & (column > 0), other=0)
    above = tl.load(labels + (line - 1) * width + column, mask=inside & below_first, other=0)
    before = tl.load(labels + (line - height) * width + column, mask=inside & behind_first, other=0)
    found = ((own != before) & behind_first).to(tl.int32)
    found += 2 * ((own != above) & below_first).to(tl.int32)
    found += 4 * ((own != left) & (column > 0)).to(tl.int32)
    if not KEPT:
        found += BACKGROUND * (own == 0).to(tl.int32)
    tl.store(changes + line * width + column, found.to(tl.uint8), mask=inside)


def find_changes(labels: Tensor, background: bool) -> Tensor:
    """uint8 of the shape of labels [N, H, W] or [N, D, H, W]; `background`: the label 0 has
    distances, too."""
    # Triton cannot load bool
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    changes = torch.empty_like(labels, dtype=torch.uint8)
    depth = labels.shape[1] if labels.dim() == 4 else 1
    height, width = labels.shape[-2:]
    columns = min(next_power_of_2(width), COLUMNS)
    programs = labels.numel() // width * triton.cdiv(width, columns)
    args = (labels, changes, depth, height, width)
    launch(_changes_kernel, programs, labels, *args, KEPT=background, COLUMNS=columns)
    return changes
