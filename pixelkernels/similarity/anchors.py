"""Anchors of a contrastive loss: hard and easy pixels of every class of every image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.named_tuples import serializable
from .._core.operators import random_uniform


@serializable
class Anchors(NamedTuple):
    """`features` [S, D] of the drawn pixels, and their `labels` [S] int64."""

    features: Tensor
    labels: Tensor


def sample_anchors(
    features: Tensor,
    labels: Tensor,
    prediction: Tensor,
    *,
    max_samples: int = 1024,
    max_views: int = 100,
    ignore_index: int = -1,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Anchors:
    """Sample as many pixels of every class of every image, half of them predicted wrongly.

    The groups are the pairs of an image and a label but ignore_index that has more than max_views
    pixels in it. Of each of the G groups, over all images, V = min(max_samples // G, max_views)
    pixels are drawn: V // 2 hard ones, whose prediction is another label, and V - V // 2 easy ones.
    If a group has fewer than V / 2 pixels of one kind, all of them are drawn, and the rest are of
    the other kind. Draws are uniform without replacement, in random order. Equivalent eager code,
    for a group of label c in image b:

        own, wrong = labels[b].flatten() == c, prediction[b].flatten() != c
        hard, easy = (own & wrong).nonzero()[:, 0], (own & ~wrong).nonzero()[:, 0]
        num = V // 2
        if min(len(hard), len(easy)) < V / 2:
            num = len(hard) if len(hard) < V / 2 else V - len(easy)
        hard, easy = (x[torch.randperm(len(x))] for x in (hard, easy))
        group = features[b].flatten(1)[:, torch.cat((hard[:num], easy[: V - num]))]

    Args:
        features: [B, D, H, W].
        labels: [B, H, W], integer or bool, any values.
        prediction: [B, H, W], integer or bool: the predicted labels.
        max_samples: S >= 1. More than S groups have no pixels: V is 0.
        max_views: >= 1.
        ignore_index: pixels of this label are never drawn.
        generator: on the device of `labels`; the same state draws the same pixels on one device.
        backend: "eager", in plain PyTorch, is the only one.

    Returns: `Anchors(features [S, D], labels [S] int64)`: the groups image by image and in
    ascending order of the labels, of each the hard pixels before the easy ones. The S - G V rows
    after them are zeros of label ignore_index. Differentiable in features; the gradient of a pixel
    that is not drawn is 0.
    Memory: about 80 bytes per pixel; backward, the gradient.
    Source: Wang et al., Exploring cross-image pixel contrast for semantic segmentation, the
    released code.

    Example:

        >>> features = torch.randn(2, 64, 32, 32, requires_grad=True)
        >>> labels, prediction = torch.randint(3, (2, 2, 32, 32))
        >>> anchors = pk.sample_anchors(features, labels, prediction, max_samples=512)
        >>> anchors.features.shape, int((anchors.labels >= 0).sum())  # 6 groups of 85
        (torch.Size([512, 64]), 510)
    """
    check.features("features", features)
    check.labels("labels", labels, "features", features)
    check.labels("prediction", prediction, "features", features)
    max_samples = check.count("max_samples", max_samples)
    max_views = check.count("max_views", max_views)
    ignore_index = check.label("ignore_index", ignore_index)
    check.generator(generator, labels)
    choose("sample_anchors", (features, labels, prediction), backend)
    pixels, drawn, _, _ = draw(labels, prediction, max_samples, max_views, ignore_index, generator)
    return anchors_at(features, labels, pixels, drawn, ignore_index)


def draw(
    labels: Tensor,
    prediction: Tensor,
    max_samples: int,
    max_views: int,
    ignore_index: int,
    generator: Generator | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels [S] of `sample_anchors`, counted over all images; whether each is drawn; the
    number of groups and of pixels of each, 0-d."""
    device, slot = labels.device, torch.arange(max_samples, device=labels.device)
    if labels.numel() == 0:
        nothing = torch.zeros_like(slot)
        return nothing, nothing > 0, nothing[0], nothing[0]
    classes = labels.flatten(1).long()
    size = classes.shape[1]
    easy = classes == prediction.flatten(1).long()
    # the pixels of an image by label, then hard before easy, then by chance
    shuffled = (random_uniform(classes.shape, device, generator) + easy).argsort(1)
    in_order, rank = classes.gather(1, shuffled).sort(dim=1, stable=True)
    is_hard = (rank < (~easy).sum(1, keepdim=True)).flatten()

    place = torch.arange(size, device=device)
    starts = (in_order != in_order.roll(1, 1)) | (place == 0)
    # a label has more than max_views pixels if so many further on there is one of them
    ahead = place + max_views
    same = in_order == in_order[:, ahead.clamp(max=size - 1)]
    is_group = same & (ahead < size) & (in_order != ignore_index)
    groups = (starts & is_group).flatten().cumsum(0)
    labels_so_far, hard_so_far = starts.flatten().cumsum(0), is_hard.cumsum(0)

    count = groups[-1]
    views = (max_samples // count.clamp(min=1)).clamp(max=max_views)
    group, view = slot // views.clamp(min=1), slot % views.clamp(min=1)
    drawn = slot < count * views
    # where there is no such group, the numbers mean nothing but are in range
    last = classes.numel() - 1
    first = torch.searchsorted(groups, group + 1).clamp(max=last)
    end = torch.searchsorted(labels_so_far, labels_so_far[first] + 1)
    num_hard = hard_so_far[end - 1] - hard_so_far[first] + is_hard[first]
    num_easy = end - first - num_hard
    few_easy = torch.where(2 * num_easy < views, views - num_easy, views // 2)
    hard_views = torch.where(2 * num_hard < views, num_hard, few_easy)
    at = (first + view + torch.where(view < hard_views, 0, num_hard - hard_views)).clamp(max=last)
    image = at // size
    pixels = image * size + shuffled.flatten()[image * size + rank.flatten()[at]]
    return torch.where(drawn, pixels, 0), drawn, count, views


def anchors_at(
    features: Tensor, labels: Tensor, pixels: Tensor, drawn: Tensor, ignore_index: int
) -> Anchors:
    """The `drawn` ones of pixels [S], counted over all images; the others are padding."""
    if labels.numel() == 0:  # padding needs a pixel to read
        features, labels = features.new_zeros(1, features.shape[1], 1, 1), labels.new_zeros(1, 1, 1)
    _, height, width = labels.shape
    image, row, column = pixels // (height * width), pixels // width % height, pixels % width
    # only these are read, whatever the strides
    points = features[image, :, row, column]
    return Anchors(
        torch.where(drawn[:, None], points, 0),
        torch.where(drawn, labels[image, row, column].long(), ignore_index),
    )
