"""Drop-ins for few-shot segmentation: PFENet, HDMNet, SCCAN, PANet and PerSAM."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelkernels import testing
from pixelkernels.compat import bam, hdmnet, panet, persam, pfenet, sccan
from tests.compat import originals
from tests.compat.originals import TOLERANCES, assert_close

# ---- priors ----


@pytest.mark.parametrize("empty", [False, True])
def test_pfenet_prior(shots, empty):
    query, supports, masks = shots
    if empty:
        masks = [masks[0], torch.zeros_like(masks[1])]
    expected = originals.pfenet_prior(query, supports, masks)
    for dtype in TOLERANCES:
        given = [[x.to(dtype) for x in xs] for xs in (supports, masks)]
        assert_close(pfenet.prior(query.to(dtype), *given), expected)


UNIT = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]).T[None, :, None]  # [1, 2, 1, 3]


def prior(support, mask, query=UNIT):
    mask = torch.as_tensor(mask, dtype=torch.float32)[None, None]
    return pfenet.prior(query, [support], [mask])[0, 0]


def test_pfenet_maximum_is_negative_only_if_every_position_is_in_the_mask():
    opposite = -UNIT[..., :1].expand(-1, -1, -1, 2)  # cosines -1, -0.6 and 0
    torch.testing.assert_close(prior(opposite, [[1, 1]]), torch.tensor([[0, 0.4, 1]]))
    assert prior(opposite, [[1, 0]]).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("size", [(3, 3), (7, 5)])
def test_pfenet_prior_of_an_empty_mask_is_exactly_zero(size):
    query, support = torch.randn(2, 1, 8, 3, 3)
    assert (prior(support, torch.zeros(size), query) == 0).all()


@pytest.mark.parametrize("channels", [3, 64, 300])
def test_pfenet_prior_of_a_constant_query_is_exactly_zero(channels):
    query = torch.randn(1, channels, 1, 1).repeat(1, 1, 7, 9)
    assert (prior(torch.randn(1, channels, 7, 9), torch.ones(7, 9), query) == 0).all()


def test_pfenet_eps_is_added_to_the_product_of_the_norms():
    query = torch.tensor([[[[1.0, 1e-7, 0.0]]]])  # 1e-7 / (1e-7 + eps) is one half
    found = prior(torch.ones(1, 1, 1, 3), torch.ones(1, 3), query)
    torch.testing.assert_close(found, torch.tensor([[1, 0.5, 0]]))


def test_bam_prior_weighs_the_shots(shots):
    query, supports, masks = shots
    weights = torch.tensor([[0.2, 0.8], [0.7, 0.3]]).double()[..., None, None]
    given = zip(supports, masks, strict=True)
    priors = [originals.pfenet_prior(query, [x], [mask]) for x, mask in given]
    expected = weights[:, :1] * priors[0] + weights[:, 1:] * priors[1]
    for dtype in TOLERANCES:
        given = [[x.to(dtype) for x in xs] for xs in (supports, masks)]
        assert_close(bam.prior(query.to(dtype), *given, weights.to(dtype)), expected)


@pytest.mark.parametrize("dims", [3, 4])
def test_hdmnet_similarity_uses_the_nearest_mask_and_is_not_rescaled(shots, dims):
    query, (support, _), (mask, _) = shots
    mask = mask.clone()
    mask[..., ::3] = 2  # only 1 is the object
    expected = originals.hdmnet_similarity(query, support, mask)
    given = mask.flatten(0, 1) if dims == 3 else mask
    for dtype in TOLERANCES:
        found = hdmnet.get_similarity(query.to(dtype), support.to(dtype), given)
        assert_close(found, expected)


def test_sccan_prior_averages_the_mask_by_a_softmax_over_the_unmasked_support(shots):
    query, supports, masks = shots
    size = (query.shape[2] + 3, query.shape[3] + 2)
    expected = originals.sccan_prior(query, supports, masks, size)
    means = torch.stack(
        [originals.sccan_means(query, s, m) for s, m in zip(supports, masks, strict=True)]
    )
    # rescaling amplifies the rounding of the means, whose range is small
    gain = float((means.amax(2) / (means.amax(2) - means.amin(2))).max())
    for dtype, tolerance in TOLERANCES.items():
        given = [[x.to(dtype) for x in xs] for xs in (supports, masks)]
        found = sccan.generate_prior(None, query.to(dtype), *given, size)
        assert (found - expected).abs().max() <= 4 * gain * tolerance + 1e-6


# ---- prototypes ----


def test_pfenet_prototypes(shots):
    _, (features, _), (mask, _) = shots
    small = originals.resized(mask, features.shape[2:])
    expected = originals.weighted_gap(features, small)
    for dtype in TOLERANCES:
        assert_close(pfenet.weighted_gap(features.to(dtype), small.to(dtype)), expected)


def test_pfenet_prototypes_of_empty_and_tiny_masks():
    mask = torch.zeros(3, 1, 4, 5)
    mask[1, 0, 2, 2], mask[2] = 5e-4, 1
    found = pfenet.weighted_gap(torch.full((3, 1, 4, 5), 2.0), mask)
    assert found[0].tolist() == [[[0]]]
    torch.testing.assert_close(found.flatten(), torch.tensor([0, 1, 40 / (20 + 5e-4)]))


def test_panet_prototypes_and_cosines(shots):
    query, (features, _), (mask, _) = shots
    features, mask = features[:1], mask[0]
    expected = originals.panet_prototype(features, mask)
    cosine = 20 * F.cosine_similarity(query, expected[..., None, None], dim=1)
    for dtype in TOLERANCES:
        for given in (mask.to(dtype), mask.bool()):
            assert_close(panet.getFeatures(None, features.to(dtype), given), expected)
        assert_close(panet.calDist(None, query.to(dtype), expected.to(dtype)), cosine)


@pytest.mark.parametrize("size", [(41, 33), (13, 50), (5, 7), (3, 2), (1, 1)])
def test_panet_pools_as_if_features_were_upsampled(size):
    features, mask = torch.randn(1, 6, 5, 7).double(), (torch.rand(1, *size) > 0.4).double()
    expected = originals.panet_prototype(features, mask)
    torch.testing.assert_close(panet.getFeatures(None, features, mask), expected)


def test_panet_prototypes_of_empty_and_tiny_masks():
    features, mask = torch.full((1, 2, 3, 3), 2.0), torch.zeros(1, 12, 12)
    assert panet.getFeatures(None, features, mask).tolist() == [[0, 0]]
    mask[0, 6, 6] = 1e-5
    torch.testing.assert_close(panet.getFeatures(None, features, mask), torch.ones(1, 2))


@pytest.mark.parametrize("zero", ["features", "prototype"])
def test_panet_cosine_has_the_gradient_of_torch_at_a_zero_vector(zero):
    leaves = torch.randn(2, 5, 3, 4), torch.randn(1, 5)
    if zero == "features":
        leaves[0][:, :, 1] = 0
    else:
        leaves[1].zero_()
    for x in leaves:
        x.requires_grad_()
    cotangent = torch.rand(2, 3, 4)
    expected = 20 * F.cosine_similarity(leaves[0], leaves[1][..., None, None])
    for found in (panet.calDist(None, *leaves), panet.calDist(None, *leaves, scaler=20.0)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        gradients = (torch.autograd.grad(x, leaves, cotangent, True) for x in (found, expected))
        for ours, theirs in zip(*gradients, strict=True):
            limit = 1e-5 * theirs.abs().max().item()
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=limit)


def test_sccan_gradient_of_a_zero_vector_is_bounded():
    query, support = torch.randn(2, 1, 5, 3, 4)
    query[:, :, 1, 1] = 0
    query.requires_grad_()
    mask = (torch.rand(1, 1, 3, 4) > 0.5).float()
    prior = sccan.generate_prior(None, query, [support], [mask], (3, 4))
    (gradient,) = torch.autograd.grad(prior[0, 0, 1, 1], query)
    assert 1e5 < gradient.abs().max() < 1e9  # 1e7 times the support's norm in the original


@pytest.mark.parametrize(
    ("features", "mask", "result"),
    [("float16", "float16", "float16"), ("bfloat16", "float32", "float32"),
     ("float16", "bool", "float16"), ("float32", "float64", "float64")],
)  # fmt: skip
def test_prototypes_have_the_dtype_of_features_times_mask(features, mask, result):
    features, mask, result = (getattr(torch, name) for name in (features, mask, result))
    x, m = testing.features(1, 3, 6, 7).to(features), torch.rand(1, 6, 7) > 0.5
    expected = originals.panet_prototype(x.double(), m.double())
    # the mean of half features, rounded once to the result's dtype
    limits = {"rtol": torch.finfo(result).eps, "atol": 1e-6}
    found = panet.getFeatures(None, x, m.to(mask))
    torch.testing.assert_close(found, expected.to(result), **limits)
    if mask.is_floating_point:
        found = pfenet.weighted_gap(x, m[:, None].to(mask))
        expected = originals.weighted_gap(x.double(), m[:, None].double())
        torch.testing.assert_close(found, expected.to(result), **limits)
    assert panet.calDist(None, x, expected.flatten(1).to(features)).dtype == features


def test_pfenet_gradient_in_a_mask_of_zeros_is_the_derivative():
    features, mask = torch.randn(1, 2, 3, 3).double(), torch.zeros(1, 1, 3, 3).double()
    mask[..., 0, 0] = 1
    mask.requires_grad_()
    found, expected = (
        torch.autograd.grad(call(features, mask).sum(), mask)[0]
        for call in (pfenet.weighted_gap, originals.weighted_gap)
    )
    assert (expected != 0).all()
    assert_close(found, expected)


def test_persam_location_prior(frames):
    mask = (frames.labels > 0).double() - 0.5
    mean = frames.first[:, frames.labels > 0].mean(1)
    cosine = F.cosine_similarity(frames.second, mean[:, None, None], dim=0)
    for dtype in TOLERANCES:
        target = persam.target_embedding(frames.first.movedim(0, -1).to(dtype), mask.to(dtype))
        assert_close(target, mean[None])
        found = persam.similarity(target, frames.second.to(dtype))
        assert_close(found, cosine[None, None])
    best, _, worst, _ = persam.point_selection(found[0, 0].double())
    for (column, row), value in ((best[0], found.max()), (worst[0], found.min())):
        assert found[0, 0, row, column] == value


@pytest.mark.parametrize("topk", [1, 4])
def test_persam_points_are_column_and_row(topk):
    similarity = torch.rand(9, 13)
    order = similarity.flatten().argsort(descending=True)
    best, best_labels, worst, worst_labels = persam.point_selection(similarity, topk)
    for points, pixels in ((best, order[:topk]), (worst, order.flip(0)[:topk])):
        np.testing.assert_array_equal(points, torch.stack([pixels % 13, pixels // 13], 1).numpy())
    assert best_labels.tolist() == [1] * topk
    assert worst_labels.tolist() == [0] * topk
