"""DINO's label propagation in video (eval_video_segmentation.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PACKAGE = "eval_video_segmentation"
TEMPERATURE = 0.1
# size of a tile of queries, tuned by measurement with a window of 25
ROWS, COLUMNS = 8, 16


@torch.no_grad()
def propagate(target: Tensor, sources: Tensor, segments: Tensor, radius: int, topk: int) -> Tensor:
    """Soft labels of a frame: the weighted mean over its best matches in earlier frames.

    The candidates of a pixel are the positions of all earlier frames at most radius rows and
    columns away. A weight is exp(cosine / 0.1) if it is among the topk largest (ties included),
    else 0; the weights are divided by their sum.

    Args:
        target: features [D, h, w].
        sources: features of earlier frames [n, D, h, w].
        segments: their labels [n, C, h, w].
        radius: 0 for the whole frame.
        topk: >= 1.

    Returns: [C, h, w]. Memory: the normalised features and the scores of one tile.
    """
    height, width = target.shape[1:]
    unit = F.normalize(target, dim=0)
    keys = F.normalize(sources, dim=1).transpose(0, 1)
    result = segments.new_empty(segments.shape[1:])
    for tile in _tiles(height, width, radius or max(height, width), target.device):
        scores = tile.query(unit).T @ tile.key(keys).flatten(1)
        if radius:
            hidden = ~tile.within(radius)[:, None]
            scores.view(len(scores), len(sources), -1).masked_fill_(hidden, -torch.inf)
        best = scores.topk(min(topk, scores.shape[1]), sorted=False).values
        scores.masked_fill_(scores < best.amin(1, keepdim=True), -torch.inf)
        weights = scores.div_(TEMPERATURE).exp_()
        labels = tile.key(segments).transpose(1, 2).flatten(0, 1)
        mean = weights @ labels / weights.sum(1, keepdim=True)
        rows, columns = tile.queries
        result[:, rows, columns] = mean.T.view(result[:, rows, columns].shape)
    return result


def label_propagation(
    args: Any,
    model: Any,
    frame_tar: Tensor,
    list_frame_feats: Sequence[Tensor],
    list_segs: Sequence[Tensor],
    mask_neighborhood: Any = None,
) -> tuple[Tensor, Tensor, Any]:
    """`label_propagation`: the soft labels of a frame from those of earlier frames.

    Args:
        args: has `size_mask_neighborhood` (0 for none) and `topk`.
        model: a vision transformer with `get_intermediate_layers` and `patch_embed.patch_size`.
        frame_tar: [3, H, W].
        list_frame_feats: [D, h * w] each, on the device to use.
        list_segs: [1, C, h, w] each.
        mask_neighborhood: ignored: no h w x h w mask is needed.

    Returns: (labels [1, C, h, w], the frame's features [D, h * w], mask_neighborhood).
    """
    device = list_frame_feats[0].device
    size = model.patch_embed.patch_size
    height, width = frame_tar.shape[1] // size, frame_tar.shape[2] // size
    with torch.no_grad():
        features = model.get_intermediate_layers(frame_tar[None].to(device), n=1)[0]
    target = features[0, 1:].T  # without the class token
    labels = propagate(
        target.unflatten(1, (height, width)),
        torch.stack(list(list_frame_feats)).unflatten(2, (height, width)),
        torch.cat([s.to(device) for s in list_segs]),
        args.size_mask_neighborhood,
        args.topk,
    )
    return labels[None], target, mask_neighborhood


class _Tile(NamedTuple):
    """A tile of queries and the keys in the window of any of them, each (rows, columns)."""

    queries: tuple[slice, slice]
    keys: tuple[slice, slice]
    offsets: tuple[Tensor, Tensor]  # absolute, of rows and of columns, each [queries, keys]

    def query(self, x: Tensor) -> Tensor:
        """[..., H, W] -> [..., queries]."""
        return x[..., self.queries[0], self.queries[1]].flatten(-2)

    def key(self, x: Tensor) -> Tensor:
        """[..., H, W] -> [..., keys]."""
        return x[..., self.keys[0], self.keys[1]].flatten(-2)

    def within(self, radius: int) -> Tensor:
        """[queries, keys]: whether a key is at most radius rows and columns away."""
        rows, columns = (x <= radius for x in self.offsets)
        return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


def _tiles(height: int, width: int, radius: int, device: torch.device) -> Iterator[_Tile]:
    """Tiles that cover the image. Keys are at most radius rows and columns from a query."""
    for top in range(0, height, ROWS):
        rows, far_rows, row_offsets = _axis(top, ROWS, height, radius, device)
        for left in range(0, width, COLUMNS):
            columns, far_columns, column_offsets = _axis(left, COLUMNS, width, radius, device)
            yield _Tile((rows, columns), (far_rows, far_columns), (row_offsets, column_offsets))


def _axis(
    first: int, step: int, size: int, radius: int, device: torch.device
) -> tuple[slice, slice, Tensor]:
    """Along one axis: the queries, the keys, and their distances."""
    own = slice(first, min(first + step, size))
    far = slice(max(first - radius, 0), min(own.stop + radius, size))
    query, key = (torch.arange(x.start, x.stop, device=device) for x in (own, far))
    return own, far, (query[:, None] - key).abs()


REPLACES = {":label_propagation": label_propagation}
