"""Matching of frames and images: the original code and its drop-ins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ops.compat import Case, blobs
from pixelkernels import testing
from pixelkernels.compat import (
    bam,
    cfbi,
    dedode,
    dino,
    docs_correlation,
    feelvos,
    hdmnet,
    loftr,
    metavos,
    pfenet,
    sccan,
    stcn,
)


def prior(query: Tensor, supports: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """PFENet and BAM, for each shot."""
    found = []
    for support, mask in zip(supports, masks, strict=True):
        small = F.interpolate(mask, size=query.shape[-2:], mode="bilinear", align_corners=True)
        q, s = query.flatten(2), (support * small).flatten(2).mT
        lengths = torch.bmm(s.norm(2, 2, True), q.norm(2, 1, True))
        best = (torch.bmm(s, q) / (lengths + 1e-7)).max(1)[0]
        low, high = best.min(1, True)[0], best.max(1, True)[0]
        found.append(((best - low) / (high - low + 1e-7)).view(len(query), 1, *query.shape[-2:]))
    return torch.cat(found, 1)


def nearest_neighbours(reference: Tensor, query: Tensor, labels: Tensor, count: int) -> Tensor:
    """FEELVOS: a block of queries at a time against all references, per object."""
    x, y = query.flatten(0, 1), reference.flatten(0, 1)
    blocks = []
    for block in x.chunk(10):
        squares = block.square().sum(1)[:, None] + y.square().sum(1) - 2 * block @ y.T
        wrong = labels.flatten()[None] != torch.arange(count)[:, None]
        blocks.append((squares[:, None] + 1e20 * wrong[None]).amin(2))
    return torch.cat(blocks).view(1, *query.shape[:2], count, 1)


def best_cosine(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """HDMNet: the prior without min-max scaling; the mask is resized by nearest neighbours."""
    small = F.interpolate((mask == 1).float(), query.shape[-2:])
    q, s = query.flatten(2), (support * small).flatten(2).mT
    lengths = torch.bmm(s.norm(2, 2, True), q.norm(2, 1, True))
    return (torch.bmm(s, q) / (lengths + 1e-7)).max(1)[0].view(len(q), 1, *query.shape[-2:])


def softmax_prior(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """SCCAN, one shot."""
    small = F.interpolate(mask, support.shape[-2:], mode="bilinear", align_corners=True)
    q, s = query.flatten(2), support.flatten(2).mT
    cosine = torch.bmm(s, q) / (torch.bmm(s.norm(2, 2, True), q.norm(2, 1, True)) + 1e-7)
    found = (cosine.mT.softmax(-1) @ small.flatten(2).mT).squeeze(-1)
    low, high = found.min(1)[0][:, None], found.max(1)[0][:, None]
    return ((found - low) / (high - low + 1e-7)).view(len(q), 1, *query.shape[-2:])


def global_matching(reference: Tensor, query: Tensor, labels: Tensor, chunks: int) -> Tensor:
    """CFBI: a block of queries at a time against all references, per object."""
    x, y = query.flatten(0, 1), reference.flatten(0, 1)
    far = y.square().sum(1)
    wrong = (labels.flatten(0, 1) < 0.1).T.float() * 5e4
    found = [
        (block.square().sum(1)[:, None] + far - 2 * block @ y.T)[:, None].add(wrong).amin(2)
        for block in x.chunk(chunks)
    ]
    return ((torch.cat(found).sigmoid() - 0.5) * 2).view(1, *query.shape[:2], -1, 1)


def local_matching(
    previous: Tensor, query: Tensor, labels: Tensor, reaches: Sequence[int]
) -> Tensor:
    """CFBI, parallel version: unfolds the features of every window, then the labels."""
    size, most = query.shape[:2], reaches[-1]
    half = (size[0] // 2 + 1, size[1] // 2 + 1)
    x, y = (
        F.interpolate(f.movedim(-1, 0)[None], half, mode="bilinear", align_corners=True)
        for f in (query, previous)
    )
    objects = F.interpolate(labels.movedim(-1, 0)[:, None], half, mode="nearest")
    channels, pixels, window = x.shape[1], half[0] * half[1], 2 * most + 1
    far = F.unfold(F.pad(y, (most,) * 4), half).view(channels, pixels, -1).transpose(0, 1)
    square = F.pad(y.square().sum(1, keepdim=True), (most,) * 4, value=5e4)
    square = F.unfold(square, half).view(*half, -1)
    products = torch.matmul(x.view(channels, pixels, 1).permute(1, 2, 0), far).view(*half, -1)
    distances = x.square().sum(1)[0][..., None] + square - 2 * products
    there = F.unfold(F.pad(objects, (most,) * 4), half).view(len(objects), *half, -1) > 0.9
    masked = torch.where(there, distances, 5e4).view(len(objects), *half, window, window)
    found = [masked.flatten(3).amin(3)]
    for reach in reaches[:-1]:
        near = slice(most - reach, most + reach + 1)
        found.append(masked[..., near, near].flatten(3).amin(3))
    maps = (torch.stack(found, 1).sigmoid() - 0.5) * 2
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=True)
    return maps.permute(2, 3, 0, 1)[None]


def unfolded_matching(
    previous: Tensor, query: Tensor, labels: Tensor, ids: Tensor, reach: int
) -> Tensor:
    """MANet: differences with the unfolded window, resized distance maps, then labels."""
    size = query.shape[:2]
    x, y = (F.avg_pool2d(f.movedim(-1, 0)[None], 2) for f in (query, previous))
    half, channels = x.shape[2:], x.shape[1]
    far = F.unfold(F.pad(y, (reach,) * 4, value=1e20), half).view(channels, *half, -1)
    distances = (x[0][..., None] - far).square().sum(0)
    maps = ((distances.sigmoid() - 0.5) * 2).movedim(-1, 0)[None]
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=True)[0].movedim(0, -1)
    padded = F.pad(labels.movedim(-1, 0)[None].float(), (2 * reach,) * 4)
    there = F.unfold(padded, size, stride=2).view(*size, -1, 1) == ids
    found = torch.where(there, maps[..., None].repeat(1, 1, 1, len(ids)), 1.0).amin(2)
    return found[None, ..., None]


def dense_propagation(
    target: Tensor, sources: Tensor, segments: Tensor, window: Tensor, topk: int
) -> Tensor:
    """DINO: the affinity of all pixels of all frames, masked, reduced to the top k, normalised."""
    count, _, height, width = sources.shape
    unit = F.normalize(target.flatten(1).T, dim=1)
    keys = F.normalize(sources.flatten(2), dim=1)
    affinity = torch.exp(torch.bmm(unit[None].repeat(count, 1, 1), keys) / 0.1)
    affinity *= window
    affinity = affinity.transpose(2, 1).reshape(-1, height * width)
    best = torch.topk(affinity, topk, dim=0)[0]
    affinity[affinity < best.min(0)[0]] = 0
    affinity = affinity / affinity.sum(0, keepdim=True)
    labels = segments.flatten(2).transpose(2, 1).reshape(-1, segments.shape[1]).T
    return (labels @ affinity).view(-1, height, width)


def window_mask(height: int, width: int, radius: int, count: int) -> Tensor:
    near = [(torch.arange(n)[:, None] - torch.arange(n)).abs() <= radius for n in (height, width)]
    both = near[0][:, None, :, None] & near[1][None, :, None, :]
    return both.view(1, height * width, -1).float().repeat(count, 1, 1)


def dense_readout(
    mk: Tensor, ms: Tensor, qk: Tensor, qe: Tensor, mv: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """XMem: similarities, the softmax of the top k scattered into zeros, and the product."""
    keys = mk.transpose(1, 2)
    near = 2 * (keys @ (qk * qe)) - keys.square() @ qe - (qe * qk.square()).sum(1, keepdim=True)
    near = near * ms.transpose(1, 2) / math.sqrt(mk.shape[1])
    best, index = torch.topk(near, top_k, dim=1)
    best = best.exp_()
    best /= best.sum(1, keepdim=True)
    affinity = torch.zeros_like(near).scatter_(1, index, best)
    return mv @ affinity, affinity.sum(2)


def class_means(scores: Tensor, labels: Tensor, counts: Sequence[int], size: Sequence[int]):
    """MetaVOS: all sigmoids, the mean of each class, resizing, and NumPy's argmax."""
    classes = np.unique(labels[labels >= 0].numpy())
    of_class = scores.sigmoid()[0, 0].split(counts)
    found = torch.stack([x.sum(0) / len(x) for x in of_class])
    found = (found / found.sum(0)).view(1, len(counts), *size)
    found = F.interpolate(found, labels.shape[1:], mode="bilinear")[0].numpy()
    return torch.from_numpy(classes[found.argmax(0)]), torch.from_numpy(found[0])


def our_means(scores: Tensor, labels: Tensor, counts: Sequence[int], size: Sequence[int]):
    points = [range(n) for n in counts]
    found = metavos.label_transfer(scores, labels, None, (0, *size), points)
    return tuple(torch.from_numpy(x) for x in found)


def shifted_products(x: Tensor, y: Tensor, reach: int) -> Tensor:
    """DOCS: one displacement at a time."""
    height, width = x.shape[2:]
    padded = F.pad(y, (reach,) * 4)
    window = range(2 * reach + 1)
    return torch.stack(
        [
            (x * padded[:, :, dy : dy + height, dx : dx + width]).mean(1)
            for dy in window
            for dx in window
        ],
        1,
    )


def dual_softmax(a: Tensor, b: Tensor, inverse: float, threshold: float) -> tuple[Tensor, ...]:
    """All confidences of descriptions [B, N, C], and the maxima of rows and columns above the
    threshold: image, i, j and confidence."""
    s = torch.einsum("bnc,bmc->bnm", a, b) * inverse
    p = F.softmax(s, 1) * F.softmax(s, 2)
    best = (p == p.max(2, True)[0]) * (p == p.max(1, True)[0]) * (p > threshold)
    found = best.nonzero(as_tuple=True)
    return *found, p[found]


def dedode_matches(
    points: Tensor, others: Tensor, a: Tensor, b: Tensor, inverse: float, threshold: float
) -> tuple[Tensor, ...]:
    """DeDoDe, of descriptions that it normalises."""
    a, b = (x / x.norm(dim=2, keepdim=True) for x in (a, b))
    batch, i, j, _ = dual_softmax(a, b, inverse, threshold)
    return points[batch, i], others[batch, j], batch


def coarse_matches(a: Tensor, b: Tensor, size: Sequence[int], border: int) -> tuple[Tensor, ...]:
    """LoFTR in evaluation: matches of the matrix of confidences, without those at the borders."""
    a, b = (x / x.shape[2] ** 0.5 for x in (a, b))
    batch, i, j, confidence = dual_softmax(a, b, 1 / 0.1, 0.2)
    inside = torch.ones_like(i, dtype=torch.bool)
    for at in (i, j):
        for place, side in ((at // size[1], size[0]), (at % size[1], size[1])):
            inside &= (place >= border) & (place < side - border)
    return tuple(x[inside] for x in (batch, i, j, confidence))


def our_coarse_matches(a: Tensor, b: Tensor, size: Sequence[int], border: int) -> tuple[Any, ...]:
    matching = SimpleNamespace(temperature=0.1, thr=0.2, border_rm=border, training=False)
    data: dict[str, Any] = {"hw0_c": size, "hw1_c": size, "hw0_i": [8 * side for side in size]}
    loftr.coarse_matching(matching, a, b, data)
    return tuple(data[name] for name in ("b_ids", "i_ids", "j_ids", "mconf"))


def cases() -> list[Case]:
    torch.manual_seed(0)
    mask, seen = blobs(4, 60, 60, 5)[:, None].float(), blobs(4, 60, 60, 6)[:, None].float()
    inside, outside = torch.randn(2, 1, 2048, 1, 1)
    query, support = (
        (torch.randn(4, 2048, 60, 60) + m * inside + (1 - m) * outside).relu() for m in (seen, mask)
    )
    two_shots = ([support[:2], support[2:]], [mask[:2], mask[2:]])
    shares = torch.rand(2, 2, 1, 1).softmax(1)
    reference, other = torch.randn(2, 60, 107, 100)
    objects = testing.coherent_labels(1, 60, 107, 5)[0][..., None]
    frames = torch.randn(2, 117, 117, 100) / 8
    soft = F.one_hot(testing.coherent_labels(1, 117, 117, 3)[0], 3).float()
    some, few_labels = frames[:, :83, :83].contiguous(), soft[:83, :83].contiguous()
    reaches = (2, 4, 6, 8, 10, 12)
    large = torch.randn(2, 120, 214, 100) / 8
    ids, large_labels = torch.arange(3), testing.coherent_labels(1, 120, 214, 3)[0][..., None]
    patches, segments = torch.randn(9, 384, 60, 106), torch.rand(8, 4, 60, 106)
    window = window_mask(60, 106, 12, 8)
    args = SimpleNamespace(
        mk=torch.randn(1, 64, 16200), ms=1 + torch.rand(1, 1, 16200), qk=torch.randn(1, 64, 1620),
        qe=torch.rand(1, 64, 1620), mv=torch.randn(2, 512, 16200),
    )  # fmt: skip
    memory = (args.mk, args.ms, args.qk, args.qe, args.mv, 30)
    scores = torch.randn(1, 1, 200, 240 * 427)
    transfer = (scores, testing.coherent_labels(1, 480, 854, 2), [100, 100], (240, 427))
    deep = torch.randn(2, 6, 1024, 16, 16)
    correlation = docs_correlation.Correlation(15, 1, 15, 1, 1)
    coarse = torch.randn(1, 4800, 256)
    moved = coarse[:, torch.randperm(4800)] + 0.3 * torch.randn(1, 4800, 256)
    described = F.normalize(torch.randn(1, 5000, 256), dim=2)
    noisy = described[:, torch.randperm(5000)] + 0.02 * torch.randn(1, 5000, 256)
    places = torch.rand(2, 1, 5000, 2)
    shots = "4 images, 2048 channels, 60x60"
    return [
        Case(
            "PFENet", "the prior in `forward`", "pfenet.prior", "rounding", shots,
            lambda: pfenet.prior(query, [support], [mask]),
            lambda: prior(query, [support], [mask]).mean(1, True),
        ),
        Case(
            "BAM", "the prior in `forward`", "bam.prior", "rounding",
            "2 shots, 2 images, 2048 channels, 60x60",
            lambda: bam.prior(query[:2], *two_shots, shares),
            lambda: (prior(query[:2], *two_shots) * shares).sum(1, True),
        ),
        Case(
            "HDMNet", "get_similarity", "hdmnet.get_similarity", "rounding", shots,
            lambda: hdmnet.get_similarity(query, support, mask),
            lambda: best_cosine(query, support, mask),
        ),
        Case(
            "SCCAN", "generate_prior", "sccan.generate_prior",
            "no 1e-7 beside the product of the norms", shots,
            lambda: sccan.generate_prior(None, query, [support], [mask], (60, 60)),
            lambda: softmax_prior(query, support, mask),
        ),
        Case(
            "FEELVOS, MANet", "nearest_neighbor_features_per_object",
            "feelvos.nearest_neighbor_features_per_object", "rounding; no squares below 0",
            "100 channels, 60x107",
            lambda: feelvos.nearest_neighbor_features_per_object(reference, other, objects, 1)[0],
            lambda: nearest_neighbours(reference, other, objects, 5), leaf=other,
        ),
        Case(
            "MANet", "local_previous_frame_nearest_neighbor_features_per_object",
            "feelvos.local_previous_frame_nearest_neighbor_features_per_object",
            "rounding; MANet's defaults only", "3 objects, 100 channels, 120x214",
            lambda: feelvos.local_previous_frame_nearest_neighbor_features_per_object(
                *large, large_labels, ids
            ),
            lambda: unfolded_matching(*large, large_labels, ids, 12),
        ),
        Case(
            "CFBI", "global_matching", "cfbi.global_matching",
            "float32 whatever `use_float16` says; the labels are not thinned out in place",
            "3 objects, 100 channels, 117x117",
            lambda: cfbi.global_matching(*frames, soft),
            lambda: global_matching(*frames, soft, 20),
        ),
        Case(
            "CFBI", "global_matching_for_eval", "cfbi.global_matching_for_eval",
            "float32 whatever `use_float16` says; the labels are not thinned out in place",
            "2 references, 3 objects, 100 channels, 83x83",
            lambda: cfbi.global_matching_for_eval(list(some), some[0], [few_labels] * 2),
            lambda: global_matching(some.flatten(0, 1), some[0], few_labels.repeat(2, 1, 1), 20),
            leaf=some,
        ),
        Case(
            "CFBI", "local_matching", "cfbi.local_matching",
            "float32 whatever `use_float16` says", "3 objects, 100 channels, 117x117",
            lambda: cfbi.local_matching(*frames, soft, multi_local_distance=reaches),
            lambda: local_matching(*frames, soft, reaches), leaf=frames,
        ),
        Case(
            "DINO", "label_propagation", "dino.label_propagation",
            "rounding; no mask of all pairs is made or returned",
            "8 frames, 384 channels, 60x106, without the network",
            lambda: dino.propagate(patches[8], patches[:8], segments, 12, 5),
            lambda: dense_propagation(patches[8], patches[:8], segments, window, 5),
        ),
        Case(
            "LoFTR, EfficientLoFTR, kornia", "CoarseMatching.forward", "loftr.coarse_matching",
            "no `conf_matrix` in evaluation; of equal maxima the first", "256 channels, 60x80",
            lambda: our_coarse_matches(coarse, moved, (60, 80), 2),
            lambda: coarse_matches(coarse, moved, (60, 80), 2),
        ),
        Case(
            "DeDoDe", "DualSoftMaxMatcher.match", "dedode.match", "of equal maxima the first",
            "5000 descriptions of 256 channels",
            lambda: dedode.match(None, places[0], described, places[1], noisy, None, None, True, 20,
                                 0.01),
            lambda: dedode_matches(*places, described, noisy, 20, 0.01),
        ),
        Case(
            "XMem, STCN, Cutie", "get_similarity, do_softmax, readout", "stcn.readout",
            "one call in place of three; far matches are no NaN",
            "2 objects, 16200 entries, 1620 pixels",
            lambda: stcn.readout(*memory), lambda: dense_readout(*memory), 1e-3, leaf=args.mv,
        ),
        Case(
            "MetaVOS", "label_transfer", "metavos.label_transfer", "no CRF",
            "200 points, 2 classes, 240x427 to 480x854",
            lambda: our_means(*transfer), lambda: class_means(*transfer),
        ),
        Case(
            "DOCS", "Correlation", "docs_correlation.Correlation",
            "only with DOCS's own kernel, stride and padding", "6 images, 1024 channels, 16x16",
            lambda: correlation(*deep), lambda: shifted_products(*deep, 15), leaf=deep,
        ),
    ]  # fmt: skip
