"""Drop-ins that match frames, and further layers, on photographs: see tests/test_compat_real.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelkernels.compat import (
    cfbi,
    dino,
    docs_correlation,
    feelvos,
    hdmnet,
    menet,
    metavos,
    persam,
    sccan,
    spoco,
    stcn,
)
from tests import test_compat_real
from tests.test_compat_layers import released_layer, spoco_as_written
from tests.test_compat_real import TOLERANCES, assert_close, features

frames = test_compat_real.frames


@pytest.fixture
def pair(frames):
    """Two maps of features [48, h, w] and labels [h, w] of the first, 0 to the number less one."""
    first, second = (features(x)[0] for x in (frames.reference, frames.query))
    labels = frames.labels[8::16, 8::16].unique(return_inverse=True)[1]
    assert labels.max() > 0
    return SimpleNamespace(first=first, second=second, labels=labels, count=int(labels.max()) + 1)


def offsets(x, reach, fill):
    """Every (dy, dx) of a window, and x [..., H, W] there, with `fill` outside."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4, value=fill)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            rows = slice(reach + dy, reach + dy + height)
            yield dy, dx, padded[..., rows, reach + dx : reach + dx + width]


def last(x):
    """[D, H, W] as the projects' [H, W, D]."""
    return x.movedim(0, -1)


def test_cfbi_matching(pair):
    members = F.one_hot(pair.labels, pair.count)
    nearest = torch.full((pair.count, *pair.labels.shape), torch.inf, dtype=torch.float64)
    there = offsets(members.movedim(-1, 0).double(), 4, 0)
    for (_, _, far), (_, _, member) in zip(offsets(pair.first, 4, 0), there, strict=True):
        distance = (pair.second - far).square().sum(0)
        nearest = torch.minimum(nearest, torch.where(member > 0, distance, torch.inf))
    local = 2 * nearest.sigmoid() - 1
    apart = torch.cdist(pair.second.flatten(1).T, pair.first.flatten(1).T).square()
    best = torch.stack([apart[:, m].amin(1) for m in members.flatten(0, 1).bool().T], 1)
    everywhere = (2 * best.sigmoid() - 1).view(*pair.labels.shape, -1)
    for dtype in TOLERANCES:
        given = [last(x).to(dtype) for x in (pair.first, pair.second)]
        soft = members.to(dtype)
        options = {"multi_local_distance": [4], "allow_downsample": False}
        found = cfbi.local_matching(*given, soft, **options)
        assert_close(found[0, ..., 0], last(local))
        assert_close(cfbi.global_matching(*given, soft)[0, ..., 0], everywhere)


def test_manet_local_matching(pair):
    size = pair.labels.shape
    halves = [F.avg_pool2d(x[None], 2)[0] for x in (pair.second, pair.first)]
    expected = torch.ones(pair.count, *size, dtype=torch.float64)
    inside = offsets(torch.ones_like(halves[1][0]), 3, 0)
    labels = [x for dy, dx, x in offsets(pair.labels, 6, 0) if dy % 2 == dx % 2 == 0]
    windows = zip(offsets(halves[1], 3, 0), inside, labels, strict=True)
    for (_, _, far), (_, _, real), label in windows:
        distance = (halves[0] - far).square().sum(0)
        squashed = 2 * torch.where(real > 0, distance, torch.inf).sigmoid() - 1
        full = F.interpolate(squashed[None, None], size, mode="bilinear", align_corners=True)[0]
        same = label == torch.arange(pair.count)[:, None, None]
        expected = torch.where(same, torch.minimum(expected, full), expected)
    for dtype in TOLERANCES:
        given = [last(x).to(dtype) for x in (pair.first, pair.second)]
        ids = torch.arange(pair.count)
        found = feelvos.local_previous_frame_nearest_neighbor_features_per_object(
            *given, pair.labels[..., None], ids, 3
        )
        assert_close(found[0, ..., 0], last(expected))


def test_dino_propagation(pair):
    height, width = pair.labels.shape
    sources = torch.stack([pair.first, pair.first.flip(2)])
    segments = F.one_hot(torch.stack([pair.labels, pair.labels.flip(1)])).movedim(-1, 1).double()
    unit = F.normalize(pair.second.flatten(1), dim=0)
    affinity = torch.exp(unit.T @ F.normalize(sources.flatten(2), dim=1) / 0.1)
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    near = [(x[:, None] - x).abs() <= 5 for x in (row, column)]
    affinity = (affinity * (near[0] & near[1])).movedim(0, 1).flatten(1)
    fifth = affinity.sort(1, descending=True).values[:, 4:5]
    weights = torch.where(affinity >= fifth, affinity, 0)
    labels = segments.flatten(2).movedim(1, 2).flatten(0, 1)
    expected = (weights @ labels / weights.sum(1, keepdim=True)).T.view(-1, height, width)
    found = dino.propagate(pair.second, sources, segments, 5, 5)
    assert_close(found, expected)


def test_xmem_readout(pair):
    keys, queries = (x.flatten(1)[None] for x in (pair.first, pair.second))
    values = torch.stack([keys[0, :6], keys[0, 6:12]])
    selection, shrinkage = queries.sigmoid(), 1 + keys[:, :1].sigmoid()
    gaps = sum(
        s[None] * (k[:, None] - q[None]).square()
        for s, k, q in zip(selection[0], keys[0], queries[0], strict=True)
    )
    similarity = -gaps * shrinkage[0, 0][:, None] / 48**0.5
    best = similarity.topk(30, dim=0)
    affinity = torch.zeros_like(similarity).scatter(0, best.indices, best.values.softmax(0))
    found, usage = stcn.readout(keys, shrinkage, queries, selection, values, 30)
    assert_close(found, values @ affinity)
    assert_close(usage, affinity.sum(1)[None])


def test_metavos_transfer(pair):
    pixels, labels = pair.first.flatten(1), pair.labels.flatten()
    chosen = [(labels == i).nonzero()[::5, 0] for i in range(pair.count)]
    scores = F.normalize(pixels[:, torch.cat(chosen)], dim=0).T @ F.normalize(
        pair.second.flatten(1), dim=0
    )
    means = [x.sigmoid().mean(0) for x in scores.split([len(c) for c in chosen])]
    share = torch.stack(means) / sum(means)
    height, width = pair.labels.shape
    large = F.interpolate(share.view(1, -1, height, width), (2 * height, 2 * width),
                          mode="bilinear")[0]  # fmt: skip
    given = pair.labels.repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    found, first = metavos.label_transfer(
        scores[None, None], given, None, (48, height, width), [c.tolist() for c in chosen]
    )
    np.testing.assert_allclose(first, large[0], rtol=1e-9)
    assert (found == large.argmax(0).numpy()).all()


def test_docs_correlation(pair):
    x, y = pair.first[None, :, ::2, ::2], pair.second[None, :, ::2, ::2]
    expected = torch.stack([(x * far).mean(1) for _, _, far in offsets(y, 4, 0)], 1)
    for dtype in TOLERANCES:
        layer = docs_correlation.Correlation(4, 1, 4, 1, 1)
        assert_close(layer(x.to(dtype), y.to(dtype)), expected)


def test_priors_of_hdmnet_and_sccan(pair, frames):
    query, support = pair.second[None], pair.first[None]
    mask = (frames.labels > 0).long()[None]
    small = F.interpolate(mask[:, None].double(), query.shape[2:], mode="nearest")
    s, q = (support * small).flatten(2), query.flatten(2)
    norms = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None]
    best = ((s.mT @ q) / (norms + 1e-7)).amax(1).view(1, 1, *query.shape[2:])
    soft = F.interpolate(
        mask[:, None].double(), query.shape[2:], mode="bilinear", align_corners=True
    )
    cosine = F.normalize(support.flatten(2), dim=1).mT @ F.normalize(q, dim=1)
    prior = (cosine.softmax(1) * soft.flatten(1)[:, :, None]).sum(1)
    prior = (prior - prior.min()) / (prior.max() - prior.min() + 1e-7)
    for dtype, tolerance in TOLERANCES.items():
        q_, s_ = query.to(dtype), support.to(dtype)
        assert_close(hdmnet.get_similarity(q_, s_, mask), best)
        found = sccan.generate_prior(
            None, q_, [s_], [mask[:, None].to(dtype)], tuple(query.shape[2:])
        )
        # the scaling stretches the softmax's narrow range, and its rounding
        least = (cosine.softmax(1) * soft.flatten(1)[:, :, None]).sum(1)
        stretch = float(least.max() / (least.max() - least.min()))
        error = (found.double() - prior.view(found.shape)).abs().max()
        assert error <= 4 * stretch * tolerance + 1e-6


def test_menet_layer(pair):
    metric = torch.stack([pair.first, pair.second])[:, :16].contiguous()
    logits = 3 * torch.stack([pair.first, pair.second])[:, 16:18].contiguous()
    labels = torch.stack([pair.labels > 0] * 2)[:, None].double()
    leaves = metric.clone().requires_grad_(), logits.clone().requires_grad_()
    found = menet.EuclideanLossLayer()(*leaves, labels)
    values, *slopes = released_layer(metric, logits, labels)
    assert_close(found.detach(), values)
    for ours, released in zip(torch.autograd.grad(found.sum(), leaves), slopes, strict=True):
        assert_close(ours, released)


def test_spoco_loss(pair):
    given = pair.first[None].clone().requires_grad_()
    expected = spoco_as_written(given[0], pair.labels, True, (0.1, 1.2), (1, 1, 1e-3))
    loss = spoco.ContrastiveLoss(0.1, 1.2, zero_label_push=True)(given, pair.labels[None])
    assert_close(loss.detach(), expected.detach())
    gradients = [torch.autograd.grad(x, given)[0] for x in (loss, expected)]
    assert_close(*gradients)


def test_persam_prior(pair):
    mask = (pair.labels > 0).double()
    mean = pair.first[:, pair.labels > 0].mean(1)
    cosine = F.cosine_similarity(pair.second, mean[:, None, None], dim=0)
    target = persam.target_embedding(last(pair.first), mask)
    assert_close(target, mean[None])
    found = persam.similarity(target, pair.second)
    assert_close(found[0, 0], cosine)
    best, _, worst, _ = persam.point_selection(found[0, 0])
    for (column, row), value in ((best[0], cosine.max()), (worst[0], cosine.min())):
        torch.testing.assert_close(cosine[row, column], value)
