"""Nearest-neighbour matching of frames in FEELVOS and MANet (networks/IntVOS.py)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import matching_scores

from ._window import window_rows

PACKAGE = "networks"
# the distance to an absent object
WRONG_LABEL_PADDING_DISTANCE = 1e20


def nearest_neighbor_features_per_object(
    reference_embeddings: Tensor,
    query_embeddings: Tensor,
    reference_labels: Tensor,
    k_nearest_neighbors: int,
    gt_ids: Tensor | int | None = None,
    n_chunks: int = 100,
) -> tuple[Tensor, Tensor]:
    """The mean squared distance of every query pixel to its k nearest pixels of each object.

    Args:
        reference_embeddings, query_embeddings: [H, W, D].
        reference_labels: [H, W, 1], integer.
        k_nearest_neighbors: k. If an object has fewer pixels, its farthest one is repeated.
        gt_ids: the objects' labels [objects], as in FEELVOS; or the largest label, as in MANet; or
            None for all labels from 0 to the largest in `reference_labels`.
        n_chunks: ignored: there is no matrix of pairs.

    Returns: ([1, H, W, objects, 1]; the labels [objects]). The distance to an absent object is 1e20
    for k = 1 and 0 for k > 1, as in the original.
    """
    labels = reference_labels[..., 0]
    if not isinstance(gt_ids, Tensor) or gt_ids.dim() == 0:
        largest = int(labels.max() if gt_ids is None else gt_ids)
        gt_ids = torch.arange(largest + 1, dtype=torch.int32, device=labels.device)
    count = len(gt_ids)
    same = labels[..., None] == gt_ids
    index = torch.where(same.any(-1), same.int().argmax(-1), -1)
    query, reference = (x.movedim(-1, 0)[None] for x in (query_embeddings, reference_embeddings))

    def distances(reduce: Literal["min", "max", "topk"], k: int | None = None) -> Tensor:
        return matching_scores(
            query, reference, index[None], count, metric="sqeuclidean", reduce=reduce, k=k
        )[0]

    k = k_nearest_neighbors
    mean = distances("min") if k == 1 else distances("topk", k)
    if k > 1:
        size = same.flatten(0, 1).sum(0)[:, None, None]
        padded = (size * mean + (k - size) * distances("max")) / k
        mean = torch.where(size < k, padded, mean).masked_fill(size == 0, 0)
    mean = torch.where(mean.isinf(), WRONG_LABEL_PADDING_DISTANCE, mean)
    return mean.movedim(0, -1)[None, ..., None], gt_ids


def local_previous_frame_nearest_neighbor_features_per_object(
    prev_frame_embedding: Tensor,
    query_embedding: Tensor,
    prev_frame_labels: Tensor,
    gt_ids: Tensor,
    max_distance: int = 12,
) -> Tensor:
    """The distance of every query pixel to the nearest pixel of each object in a window of the
    previous frame, as MANet computes it with its defaults.

    Both frames are halved by average pooling. There d = 2 sigmoid(|x - y|^2) - 1 is computed for
    every offset in the window and resized to the frame's size (bilinear, aligned corners). The
    result is the minimum of d over the offsets whose pixel (at twice the offset, in the frame) has
    the object's label; 1 if there is none. Pixels outside the frame have label 0, and resizing
    mixes their infinite distance into the border.

    Args:
        prev_frame_embedding, query_embedding: [H, W, D].
        prev_frame_labels: [H, W, 1], integer.
        gt_ids: the objects' labels [objects].
        max_distance: the window's radius, in pixels of the halved frame.

    Returns: [1, H, W, objects, 1]. Differentiable. Memory: 2 * max_distance + 1 maps of the frame's
    size, those of one row of offsets; with gradients autograd keeps those of all rows.
    """
    size, radius = prev_frame_labels.shape[:2], 2 * max_distance
    query, previous = (
        F.avg_pool2d(x.movedim(-1, 0)[None], 2)[0] for x in (query_embedding, prev_frame_embedding)
    )
    masks = F.pad(prev_frame_labels[..., 0], (radius,) * 4) == gt_ids[:, None, None]
    nearest = query.new_ones(len(gt_ids), *size)
    for row, window in window_rows(query, previous, max_distance):
        maps = F.interpolate(
            (window.sigmoid() - 0.5)[None] * 2, size, mode="bilinear", align_corners=True
        )[0]
        for column, distance in enumerate(maps):
            inside = masks[:, 2 * row : 2 * row + size[0], 2 * column : 2 * column + size[1]]
            nearest = torch.where(inside, torch.minimum(nearest, distance), nearest)
    return nearest.movedim(0, -1)[None, ..., None]


REPLACES = {
    "IntVOS:nearest_neighbor_features_per_object": nearest_neighbor_features_per_object,
    "IntVOS:local_previous_frame_nearest_neighbor_features_per_object": (
        local_previous_frame_nearest_neighbor_features_per_object
    ),
}
