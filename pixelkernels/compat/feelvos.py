"""Nearest neighbours of every object, as FEELVOS and MANet match frames (networks/IntVOS.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import matching_scores

from ._window import window_rows

PACKAGE = "networks"
# the distance to an object that is not there
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
        k_nearest_neighbors: k; an object of fewer pixels counts its farthest one again.
        gt_ids: the objects' labels [objects], as FEELVOS has them; one number, as MANet passes it:
            the labels from 0 up to it; None: from 0 up to the largest one there is.
        n_chunks: without effect: no matrix over pairs of pixels is made.

    Returns: ([1, H, W, objects, 1]; the labels [objects]). An object that is not there is 1e20 away
    for k = 1, and 0 for more, as in the original.
    """
    labels = reference_labels[..., 0]
    if not isinstance(gt_ids, Tensor) or gt_ids.dim() == 0:
        largest = int(labels.max() if gt_ids is None else gt_ids)
        gt_ids = torch.arange(largest + 1, dtype=torch.int32, device=labels.device)
    count = len(gt_ids)
    same = labels[..., None] == gt_ids
    index = torch.where(same.any(-1), same.int().argmax(-1), -1)
    query, reference = (x.movedim(-1, 0)[None] for x in (query_embeddings, reference_embeddings))

    def distances(reduce: str, k: int | None = None) -> Tensor:
        return matching_scores(
            query, reference, index[None], count, metric="sqeuclidean", reduce=reduce, k=k
        )[0]

    k = k_nearest_neighbors
    found = distances("min") if k == 1 else distances("topk", k)
    if k > 1:
        there = same.flatten(0, 1).sum(0)[:, None, None]
        padded = (there * found + (k - there) * distances("max")) / k
        found = torch.where(there < k, padded, found).masked_fill(there == 0, 0)
    found = torch.where(found.isinf(), WRONG_LABEL_PADDING_DISTANCE, found)
    return found.movedim(0, -1)[None, ..., None], gt_ids


def local_previous_frame_nearest_neighbor_features_per_object(
    prev_frame_embedding: Tensor,
    query_embedding: Tensor,
    prev_frame_labels: Tensor,
    gt_ids: Tensor,
    max_distance: int = 12,
) -> Tensor:
    """The distance of every query pixel to the nearest pixel of each object in a window of the
    previous frame, MANet's with its defaults (frames halved by average pooling, unfolded window).

    d = 2 sigmoid(|x - y|^2) - 1 at half the size, for every offset of the window resized to the
    full one (bilinear, aligned corners), then the least over the offsets whose pixel, twice as far
    away at the full size, has the object's label; 1 where there is none. What lies outside has
    label 0, which shows where the resizing has mixed its infinite distance with others.

    Args:
        prev_frame_embedding, query_embedding: [H, W, D].
        prev_frame_labels: [H, W, 1], integer.
        gt_ids: the objects' labels [objects].
        max_distance: of the window, in halved pixels.

    Returns: [1, H, W, objects, 1]. Differentiable. Memory: of the (2 * max_distance + 1)^2 maps of
    the size of the frame, one row of offsets; for gradients autograd keeps them all.
    """
    size, reach = prev_frame_labels.shape[:2], 2 * max_distance
    query, previous = (
        F.avg_pool2d(x.movedim(-1, 0)[None], 2)[0] for x in (query_embedding, prev_frame_embedding)
    )
    masks = F.pad(prev_frame_labels[..., 0], (reach,) * 4) == gt_ids[:, None, None]
    found = query.new_ones(len(gt_ids), *size)
    for row, window in window_rows(query, previous, max_distance):
        maps = F.interpolate(
            (window.sigmoid() - 0.5)[None] * 2, size, mode="bilinear", align_corners=True
        )[0]
        for column, distance in enumerate(maps):
            there = masks[:, 2 * row : 2 * row + size[0], 2 * column : 2 * column + size[1]]
            found = torch.where(there, torch.minimum(found, distance), found)
    return found.movedim(0, -1)[None, ..., None]


REPLACES = {
    "IntVOS:nearest_neighbor_features_per_object": nearest_neighbor_features_per_object,
    "IntVOS:local_previous_frame_nearest_neighbor_features_per_object": (
        local_previous_frame_nearest_neighbor_features_per_object
    ),
}
