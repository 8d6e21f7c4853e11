"""CFBI's matching with the first and the previous frame (networks/layers/matching.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelkernels.similarity import matching_scores

from ._window import window_rows

PACKAGE = "networks"


def global_matching(
    reference_embeddings: Tensor,
    query_embeddings: Tensor,
    reference_labels: Tensor,
    n_chunks: int = 100,
    dis_bias: Tensor | float = 0.0,
    ori_size: Sequence[int] | None = None,
    atrous_rate: int = 1,
    use_float16: bool = True,
    atrous_obj_pixel_num: int = 0,
) -> Tensor:
    """2 sigmoid(d + dis_bias) - 1 of the squared distance d to the nearest pixel of each object.

    Args:
        reference_embeddings, query_embeddings: [H, W, D].
        reference_labels: soft [H, W, objects]. A pixel is used if its labels sum to more than 0.9;
            it belongs to every object whose label is at least 0.1.
        dis_bias: [objects].
        ori_size: the size of the result (resized bilinearly with aligned corners).
        atrous_rate: objects larger than atrous_obj_pixel_num * atrous_rate^2 pixels are subsampled
            to every atrous_rate-th row and column.
        n_chunks, use_float16: ignored: there is no matrix of pairs, and sums are in float32.

    Returns: [1, *ori_size, objects, 1], 1 for an absent object. If no reference pixel is used, 1
    everywhere in the query's size. `reference_labels` stay unchanged; the original subsamples them
    in place.
    """
    return global_matching_for_eval(
        [reference_embeddings], query_embeddings, [reference_labels],
        n_chunks, dis_bias, ori_size, atrous_rate, use_float16, atrous_obj_pixel_num,
    )  # fmt: skip


def global_matching_for_eval(
    all_reference_embeddings: Sequence[Tensor],
    query_embeddings: Tensor,
    all_reference_labels: Sequence[Tensor],
    n_chunks: int = 20,
    dis_bias: Tensor | float = 0.0,
    ori_size: Sequence[int] | None = None,
    atrous_rate: int = 1,
    use_float16: bool = True,
    atrous_obj_pixel_num: int = 0,
) -> Tensor:
    """`global_matching` against several reference frames."""
    points, memberships = [], []
    for embeddings, labels in zip(all_reference_embeddings, all_reference_labels, strict=True):
        if atrous_rate > 1:
            labels = _subsampled(labels, atrous_rate, atrous_obj_pixel_num)
        points.append(embeddings.flatten(0, 1))
        memberships.append(labels.flatten(0, 1))
    soft = torch.cat(memberships)
    height, width = query_embeddings.shape[:2]
    objects = soft.shape[1]
    used = soft.sum(1) > 0.9
    if not used.any():
        return torch.ones(1, height, width, objects, 1, device=soft.device)
    # a pixel of several objects becomes one point per object
    pixel, label = ((soft >= 0.1) & used[:, None]).nonzero().T
    distances = matching_scores(
        query_embeddings.movedim(-1, 0)[None], torch.cat(points)[pixel].T[None], label[None],
        objects, metric="sqeuclidean", reduce="min",
    )[0]  # fmt: skip
    return _probabilities(distances[:, None], dis_bias, ori_size)


def local_matching(
    prev_frame_embedding: Tensor,
    query_embedding: Tensor,
    prev_frame_labels: Tensor,
    dis_bias: Tensor | float = 0.0,
    multi_local_distance: Sequence[int] = (15,),
    ori_size: Sequence[int] | None = None,
    atrous_rate: int = 1,
    use_float16: bool = True,
    allow_downsample: bool = True,
    allow_parallel: bool = True,
) -> Tensor:
    """2 sigmoid(d + dis_bias) - 1 of the squared distance d to the nearest pixel of each object in
    a square window.

    Args:
        prev_frame_embedding, query_embedding: [H, W, D].
        prev_frame_labels: [H, W, objects]; a pixel belongs to an object if its label exceeds 0.9.
        dis_bias: [objects].
        multi_local_distance: the windows' radii in pixels, ascending.
        ori_size: the size of the result (resized bilinearly with aligned corners); None: H x W.
        atrous_rate: offsets that are not its multiples are skipped.
        allow_downsample: match at H // 2 + 1 x W // 2 + 1 (features resized bilinearly with aligned
            corners, labels to the nearest).
        use_float16, allow_parallel: ignored.

    Returns: [1, *ori_size, objects, radii]: the largest radius first, the others in order; 1 for
    an absent object. Differentiable.
    """
    query, previous, labels = (
        x.movedim(-1, 0) for x in (query_embedding, prev_frame_embedding, prev_frame_labels)
    )
    height, width = query.shape[1:]
    ori_size = (height, width) if ori_size is None else tuple(ori_size)
    size = (height // 2 + 1, width // 2 + 1) if allow_downsample else (height, width)
    if allow_downsample:
        query, previous = (
            F.interpolate(x[None], size, mode="bilinear", align_corners=True)[0]
            for x in (query, previous)
        )
        labels = F.interpolate(labels[None], size, mode="nearest")[0]
    largest = multi_local_distance[-1]
    radii = [largest, *multi_local_distance[:-1]]
    masks = F.pad(labels > 0.9, (largest,) * 4)
    nearest = [query.new_full((len(labels), *size), torch.inf) for _ in radii]
    for row, window in window_rows(query, previous, largest, atrous_rate):
        inside = masks[:, row : row + size[0]].unfold(2, size[1], 1).movedim(2, 1)
        distances = torch.where(inside, window, torch.inf)
        for i, radius in enumerate(radii):
            last = radius // atrous_rate * atrous_rate
            if abs(row - largest) <= last:
                columns = slice(largest - last, largest + last + 1, atrous_rate)
                nearest[i] = torch.minimum(nearest[i], distances[:, columns].amin(1))
    return _probabilities(torch.stack(nearest, 1), dis_bias, ori_size)


def _subsampled(labels: Tensor, rate: int, least: int) -> Tensor:
    """Labels [H, W, objects], those of large objects 0 except at every rate-th row and column."""
    lattice = torch.zeros_like(labels[..., :1])
    lattice[::rate, ::rate] = 1
    large = labels.sum((0, 1)) > least * rate**2
    return torch.where(large, labels * lattice, labels)


def _probabilities(
    distances: Tensor, dis_bias: Tensor | float, size: Sequence[int] | None
) -> Tensor:
    """Distances [objects, n, h, w] -> 2 sigmoid(d + dis_bias) - 1, [1, *size, objects, n]."""
    bias = dis_bias.view(-1, 1, 1, 1) if isinstance(dis_bias, Tensor) else dis_bias
    maps = ((distances + bias).sigmoid() - 0.5) * 2
    if size is not None and tuple(size) != tuple(maps.shape[2:]):
        maps = F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
    return maps.permute(2, 3, 0, 1)[None]


REPLACES = {
    "layers.matching:global_matching": global_matching,
    "layers.matching:global_matching_for_eval": global_matching_for_eval,
    "layers.matching:local_matching": local_matching,
}
