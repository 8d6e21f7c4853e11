"""Random reference points of every class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.operators import random_seed, random_uniform, to_kernel_dtype
from . import ops, reference


def sample_reference(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    num_per_class: int,
    *,
    generator: Generator | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample reference points of every class: stochastic pooling.

    Uniform without replacement among the pixels of a class, in random order. Equivalent eager code,
    for one image and class:

        index = (labels[b] == c).flatten().nonzero()[:, 0]
        points = features[b].flatten(1)[:, index[torch.randperm(len(index))[:num_per_class]]]

    Args:
        features: [B, D, H, W].
        labels: [B, H, W], integer or bool; a pixel outside [0, num_classes) is never sampled.
        num_classes: L >= 1.
        num_per_class: n >= 1.
        generator: on the device of `labels`; the same state gives the same points on one backend.

    Returns: (reference [B, D, L*n], labels [B, L*n] int64), class by class. A class with fewer than
    n pixels is padded with zeros, which have label -1. Differentiable in features.
    Memory: 8 bytes per pixel on cpu, about 40 on triton.
    Source: Najafi et al., K points per class of the reference frame.

    Example:

        >>> features, labels = torch.randn(1, 64, 32, 32), torch.randint(3, (1, 32, 32))
        >>> reference, classes = pk.sample_reference(features, labels, 3, 100)
        >>> reference.shape, classes.shape
        (torch.Size([1, 64, 300]), torch.Size([1, 300]))
    """
    check.features("features", features)
    check.labels("labels", labels, "features", features)
    num_classes = check.regions("num_classes", num_classes)
    num_per_class = check.count("num_per_class", num_per_class)
    check.generator(generator, labels)
    chosen = choose("sample_reference", (features, labels), backend)
    index, found = draw(chosen, labels.flatten(1), num_classes, num_per_class, generator)
    pixels = features.flatten(2)
    if pixels.shape[2] == 0:  # padding entries need a pixel to read
        pixels = pixels.new_zeros(*pixels.shape[:2], 1)
    points = pixels.gather(2, index[:, None].expand(-1, features.shape[1], -1))
    classes = torch.arange(num_classes, device=labels.device)
    return (
        torch.where(found[:, None], points, 0),
        torch.where(found, classes.repeat_interleave(num_per_class), -1),
    )


def draw(
    backend: str, labels: Tensor, num_classes: int, num_per_class: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Flat indices [B, L*n] of pixels with labels [B, N], by class, and whether each exists."""
    if backend == "eager":
        keys = random_uniform(labels.shape, labels.device, generator)
        index = reference.sample_reference(labels, num_classes, num_per_class, keys)
        return index.clamp(min=0), index >= 0
    order, offsets = ops.points_by_class(backend, to_kernel_dtype(labels), num_classes)
    seed = random_seed(labels.device, generator)
    ranks = ops.sample_ranks(backend, offsets.diff(), seed, num_per_class)
    found = (ranks >= 0).flatten(1)
    if order.shape[1] == 0:
        return torch.zeros_like(found, dtype=torch.int64), found
    # an absent class may start past the last pixel
    first = offsets[:, :-1, None].clamp(max=order.shape[1] - 1)
    return order.gather(1, (first + ranks.clamp(min=0)).flatten(1)), found
