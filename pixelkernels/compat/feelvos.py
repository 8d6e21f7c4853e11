"""Nearest neighbours of every object, as FEELVOS and MANet match frames (networks/IntVOS.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelkernels.similarity import matching_scores

PACKAGE = "networks"
# the distance to an object that is not there
WRONG_LABEL_PADDING_DISTANCE = 1e20


def nearest_neighbor_features_per_object(
    reference_embeddings: Tensor,
    query_embeddings: Tensor,
    reference_labels: Tensor,
    k_nearest_neighbors: int,
    gt_ids: Tensor | None = None,
    n_chunks: int = 100,
) -> tuple[Tensor, Tensor]:
    """The mean squared distance of every query pixel to its k nearest pixels of each object.

    Args:
        reference_embeddings, query_embeddings: [H, W, D].
        reference_labels: [H, W, 1], integer.
        k_nearest_neighbors: k; an object of fewer pixels counts its farthest one again.
        gt_ids: the objects' labels; None: 0 up to the largest one there is.
        n_chunks: without effect: no matrix over pairs of pixels is made.

    Returns: ([1, H, W, objects, 1], 1e20 for an object that is not there; the labels [objects]).
    """
    labels = reference_labels[..., 0]
    if gt_ids is None:
        gt_ids = torch.arange(int(labels.max()) + 1, device=labels.device)
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
        found = torch.where((there < k) & (there > 0), padded, found)
    found = torch.where(found.isinf(), WRONG_LABEL_PADDING_DISTANCE, found)
    return found.movedim(0, -1)[None, ..., None], gt_ids


REPLACES = {"IntVOS:nearest_neighbor_features_per_object": nearest_neighbor_features_per_object}
