"""Drop-ins for layers and losses that tests/test_compat.py has not, from their descriptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelkernels import testing
from pixelkernels.compat import docs_correlation, hdmnet, menet, persam, sccan, spoco


@pytest.mark.parametrize(("reach", "step"), [(4, 1), (3, 1), (4, 2), (3, 2)])
def test_docs_correlation_is_row_displacement_first_divided_by_the_channels(reach, step):
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 6, 4, 5, dtype=torch.float64)
    layer = docs_correlation.Correlation(reach, 1, reach, 1, step)
    steps = [d for d in range(-reach, reach + 1) if d % step == 0]
    expected = torch.zeros(2, len(steps) ** 2, 4, 5, dtype=torch.float64)
    for n, (dy, dx) in enumerate((dy, dx) for dy in steps for dx in steps):
        for row in range(4):
            for column in range(5):
                if 0 <= row + dy < 4 and 0 <= column + dx < 5:
                    product = x[:, :, row, column] * y[:, :, row + dy, column + dx]
                    expected[:, n, row, column] = product.mean(1)
    assert layer.out_channels == len(steps) ** 2
    torch.testing.assert_close(layer(x, y), expected)


def test_docs_correlation_refuses_what_docs_does_not_use():
    for options in ((4, 3, 4, 1, 1), (0, 1, 4, 1, 1), (4, 1, 4, 2, 1), (4, 1, 4, 1, 1, 2)):
        with pytest.raises(ValueError, match="pad_size"):
            docs_correlation.Correlation(*options)


@pytest.mark.parametrize("shape", [(2, 1, 12, 12), (2, 12, 12)])
def test_hdmnet_similarity_takes_the_nearest_mask_and_is_not_rescaled(shape):
    torch.manual_seed(0)
    query, support = torch.randn(2, 2, 8, 5, 7, dtype=torch.float64)
    mask = torch.randint(0, 3, shape)  # only 1 is the object
    small = F.interpolate((mask.view(2, 1, 12, 12) == 1).double(), (5, 7), mode="nearest")
    s, q = (support * small).flatten(2), query.flatten(2)
    norms = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None]
    expected = ((s.mT @ q) / (norms + 1e-7)).amax(1).view(2, 1, 5, 7)
    torch.testing.assert_close(hdmnet.get_similarity(query, support, mask), expected)


def test_sccan_prior_averages_the_mask_by_a_softmax_over_the_unmasked_support():
    torch.manual_seed(0)
    query, *supports = torch.randn(3, 2, 8, 6, 6, dtype=torch.float64)
    masks = list((torch.rand(2, 2, 1, 13, 13) > 0.5).double())
    expected = []
    for support, mask in zip(supports, masks, strict=True):
        small = F.interpolate(mask, (6, 6), mode="bilinear", align_corners=True)
        s, q = support.flatten(2), query.flatten(2)
        cosine = (s.mT @ q) / (s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None])
        prior = (cosine.softmax(1) * small.flatten(1)[:, :, None]).sum(1)
        low, high = prior.amin(1, keepdim=True), prior.amax(1, keepdim=True)
        scaled = ((prior - low) / (high - low + 1e-7)).view(2, 1, 6, 6)
        expected.append(F.interpolate(scaled, (9, 9), mode="bilinear", align_corners=True))
    found = sccan.generate_prior(None, query, supports, masks, (9, 9))
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=1e-6, atol=1e-6)


def test_persam_embedding_and_similarity():
    torch.manual_seed(0)
    features, mask = torch.randn(6, 7, 5, dtype=torch.float64), torch.rand(6, 7) - 0.5
    target = persam.target_embedding(features, mask)
    torch.testing.assert_close(target, features[mask > 0].mean(0)[None])
    test = torch.randn(5, 4, 3, dtype=torch.float64)
    cosine = F.cosine_similarity(test, target[0][:, None, None], dim=0)
    torch.testing.assert_close(persam.similarity(target, test), cosine[None, None])


@pytest.mark.parametrize("topk", [1, 4])
def test_persam_points_are_column_and_row(topk):
    torch.manual_seed(0)
    similarity = torch.rand(9, 13)
    order = similarity.flatten().argsort(descending=True)
    best, best_labels, worst, worst_labels = persam.point_selection(similarity, topk)
    for points, places in ((best, order[:topk]), (worst, order.flip(0)[:topk])):
        np.testing.assert_array_equal(points, torch.stack([places % 13, places // 13], 1).numpy())
    assert best_labels.tolist() == [1] * topk
    assert worst_labels.tolist() == [0] * topk


def released_layer(metric, logits, labels):
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


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_menet_layer_has_the_released_values_and_gradients(share):
    torch.manual_seed(0)
    metric = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    metric[0, :, 0, 0] = 0  # divided by 1
    logits = 40 * torch.randn(2, 2, 6, 7, dtype=torch.float64)  # some probability below 1e-10
    labels = (torch.rand(2, 1, 6, 7) < share).double()
    leaves = metric.clone().requires_grad_(), logits.clone().requires_grad_()
    found = menet.EuclideanLossLayer()(*leaves, labels)
    values, *slopes = released_layer(metric, logits, labels)
    torch.testing.assert_close(found, values)
    assert logits.softmax(1).amin() < 1e-10
    for ours, released in zip(torch.autograd.grad(found.sum(), leaves), slopes, strict=True):
        torch.testing.assert_close(ours, released)


def test_menet_an_empty_side_has_no_metric_gradient_and_four_less_the_other_mean():
    metric = torch.randn(1, 3, 4, 4, dtype=torch.float64).requires_grad_()
    logits = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    found = menet.EuclideanLossLayer()(metric, logits, torch.zeros(1, 1, 4, 4))
    unit = F.normalize(metric.detach(), dim=1).flatten(2).mean(2)
    torch.testing.assert_close(found[0].detach(), 4 - unit.square().sum())
    torch.testing.assert_close(found[1], torch.tensor(2.0).double().log() / 2)  # half the usual
    assert (torch.autograd.grad(found[0], metric)[0] == 0).all()


def spoco_as_written(features, ids, without_zero, deltas, weights):
    """One image's loss, the instances one by one."""
    x, y = features.flatten(1), ids.flatten()
    instances = y.unique().tolist()
    means = {i: x[:, y == i].mean(1) for i in instances}
    kept = [i for i in instances if i != 0] if without_zero else instances
    pull = sum(
        ((x[:, y == i] - means[i][:, None]).norm(dim=0) - deltas[0]).clamp(min=0).square().mean()
        for i in kept
    ) / max(len(kept), 1)
    push = sum(
        (2 * deltas[1] - (means[i] - means[j]).norm()).clamp(min=0).square()
        for i in kept
        for j in kept
        if i != j
    ) / max(len(kept) * (len(kept) - 1), 1)
    norms = sum(m.norm() for m in means.values()) / len(means)
    return weights[0] * pull + weights[1] * push + weights[2] * norms


@pytest.mark.parametrize("zero_label_push", [False, True])
def test_spoco_label_zero_stays_in_the_regulariser(zero_label_push):
    features = testing.features(3, 4, 10, 12, dtype=torch.float64).requires_grad_()
    ids = testing.coherent_labels(3, 10, 12, 4)
    ids[1] += 1  # without label 0
    ids[2] = 0  # label 0 alone
    deltas, weights = (0.1, 1.2), (1.0, 2.0, 0.5)
    loss = spoco.ContrastiveLoss(
        *deltas, alpha=1.0, beta=2.0, gamma=0.5, zero_label_push=zero_label_push
    )
    found = loss(features, ids)
    expected = (
        sum(
            spoco_as_written(f, i, zero_label_push and (i == 0).any(), deltas, weights)
            for f, i in zip(features, ids, strict=True)
        )
        / 3
    )
    torch.testing.assert_close(found, expected)
    ours, wanted = (torch.autograd.grad(x, features)[0] for x in (found, expected))
    torch.testing.assert_close(ours, wanted)


def test_spoco_ignores_label_zero_where_the_original_ids_have_the_ignored_one():
    volumes = testing.features(2, 4, 3 * 6, 8, dtype=torch.float64).unflatten(2, (3, 6))
    ids = testing.coherent_labels(2, 3 * 6, 8, 3).unflatten(1, (3, 6))
    original = torch.where(ids == 0, -1, ids + 10)
    original[1] = ids[1] + 10  # nothing ignored in the second
    loss = spoco.ContrastiveLoss(0.1, 1.2, ignore_label=-1)
    expected = (
        sum(
            spoco_as_written(volumes[n], ids[n], n == 0, (0.1, 1.2), (1, 1, 1e-3)) for n in range(2)
        )
        / 2
    )
    torch.testing.assert_close(loss(volumes, torch.stack([ids, original], 1)), expected)
