"""CFBI's matching with the first and the previous frames (networks/layers/matching.py)."""

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
        reference_labels: soft [H, W, objects]; a pixel is an object's where its label is at least
            0.1, perhaps several objects', and enters at all where the labels sum to more than 0.9.
        dis_bias: [objects].
        ori_size: what to resize to (bilinear, aligned corners).
        atrous_rate: of the reference only every so manieth pixel is looked at, of objects larger
            than atrous_obj_pixel_num * atrous_rate^2.
        n_chunks, use_float16: without effect: no matrix of pairs is made, products are accumulated
            in float32.

    Returns: [1, *ori_size, objects, 1], 1 for an object that is not there; 1 everywhere, in the
    query's size, where no reference pixel enters. `reference_labels` stay as they are, which the
    original thins out in place.
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
    """`global_matching` with the pixels of several reference frames."""
    points, memberships = [], []
    for embeddings, labels in zip(all_reference_embeddings, all_reference_labels, strict=True):
        if atrous_rate > 1:
            labels = _thinned(labels, atrous_rate, atrous_obj_pixel_num)
        points.append(embeddings.flatten(0, 1))
        memberships.append(labels.flatten(0, 1))
    soft = torch.cat(memberships)
    height, width = query_embeddings.shape[:2]
    objects = soft.shape[1]
    entering = soft.sum(1) > 0.9
    if not entering.any():
        return torch.ones(1, height, width, objects, 1, device=soft.device)
    # a pixel of several objects is a point of each
    place, label = ((soft >= 0.1) & entering[:, None]).nonzero().T
    distances = matching_scores(
        query_embeddings.movedim(-1, 0)[None], torch.cat(points)[place].T[None], label[None],
        objects, metric="sqeuclidean", reduce="min",
    )[0]  # fmt: skip
    return _answer(distances[:, None], dis_bias, ori_size)


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
    """2 sigmoid(d + dis_bias) - 1 of the squared distance d to the nearest pixel of each object
    that is at most so many rows and columns away.

    Args:
        prev_frame_embedding, query_embedding: [H, W, D].
        prev_frame_labels: [H, W, objects]; a pixel is an object's where its label exceeds 0.9.
        dis_bias: [objects].
        multi_local_distance: one or more distances, ascending.
        ori_size: what to resize to (bilinear, aligned corners); None: H x W.
        atrous_rate: only offsets that are its multiples count.
        allow_downsample: match at half the size plus 1 (features bilinear with aligned corners,
            labels nearest).
        use_float16, allow_parallel: without effect.

    Returns: [1, *ori_size, objects, distances]: the largest distance first, then the others as they
    come; 1 for an object that is not there. Differentiable.
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
    reaches = [largest, *multi_local_distance[:-1]]
    masks = F.pad(labels > 0.9, (largest,) * 4)
    found = [query.new_full((len(labels), *size), torch.inf) for _ in reaches]
    for row, window in window_rows(query, previous, largest, atrous_rate):
        near = masks[:, row : row + size[0]].unfold(2, size[1], 1).movedim(2, 1)
        distances = torch.where(near, window, torch.inf)
        for i, reach in enumerate(reaches):
            step = reach // atrous_rate * atrous_rate
            if abs(row - largest) <= step:
                columns = slice(largest - step, largest + step + 1, atrous_rate)
                found[i] = torch.minimum(found[i], distances[:, columns].amin(1))
    return _answer(torch.stack(found, 1), dis_bias, ori_size)


def _thinned(labels: Tensor, rate: int, least: int) -> Tensor:
    """Labels [H, W, objects] on every so manieth row and column only, those of large objects."""
    lattice = torch.zeros_like(labels[..., :1])
    lattice[::rate, ::rate] = 1
    large = labels.sum((0, 1)) > least * rate**2
    return torch.where(large, labels * lattice, labels)


def _answer(distances: Tensor, dis_bias: Tensor | float, size: Sequence[int] | None) -> Tensor:
    """Distances [objects, n, h, w] as the original returns them, [1, *size, objects, n]."""
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
