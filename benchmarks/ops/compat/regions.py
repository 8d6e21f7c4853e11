"""Region losses and prototypes: the original code and its drop-ins."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ops.compat import Case, blobs
from benchmarks.ops.regions_peers import pool_upsampled
from pixelkernels import testing
from pixelkernels.compat import cas, discriminative, menet, panet, persam, pfenet, spoco


def weighted_gap(features: Tensor, mask: Tensor) -> Tensor:
    height, width = features.shape[-2:]
    area = F.avg_pool2d(mask, (height, width)) * height * width + 5e-4
    return F.avg_pool2d(features * mask, (height, width)) * height * width / area


def contrastive(features: Tensor, labels: Tensor, delta_var: float, delta_dist: float) -> Tensor:
    """torch-em: one-hot masks of the clusters times the features."""
    losses = []
    for x, target in zip(features, labels[:, 0], strict=True):
        count = int(target.max()) + 1
        masks = torch.stack([target == i for i in range(count)]).float()
        sizes = masks.flatten(1).sum(1)
        means = (masks[:, None] * x[None]).flatten(2).sum(2) / sizes[:, None]
        gaps = ((x[None] - means[..., None, None]).norm(dim=1) - delta_var).clamp(min=0).square()
        variance = ((gaps * masks).flatten(1).sum(1) / sizes).mean()
        apart = (2 * delta_dist - torch.cdist(means, means)).clamp(min=0).square()
        distance = apart.fill_diagonal_(0).sum() / (count * (count - 1))
        losses.append(variance + distance + 1e-3 * means.norm(dim=1).mean())
    return torch.stack(losses).mean()


def released_cas(gt: Tensor, softmaxed: Tensor) -> Tensor:
    gt = gt.expand(-1, softmaxed.shape[1], -1, -1)
    inside, outside = gt + 3e-5, 1 - gt + 3e-5
    mean, other = ((w * softmaxed).sum((2, 3)) / w.sum((2, 3)) for w in (inside, outside))
    spread = (inside * softmaxed - inside * mean[..., None, None]).square().sum((2, 3))
    spread = (spread / (inside.sum((2, 3)) + 3e-5)).sum()
    return (0.5 * spread - 0.5 * (mean - other).square().sum()) / 40


def masked_clusters(features: Tensor, masks: Tensor, by_pixel: bool) -> Tensor:
    """nyoki-mtl, and Wizaron by pixel: masks [B, n, H, W] times features, all at once."""
    x, m = features.flatten(2)[:, None], masks.flatten(2)[:, :, None]
    sizes = m.sum(3)
    means = (x * m).sum(3) / sizes
    gaps = ((x - means[..., None]).norm(2, 2) - 0.5).clamp(min=0).square() * m[:, :, 0]
    per_cluster = (gaps.sum(2) / sizes[..., 0]).mean()
    variance = (gaps.sum((1, 2)) / sizes.sum((1, 2))).mean() if by_pixel else per_cluster
    count = masks.shape[1]
    apart = (means[:, :, None] - means[:, None]).norm(2, 3)
    margin = 3.0 * (1 - torch.eye(count))
    distance = (margin - apart).clamp(min=0).square().sum((1, 2)) / (count * (count - 1))
    distance = distance if by_pixel else distance / 2
    return variance + distance.mean() + 1e-3 * means.norm(2, 2).mean()


def spoco_contrastive(features: Tensor, ids: Tensor) -> Tensor:
    """spoco with zero_label_push: means by one-hot masks, then gathered per pixel."""
    losses = []
    for x, target in zip(features, ids, strict=True):
        present, counts = target.unique(return_counts=True)
        masks = F.one_hot(target, len(present)).movedim(-1, 0).float()[:, None]
        means = (masks * x[None]).sum((2, 3)) / masks.sum((2, 3))
        gap = (x - means[target].movedim(-1, 0)).norm(dim=0) * (target != 0)
        pull = ((gap - 0.5).clamp(min=0).square() / counts[target]).sum() / (len(present) - 1)
        apart = (means[1:, None] - means[None, 1:]).norm(dim=2)
        margin = 3.0 * (1 - torch.eye(len(present) - 1))
        pairs = (len(present) - 1) * (len(present) - 2)
        push = (margin - apart).clamp(min=0).square().sum() / pairs
        losses.append(pull + push + 1e-3 * means.norm(dim=1).mean())
    return torch.stack(losses).mean()


def released_layer(metric: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """MEnet's NumPy layer: copies per channel, and a sorted list of the pixels of each image."""
    f, s, y = metric.numpy(), logits.numpy(), labels.numpy()
    count, channels, height, width = f.shape
    s = np.exp(s - s.max(1, keepdims=True))
    s = np.maximum(s / s.sum(1, keepdims=True), 1e-10)
    onehot = np.concatenate([1 - y, y], 1)
    norm = np.sqrt((f**2).sum(1, keepdims=True))
    f = f / np.where(norm == 0, 1, norm)
    wide = np.tile(y, (1, channels, 1, 1))
    sums = [(f * w).reshape(count, channels, -1).sum(2) for w in (wide, 1 - wide)]
    sizes = [np.maximum(w.reshape(count, -1).sum(1), 1) for w in (y, 1 - y)]
    own, other = ((a / b[:, None])[..., None, None] for a, b in zip(sums, sizes, strict=True))
    inside = (((f - own) ** 2 - (f - other) ** 2) * wide).sum(1, keepdims=True)
    outside = (((f - other) ** 2 - (f - own) ** 2) * (1 - wide)).sum(1, keepdims=True)
    terms, slope = inside + outside, np.zeros_like(f)
    for n in range(count):
        positive = y[n].sum()
        large = y[n] if positive > y[n].size - positive else 1 - y[n]
        loss = large * terms[n]
        loss[loss == 0] = -100
        order = sorted(zip(loss.flatten(), range(loss.size), strict=True), reverse=True)
        mined = np.zeros(loss.size, np.float32)
        mined[[i for _, i in order[: int(min(positive, y[n].size - positive))]]] = 1
        keep = mined.reshape(y[n].shape) + (1 - large)
        slope[n] = (other - own)[n] * keep * y[n] + (own - other)[n] * keep * (1 - y[n])
    values = np.array([terms.mean() + 4, (-np.log(s) * onehot).mean()])
    gradients = slope / (channels * height * width), (s - onehot) / (2 * height * width)
    return tuple(torch.from_numpy(x) for x in (values, *gradients))


def our_layer(metric: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in (metric, logits)]
    found = menet.EuclideanLossLayer()(*leaves, labels)
    return (found.detach(), *torch.autograd.grad(found.sum(), leaves))


def cosine_map(target: Tensor, features: Tensor) -> Tensor:
    """PerSAM: both are divided by their norms, then one product."""
    unit = target / target.norm(dim=-1, keepdim=True)
    points = (features / features.norm(dim=1, keepdim=True)).flatten(2)
    return (unit @ points).view(1, 1, *features.shape[2:])


def selected_points(similarity: Tensor) -> tuple[Tensor, ...]:
    width = similarity.shape[1]
    pixels = [similarity.flatten().topk(1, largest=side)[1] for side in (True, False)]
    return tuple(torch.stack([p % width, p // width], 1) for p in pixels)


def our_points(similarity: Tensor) -> tuple[Tensor, ...]:
    found = persam.point_selection(similarity)
    return torch.from_numpy(found[0]), torch.from_numpy(found[2])


def cases() -> list[Case]:
    torch.manual_seed(0)
    mask = blobs(4, 60, 60, 5)[:, None].float()
    middle = torch.randn(4, 256, 60, 60)
    features, wide = torch.randn(1, 512, 53, 53), blobs(1, 417, 417, 6).float()
    x, labels = torch.randn(2, 16, 256, 256), testing.coherent_labels(2, 256, 256, 20)
    one_hot = F.one_hot(labels, 20).movedim(-1, 1).float()
    soft, gt = torch.randn(40, 2, 256, 256).softmax(1), blobs(40, 256, 256, 7)[:, None].float()
    layer = (
        torch.randn(5, 16, 224, 224), torch.randn(5, 2, 224, 224),
        blobs(5, 224, 224, 8)[:, None].float(),
    )  # fmt: skip
    similarity, prototype = torch.randn(1080, 1920), torch.randn(1, 512)
    sizes = "2 images, 16 channels, 20 ids, 256x256"
    embedding, target = torch.randn(1, 256, 64, 64), torch.randn(1, 256)
    # a view, as in PerSAM
    frame, object_mask = embedding[0].movedim(0, -1), blobs(1, 64, 64, 9)[0].float()
    maps = torch.randn(4, 512, 53, 53)
    return [
        Case(
            "PFENet, BAM, HDMNet, SCCAN", "Weighted_GAP", "pfenet.weighted_gap", "rounding",
            "4 images, 256 channels, 60x60",
            lambda: pfenet.weighted_gap(middle, mask), lambda: weighted_gap(middle, mask),
            leaf=middle,
        ),
        Case(
            "PFENet, BAM, HDMNet, SCCAN", "Weighted_GAP, gradient in the mask",
            "pfenet.weighted_gap", "rounding", "4 images, 256 channels, 60x60",
            lambda: pfenet.weighted_gap(middle, mask), lambda: weighted_gap(middle, mask),
            leaf=mask, training=True,
        ),
        Case(
            "PANet", "getFeatures", "panet.getFeatures",
            "rounding: the mask is resized, by the adjoint, not the features",
            "512 channels, 53x53 to 417x417",
            lambda: panet.getFeatures(None, features, wide),
            lambda: pool_upsampled(features, wide)[0], leaf=features,
        ),
        Case(
            "PANet", "calDist", "panet.calDist", "rounding", "4 images, 512 channels, 53x53",
            lambda: panet.calDist(None, maps, prototype),
            lambda: 20 * F.cosine_similarity(maps, prototype[..., None, None], dim=1), leaf=maps,
        ),
        Case(
            "PerSAM", "the mean of the object", "persam.target_embedding", "rounding",
            "256 channels, 64x64",
            lambda: persam.target_embedding(frame, object_mask),
            lambda: frame[object_mask > 0].mean(0)[None],
        ),
        Case(
            "PerSAM", "the cosine with every pixel", "persam.similarity",
            "0 for a zero vector, which is NaN there", "256 channels, 64x64",
            lambda: persam.similarity(target, embedding[0]),
            lambda: cosine_map(target, embedding),
        ),
        Case(
            "PerSAM", "point_selection", "persam.point_selection",
            "of equal pixels the first, for one point", "1080x1920",
            lambda: our_points(similarity), lambda: selected_points(similarity), 0,
        ),
        Case(
            "torch-em", "ContrastiveLoss", "discriminative.ContrastiveLoss",
            "ids need not be consecutive; `ignore_label` works", sizes,
            lambda: discriminative.ContrastiveLoss(0.5, 1.5)(x, labels[:, None]),
            lambda: contrastive(x, labels[:, None], 0.5, 1.5)[None], leaf=x, training=True,
        ),
        Case(
            "spoco, pytorch-3dunet", "ContrastiveLoss", "spoco.ContrastiveLoss",
            "ids need not be consecutive", sizes,
            lambda: spoco.ContrastiveLoss(0.5, 1.5, zero_label_push=True)(x, labels),
            lambda: spoco_contrastive(x, labels), leaf=x, training=True,
        ),
        Case(
            "nyoki-mtl", "DiscriminativeLoss", "discriminative.nyoki_loss",
            "hard masks that do not overlap; an empty one is no NaN", sizes,
            lambda: discriminative.nyoki_loss(x, one_hot, [20, 20]),
            lambda: masked_clusters(x, one_hot, False), leaf=x, training=True,
        ),
        Case(
            "Wizaron", "DiscriminativeLoss", "discriminative.wizaron_loss",
            "hard masks that do not overlap; an empty one is no NaN", sizes,
            lambda: discriminative.wizaron_loss(x, one_hot, [20, 20], 0.5, 1.5, 2),
            lambda: masked_clusters(x, one_hot, True), leaf=x, training=True,
        ),
        Case(
            "CAS", "lss", "cas.lss", "hard masks only", "40 images, 2 channels, 256x256",
            lambda: cas.lss()(gt, soft), lambda: released_cas(gt, soft), leaf=soft, training=True,
        ),
        Case(
            "MEnet", "EuclideanLossLayer", "menet.EuclideanLossLayer",
            "scales with the gradient from above", "5 images, 16 channels, 224x224",
            lambda: our_layer(*layer), lambda: released_layer(*layer), gradients=2,
        ),
    ]  # fmt: skip
