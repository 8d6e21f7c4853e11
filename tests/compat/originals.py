"""What the originals compute, written down independently of the library and slowly."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.segmentation import find_boundaries

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}


def assert_close(found, expected):
    """The largest error is at most TOLERANCES times the largest expected value."""
    limit = TOLERANCES[found.dtype] * expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=limit)


def resized(x, size):
    """[B, C, H, W] bilinearly with aligned corners."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def offsets(x, radius, fill, step=1):
    """x [..., H, W] at every offset of a window, row by row, with `fill` outside."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (radius,) * 4, value=fill)
    last = radius // step * step
    for dy in range(radius - last, 2 * radius + 1, step):
        for dx in range(radius - last, 2 * radius + 1, step):
            yield padded[..., dy : dy + height, dx : dx + width]


# ---- clicks ----


def distance_maps(points, rows, cols, radius, scale=1.0, disks=False):
    """DistMaps [B, 2, rows, cols]: the least squared distance to a point; 1e6 for padding."""
    at = points[..., :2].double()
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    pixels = torch.stack([row, col], -1).double()
    squares = (pixels - (at * scale)[:, :, None, None]).square().sum(-1)
    if not disks:
        squares = squares / (radius * scale) ** 2
    squares[at.amax(-1) < 0] = 1e6
    least = squares.unflatten(1, (2, -1)).amin(2)
    return (least <= (radius * scale) ** 2).double() if disks else torch.tanh(2 * least.sqrt())


class Clicker(SimpleNamespace):
    """The attributes of RITM's clicker. The module of its class must define Click."""


class Click(NamedTuple):
    is_positive: bool
    coords: tuple[int, int]


def clicker(target):
    target = np.asarray(target)
    everywhere = np.ones(target.shape, bool)
    return Clicker(gt_mask=target, not_ignore_mask=everywhere, not_clicked_map=everywhere.copy())


def depths(error, padding=True):
    padded = np.pad(error, 1) if padding else error
    depth = ndimage.distance_transform_edt(padded)
    return depth[1:-1, 1:-1] if padding else depth


def next_click(clicker, prediction, padding=True):
    known = (clicker.gt_mask != -1) & clicker.not_ignore_mask
    missed = (clicker.gt_mask == 1) & ~prediction & known
    wrong = (clicker.gt_mask != 1) & prediction & known
    missed, wrong = (depths(e, padding) * clicker.not_clicked_map for e in (missed, wrong))
    positive = missed.max() > wrong.max()
    depth = missed if positive else wrong
    row, column = np.argwhere(depth == depth.max())[0]
    return Click(bool(positive), (int(row), int(column)))


def points_in_crops(points, rois, size):
    """The points [B, N, 3], one by one, in crops (x1, y1, x2, y2) that are resized to `size`."""
    result = points.double()
    for image, (x1, y1, x2, y2) in zip(result, rois.tolist(), strict=True):
        for point in image:
            point[0] = (point[0] - y1) * size[0] / (y2 - y1)
            point[1] = (point[1] - x1) * size[1] / (x2 - x1)
    return result


def sam3_distances(images):
    """[B, H, W]; 1e9 in an image without a zero."""
    return [np.full(x.shape, 1e9) if x.all() else depths(x, padding=False) for x in images]


# ---- distances to boundaries ----


def boundary_map(mask, sampling=None):
    """LIVIAETS boundary-loss: one class of `one_hot2dist`, float64; 0 without an object."""
    if not mask.any():
        return np.zeros(mask.shape)
    inside, outside = (ndimage.distance_transform_edt(x, sampling=sampling) for x in (mask, ~mask))
    return np.where(mask, 1 - inside, outside)


def inner_boundary_map(mask):
    """DTC's and SASSNet's `compute_sdf`, not normalised."""
    if not mask.any():
        return np.zeros(mask.shape)
    inside, outside = (ndimage.distance_transform_edt(x) for x in (mask, ~mask))
    return np.where(find_boundaries(mask, mode="inner"), 0, outside - inside)


def surface_loss(probabilities, maps, classes):
    """LIVIAETS SurfaceLoss, given `boundary_map` of every image and class."""
    return torch.stack([(probabilities[:, c] * maps[:, c]).mean() for c in classes]).mean()


def other_side(mask, sampling=None):
    """The distance to the nearest pixel on the other side of the boundary; 0 without one."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return sum(ndimage.distance_transform_edt(x, sampling=sampling) for x in (mask, ~mask))


def hausdorff(prediction, target, alpha=2.0, sampling=None):
    """MONAI's HausdorffDTLoss before its reduction, [B, C], from masks or soft ones; float64."""
    weights = torch.zeros(prediction.shape, dtype=torch.float64)
    for index in np.ndindex(*prediction.shape[:2]):
        for x in (prediction, target):
            side = (x[index].detach() > 0.5).numpy()
            weights[index] += torch.from_numpy(other_side(side, sampling) ** alpha)
    return ((prediction - target) ** 2 * weights).flatten(2).mean(2)


# ---- few-shot segmentation ----


def cosines(support, query, eps=1e-7):
    """[B, support positions, query positions]."""
    s, q = support.flatten(2), query.flatten(2)
    return s.mT @ q / (s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None] + eps)


def rescaled(x):
    """To [0, 1] over the last dimension."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low + 1e-7)


def pfenet_prior(query, supports, masks):
    size = query.shape[2:]
    shots = [
        rescaled(cosines(s * resized(m, size), query).amax(1))
        for s, m in zip(supports, masks, strict=True)
    ]
    return torch.stack(shots).mean(0).view(-1, 1, *size)


def hdmnet_similarity(query, support, mask):
    size = query.shape[2:]
    small = F.interpolate((mask.view(-1, 1, *mask.shape[-2:]) == 1).double(), size, mode="nearest")
    return cosines(support * small, query).amax(1).view(-1, 1, *size)


def sccan_means(query, support, mask):
    """Means of the mask before they are rescaled, [B, h * w]."""
    small = resized(mask, support.shape[2:]).flatten(1)[:, :, None]
    return (cosines(support, query, 0).softmax(1) * small).sum(1)


def sccan_prior(query, supports, masks, size):
    means = [sccan_means(query, s, m) for s, m in zip(supports, masks, strict=True)]
    shots = [resized(rescaled(x).view(-1, 1, *query.shape[2:]), size) for x in means]
    return torch.stack(shots).mean(0)


def panet_prototype(features, mask):
    large = F.interpolate(features, mask.shape[1:], mode="bilinear", align_corners=False)
    return (large * mask).sum((2, 3)) / (mask.sum() + 1e-5)


def weighted_gap(features, mask):
    return (features * mask).sum((2, 3), True) / (mask.sum((2, 3), True) + 5e-4)


# ---- matching of frames; images are [D, H, W] ----


def squashed(distances):
    return 2 * distances.sigmoid() - 1


def square_distances(x, y):
    """[pixels of x, pixels of y]."""
    x, y = x.flatten(1).T, y.flatten(1).T
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


def feelvos(reference, query, labels, ids, k):
    """[ids, H, W]."""
    result = []
    for i in ids:
        points = reference.flatten(1)[:, labels.flatten() == i]
        if points.shape[1] == 0:
            absent = 1e20 if k == 1 else 0
            result.append(torch.full(query.shape[1:], absent, dtype=torch.float64))
            continue
        distances = square_distances(query, points).sort(1).values
        nearest = [min(j, points.shape[1] - 1) for j in range(k)]
        result.append(distances[:, nearest].mean(1).view(query.shape[1:]))
    return torch.stack(result)


def manet_local(previous, query, labels, ids, radius):
    """[ids, H, W]; features are compared at half the size."""
    size = labels.shape
    x, y = (F.avg_pool2d(image[None], 2)[0] for image in (query, previous))
    result = torch.ones(len(ids), *size, dtype=torch.float64)
    far_labels = offsets(labels, 2 * radius, 0, 2)
    for far, label in zip(offsets(y, radius, torch.inf), far_labels, strict=True):
        full = resized(squashed((x - far).square().sum(0))[None, None], size)[0]
        same = label == torch.as_tensor(ids)[:, None, None]
        result = torch.where(same, torch.minimum(result, full), result)
    return result


def cfbi_global(reference, query, labels, bias, rate=1, least=0):
    """[objects, H, W]; soft labels [objects, H, W]."""
    thin = labels.clone()
    if rate > 1:
        lattice = torch.zeros_like(labels[0])
        lattice[::rate, ::rate] = 1
        for i, soft in enumerate(labels):
            if soft.sum() > least * rate**2:
                thin[i] *= lattice
    thin = thin.flatten(1)
    used = thin.sum(0) > 0.9
    distances = square_distances(query, reference.flatten(1)[:, used])
    nearest = torch.stack([distances[:, soft[used] >= 0.1].amin(1) for soft in thin])
    return squashed(nearest + bias[:, None]).view(-1, *query.shape[1:])


def cfbi_local(previous, query, labels, bias, radii, rate=1, downsample=True):
    """[objects, radii, H, W]; soft labels [objects, H, W]."""
    height, width = query.shape[1:]
    x, y, labels = (image[None] for image in (query, previous, labels))
    if downsample:
        size = (height // 2 + 1, width // 2 + 1)
        x, y = resized(x, size), resized(y, size)
        labels = F.interpolate(labels, size, mode="nearest")
    result = []
    for radius in (radii[-1], *radii[:-1]):
        nearest = torch.full((labels.shape[1], *x.shape[2:]), torch.inf, dtype=torch.float64)
        windows = (offsets(y[0], radius, torch.inf, rate), offsets(labels[0], radius, 0, rate))
        for far, label in zip(*windows, strict=True):
            distance = torch.where(label > 0.9, (x[0] - far).square().sum(0), torch.inf)
            nearest = torch.minimum(nearest, distance)
        result.append(nearest)
    distances = torch.stack(result, 1) + bias[:, None, None, None]
    return resized(squashed(distances), (height, width))


def dino(target, sources, segments, radius, topk):
    """[C, H, W]."""
    height, width = target.shape[1:]
    unit = F.normalize(target.flatten(1), dim=0)
    affinity = torch.exp(unit.T @ F.normalize(sources.flatten(2), dim=1) / 0.1)
    pixel = torch.arange(height * width)
    near = [(x[:, None] - x).abs() <= (radius or math.inf) for x in (pixel // width, pixel % width)]
    affinity = (affinity * (near[0] & near[1])).movedim(0, 1).flatten(1)
    last = affinity.sort(1, descending=True).values[:, topk - 1 : topk]
    weights = torch.where(affinity >= last, affinity, 0)
    labels = segments.flatten(2).movedim(1, 2).flatten(0, 1)
    return (weights @ labels / weights.sum(1, keepdim=True)).T.view(-1, height, width)


def xmem_readout(mk, ms, qk, qe, mv, top_k):
    """Of one image: values [..., V, queries] and usage [1, N]. Without a selection, the query's own
    square is left out."""
    similarity = 0
    for c, (key, query) in enumerate(zip(mk[0], qk[0], strict=True)):
        if qe is None:
            similarity = similarity - key[:, None].square() + 2 * key[:, None] * query
        else:
            similarity = similarity - (key[:, None] - query).square() * qe[0, c]
    similarity = similarity / math.sqrt(mk.shape[1]) * (1 if ms is None else ms[0, 0][:, None])
    best = similarity.topk(top_k or len(similarity), dim=0)
    affinity = torch.zeros_like(similarity).scatter(0, best.indices, best.values.softmax(0))
    return mv @ affinity, affinity.sum(1)[None]


def metavos(scores, counts, size, out, best=None):
    """The shares of the classes [classes, H, W], from scores [K, h * w] sorted by class."""
    kept = [
        x.sigmoid().sort(0, descending=True).values[:best].mean(0)
        for x in scores.double().split(counts)
    ]
    share = (torch.stack(kept) / sum(kept)).view(1, -1, *size)
    return F.interpolate(share, out, mode="bilinear", align_corners=False)[0]


# ---- losses and layers ----


def discriminative_terms(features, labels, deltas, ids=None, reduction="cluster"):
    """Variance, distance and norm of one image [E, ...] with labels [...]; 0 without clusters."""
    pixels, labels = features.flatten(1).T, labels.flatten()
    members = [pixels[labels == i] for i in (labels.unique() if ids is None else ids)]
    if not members:
        return pixels.new_zeros(3)
    means = torch.stack([m.mean(0) for m in members])
    hinges = [
        ((m - mean).norm(dim=1) - deltas[0]).clamp(min=0).square()
        for m, mean in zip(members, means, strict=True)
    ]
    pixel = torch.cat(hinges).mean()
    variance = pixel if reduction == "pixel" else torch.stack([h.mean() for h in hinges]).mean()
    gaps = (means[:, None] - means).norm(dim=2)[~torch.eye(len(means), dtype=torch.bool)]
    distance = (2 * deltas[1] - gaps).clamp(min=0).square().sum() / max(len(gaps), 1)
    return torch.stack([variance, distance, means.norm(dim=1).mean()])


def spoco(features, ids, without_zero, deltas, weights):
    """The loss of one image. Id 0 is always part of the norms."""
    everything = discriminative_terms(features, ids, deltas)
    kept = [i for i in ids.unique().tolist() if i != 0 or not without_zero]
    pull, push, _ = discriminative_terms(features, ids, deltas, kept)
    return weights[0] * pull + weights[1] * push + weights[2] * everything[2]


def cas(gt, softmaxed):
    inside, outside = gt + 3e-5, 1 - gt + 3e-5
    mean, other = (
        (w * softmaxed).sum((2, 3), True) / w.sum((2, 3), True) for w in (inside, outside)
    )
    spread = (inside * (softmaxed - mean)).square().sum((2, 3)) / (inside.sum((2, 3)) + 3e-5)
    return 0.5 * (spread.sum() - (mean - other).square().sum()) / 40


def menet_layer(metric, logits, labels):
    """The two values and the two gradients of the released layer, image by image."""
    images, channels, height, width = metric.shape
    norm = metric.norm(dim=1, keepdim=True)
    f = metric / torch.where(norm == 0, 1, norm)
    terms, of_metric = [], torch.zeros_like(metric)
    for n in range(images):
        y = labels[n, 0].flatten()
        x = f[n].flatten(1)
        count = y.sum()
        own = x @ y / max(count, 1)
        other = x @ (1 - y) / max(len(y) - count, 1)
        gap = (x - own[:, None]).square().sum(0) - (x - other[:, None]).square().sum(0)
        term = torch.where(y == 1, gap, -gap)
        terms.append(term)
        mined = int(min(count, len(y) - count))
        large = y if count > len(y) - count else 1 - y
        rank = torch.where(term == 0, -100, term)
        order = sorted((rank[i].item(), i) for i in range(len(y)) if large[i] == 1)
        keep = [i for _, i in order[len(order) - mined :]]
        keep += [i for i in range(len(y)) if large[i] == 0]
        slope = torch.zeros_like(x)
        for i in keep:
            slope[:, i] = other - own if y[i] == 1 else own - other
        of_metric[n] = slope.view(channels, height, width) / (channels * height * width)
    onehot = torch.cat([1 - labels, labels], 1)
    p = logits.softmax(1).clamp(min=1e-10)
    values = torch.stack([torch.stack(terms).mean() + 4, -(p.log() * onehot).mean()])
    return values, of_metric, (p - onehot) / (2 * height * width)


def contrastiveseg(anchors, labels, temperature, base, queue=None, skips=(True, True)):
    """[classes, views, D] with labels [classes]. `skips`: class 0 of the queue, the diagonal."""
    x, own = anchors.transpose(0, 1).flatten(0, 1), labels.repeat(anchors.shape[1])
    bank, kinds, terms = x, own, []
    if queue is not None:
        classes = [*range(1, len(queue)), 0] if skips[0] else range(len(queue))
        bank = torch.cat([queue[c] * (c > 0 or not skips[0]) for c in classes])
        kinds = torch.tensor(classes).repeat_interleave(queue.shape[1])
    for i, s in enumerate(x @ bank.T / temperature):
        positive = (kinds == own[i]) & ((torch.arange(len(s)) != i) | (not skips[1]))
        terms.append((torch.log(s.exp() + s[kinds != own[i]].exp().sum()) - s)[positive].mean())
    return temperature / base * torch.stack(terms).mean()


def supcon(x, labels, temperature, bank, bank_labels, own):
    """pytorch-metric-learning's. `own`: entry i of the bank is embedding i."""
    other = labels[:, None] != bank_labels
    same = ~other & ~(torch.eye(*other.shape, dtype=torch.bool) & own)
    rows = zip(F.normalize(x) @ F.normalize(bank).T / temperature, same, same | other, strict=True)
    terms = [s[k].logsumexp(0) - s[p].mean() for s, p, k in rows if p.any()]
    kept = [t for t in terms if t > 0] if other.any() and same.sum() + other.sum() > 2 else []
    return torch.stack(kept).mean() if kept else 0 * x.sum()
