"""Drop-ins for losses: torch-em, nyoki-mtl, Wizaron, spoco, CAS and MEnet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelkernels import testing
from pixelkernels.compat import cas, menet, spoco
from pixelkernels.compat.discriminative import ContrastiveLoss, nyoki_loss, wizaron_loss
from tests.compat import originals
from tests.compat.conftest import features
from tests.compat.originals import TOLERANCES, assert_close, discriminative_terms

DELTAS = (0.1, 1.2)


def assert_value_and_gradients(call, expected, *leaves):
    """In every dtype, of `call(*leaves)` and `expected`, a function of the same leaves."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    value = expected(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    for dtype in TOLERANCES:
        given = [x.detach().to(dtype).requires_grad_() for x in leaves]
        found = call(*given)
        assert_close(found.detach(), value.detach())
        for ours, theirs in zip(torch.autograd.grad(found, given), gradients, strict=True):
            assert_close(ours, theirs)


def mean_terms(features, labels, **options):
    terms = [
        discriminative_terms(f, x, DELTAS, **options) for f, x in zip(features, labels, strict=True)
    ]
    return torch.stack(terms).mean(0)


def weighted(terms, *weights):
    return terms @ torch.tensor(weights, dtype=terms.dtype)


# ---- torch-em, nyoki-mtl, Wizaron ----


def test_discriminative_conventions():
    features = testing.features(2, 4, 16, 18, dtype=torch.float64)
    labels = testing.coherent_labels(2, 16, 18, 4)
    masks = F.one_hot(labels, 4).movedim(-1, 1)
    torch_em = ContrastiveLoss(*DELTAS, alpha=2.0)
    for call, expected in (
        (
            lambda x: torch_em(x, labels[:, None] * 3 + 1)[0],
            lambda x: weighted(mean_terms(x, labels), 2, 1, 1e-3),
        ),
        (
            lambda x: nyoki_loss(x, masks, [4, 4], *DELTAS),
            lambda x: weighted(mean_terms(x, labels), 1, 0.5, 1e-3),
        ),
        (
            lambda x: nyoki_loss(x, masks, [2, 2], *DELTAS),
            lambda x: weighted(mean_terms(x, labels, ids=[0, 1]), 1, 0.5, 1e-3),
        ),
        (
            lambda x: wizaron_loss(x, masks, [4, 4], *DELTAS, 2),
            lambda x: weighted(mean_terms(x, labels, reduction="pixel"), 1, 1, 1e-3),
        ),
    ):
        assert_value_and_gradients(call, expected, features)


def test_torch_em_loss_of_instances(instances):
    def expected(features):
        terms = discriminative_terms(features[0], instances.labels[0, 0], (0.5, 1.5))
        assert (terms > 0.01).all()  # otherwise a term would not be tested
        return weighted(terms, 1, 2, 1e-3)

    loss = ContrastiveLoss(0.5, 1.5, beta=2.0)
    assert_value_and_gradients(lambda x: loss(x, instances.labels)[0], expected, instances.features)


def embeddings(*values):
    """[1, 2, 1, N] of N numbers; the second channel is 0."""
    first = torch.tensor(values)[None, None, None].double()
    return torch.cat([first, 0 * first], 1).requires_grad_()


def hot(text):
    """One-hot masks [1, 3, 1, N] of a string of N cluster numbers."""
    return torch.tensor([[[[float(x == i) for x in text]] for i in "012"]])


def test_nyoki_distance_term_has_half_the_weight():
    x, target = embeddings(0.0, 0.0, 1.0, 1.0), hot("0011")
    distance, regularizer = (2 * 1.5 - 1) ** 2, 1e-3 / 2
    assert nyoki_loss(x, target, [2]).item() == distance / 2 + regularizer
    assert wizaron_loss(x, target, [2], 0.5, 1.5, 2).item() == distance + regularizer


def test_wizaron_averages_over_pixels_not_clusters():
    x, target = embeddings(5.0, -2.0, 2.0), hot("011")
    hinge = (2 - 0.5) ** 2  # of the last two pixels
    assert nyoki_loss(x, target, [2], beta=0, gamma=0).item() == hinge / 2
    assert wizaron_loss(x, target, [2], 0.5, 1.5, 2, 1, 0, 0).item() == 2 * hinge / 3


LOSSES = [nyoki_loss, lambda x, target, counts: wizaron_loss(x, target, counts, 0.5, 1.5, 2)]


@pytest.mark.parametrize("loss", LOSSES, ids=["nyoki", "Wizaron"])
@pytest.mark.parametrize(
    ("text", "counts", "expected"),
    [("00", [1], 1.5**2 + 3e-3), ("00", [3], 1.5**2 + 3e-3), ("00", [0], 0), ("--", [2], 0)],
)
def test_discriminative_loss_of_one_cluster_or_none_is_finite(loss, text, counts, expected):
    """The originals divide by 0 without clusters and if a cluster is empty."""
    x = embeddings(1.0, 5.0)
    found = loss(x, hot(text), counts)
    assert found.item() == pytest.approx(expected)
    assert torch.autograd.grad(found, x)[0].isfinite().all()


def test_torch_em_ids_need_not_be_consecutive_and_zero_is_an_id():
    x = embeddings(0.0, 0.0, 1.0, 1.0, 4.0)
    expected = (2 * 2**2 + 0 + 0) / 6 + 1e-3 * (0 + 1 + 4) / 3
    for ids in ([0, 0, 1, 1, 2], [7, 7, 60000, 60000, -3], [2**40, 2**40, 9, 9, 0]):
        target = torch.tensor(ids)[None, None, None]
        assert ContrastiveLoss(0.5, 1.5)(x, target).item() == pytest.approx(expected)
    ignoring = ContrastiveLoss(0.5, 1.5, ignore_label=0)
    assert ignoring(x, target).item() == pytest.approx(2**2 + 1e-3 / 2)


def test_torch_em_clusters_of_one_pixel_and_equal_means_have_a_gradient():
    x = embeddings(1.0, 1.0, 1.0)
    loss = ContrastiveLoss(0.0, 1.5)(x, torch.tensor([[[[3, 5, 5]]]]))
    assert loss.item() == pytest.approx(9 + 1e-3)
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


def test_torch_em_loss_is_created_again_from_its_init_kwargs():
    """torch-em stores these with a checkpoint, and reads the attributes."""
    given = {"delta_var": 0.5, "delta_dist": 2.0, "norm": 1, "alpha": 3.0, "beta": 0.5}
    loss = ContrastiveLoss(**given, impl="expand")
    rest = {"gamma": 0.001, "ignore_label": None}
    assert loss.init_kwargs == {**given, **rest, "impl": "expand"}
    assert {name: getattr(loss, name) for name in (*given, *rest)} == {**given, **rest}
    x, target = embeddings(1.0, 5.0), torch.tensor([[[[3, 5]]]])
    again = ContrastiveLoss(**loss.init_kwargs)
    assert again(x, target) == loss(x, target)
    assert loss(x, target).shape == (1,)


def test_torch_em_loss_refuses_what_the_original_does():
    with pytest.raises(ValueError, match="impl: expected one of None, 'scatter', 'expand'"):
        ContrastiveLoss(0.5, 1.5, impl="nope")
    x = torch.zeros(2, 3, 4, 5)
    for shape in ((2, 2, 4, 5), (2, 4, 5), (1, 1, 4, 5), (2, 1, 5, 4)):
        with pytest.raises(ValueError, match=r"target: expected"):
            ContrastiveLoss(0.5, 1.5)(x, torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match=r"input_, target: expected"):
        ContrastiveLoss(0.5, 1.5)(x[0], torch.zeros(3, 1, 5, dtype=torch.long))


# ---- spoco ----


@pytest.mark.parametrize("zero_label_push", [False, True])
def test_spoco_id_zero_stays_in_the_regulariser(zero_label_push):
    ids = testing.coherent_labels(3, 10, 12, 4)
    ids[1] += 1  # no id 0
    ids[2] = 0  # id 0 alone
    weights = (1.0, 2.0, 0.5)
    loss = spoco.ContrastiveLoss(*DELTAS, "fro", *weights, zero_label_push=zero_label_push)

    def expected(features):
        images = zip(features, ids, strict=True)
        return sum(originals.spoco(f, i, zero_label_push, DELTAS, weights) for f, i in images) / 3

    features = testing.features(3, 4, 10, 12, dtype=torch.float64)
    assert_value_and_gradients(lambda x: loss(x, ids), expected, features)


def test_spoco_loss_of_frames(frames):
    loss = spoco.ContrastiveLoss(*DELTAS, zero_label_push=True)
    assert_value_and_gradients(
        lambda x: loss(x, frames.labels[None]),
        lambda x: originals.spoco(x[0], frames.labels, True, DELTAS, (1, 1, 1e-3)),
        frames.first[None],
    )


def test_spoco_skips_id_zero_of_images_whose_original_ids_include_the_ignored_one():
    volumes = testing.features(2, 4, 3 * 6, 8, dtype=torch.float64).unflatten(2, (3, 6))
    ids = testing.coherent_labels(2, 3 * 6, 8, 3).unflatten(1, (3, 6))
    original = torch.where(ids == 0, -1, ids + 10)
    original[1] = ids[1] + 10  # the second image has no ignored pixel
    loss = spoco.ContrastiveLoss(*DELTAS, ignore_label=-1)
    expected = sum(
        originals.spoco(volumes[n], ids[n], n == 0, DELTAS, (1, 1, 1e-3)) for n in range(2)
    )
    torch.testing.assert_close(loss(volumes, torch.stack([ids, original], 1)), expected / 2)


# ---- CAS ----


def regions(batch):
    gt = (torch.rand(batch, 1, 9, 11) > 0.6).double()
    return gt, torch.randn(batch, 2, 9, 11).double().softmax(1)


def test_cas_loss_of_one_mask_or_the_same_mask_twice():
    gt, softmaxed = regions(3)
    loss = cas.lss()(gt=gt, softmaxed_tensor=softmaxed)
    expected = originals.cas(gt, softmaxed)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(loss, cas.lss()(gt.repeat(1, 2, 1, 1), softmaxed))


def test_cas_loss_of_photos(photos):
    gt = F.max_pool2d((photos.labels > 0).double()[None, None], 2).expand(2, 1, -1, -1)
    colours = F.avg_pool2d(torch.cat([photos.reference, photos.query]), 2)
    assert_value_and_gradients(
        lambda x: cas.lss()(gt.to(x.dtype), x),
        lambda x: originals.cas(gt, x),
        (4 * colours[:, :2]).softmax(1),
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_cas_divisor_is_forty_for_every_batch_size(batch):
    gt, softmaxed = torch.tensor([[[1.0, 0]]]), torch.tensor([[[0.9, 0.2]], [[0.1, 0.8]]])
    loss = cas.lss()(*(x.expand(batch, -1, -1, -1) for x in (gt, softmaxed)))
    assert loss.item() == pytest.approx(batch * -0.5 * (0.7**2 + 0.7**2) / 40, rel=1e-3)


@pytest.mark.parametrize("weight", [3e-5, 1 + 3e-5])
def test_cas_loss_of_an_empty_region_is_finite(weight):
    gt, softmaxed = torch.full((2, 1, 9, 11), weight - 3e-5).double(), regions(2)[1]
    loss = cas.lss()(gt, softmaxed.requires_grad_())
    # every pixel has this weight in the foreground, and both means are the image's
    spread = softmaxed.var((2, 3), correction=0).sum() * 99 * weight**2 / (99 * weight + 3e-5)
    torch.testing.assert_close(loss, 0.5 * spread / 40, rtol=1e-6, atol=0)
    assert torch.autograd.grad(loss, softmaxed)[0].isfinite().all()


def test_cas_background_has_no_spread_term():
    gt = torch.tensor([1, 0]).double().repeat_interleave(16).view(1, 1, 4, 8)
    noise, flat = torch.tensor([0.1, -0.1]).double().repeat(16).view_as(gt), 0.2 + 0.7 * gt
    still, outside, inside = (
        cas.lss()(gt, torch.cat([x, 1 - x], 1)).item()
        for x in (flat, flat + noise * (1 - gt), flat + noise * gt)
    )
    assert outside == pytest.approx(still, abs=1e-10)  # its weight is 3e-5 squared
    assert inside - still == pytest.approx(0.5 * (0.1**2 + 0.1**2) / 40, rel=1e-3)


# ---- MEnet ----


def check_menet(metric, logits, labels):
    leaves = metric.clone().requires_grad_(), logits.clone().requires_grad_()
    found = menet.EuclideanLossLayer()(*leaves, labels)
    values, *slopes = originals.menet_layer(metric, logits, labels)
    assert_close(found.detach(), values)
    for ours, released in zip(torch.autograd.grad(found.sum(), leaves), slopes, strict=True):
        assert_close(ours, released)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_menet_layer_has_the_released_values_and_gradients(share):
    metric = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    metric[0, :, 0, 0] = 0  # divided by 1
    logits = 40 * torch.randn(2, 2, 6, 7, dtype=torch.float64)
    assert logits.softmax(1).amin() < 1e-10  # the lower bound is reached
    check_menet(metric, logits, (torch.rand(2, 1, 6, 7) < share).double())


def test_menet_layer_of_photos(photos):
    x = torch.cat([features(photos.reference), features(photos.query)])
    labels = (photos.labels[8::16, 8::16] > 0).double().expand(2, 1, -1, -1)
    check_menet(x[:, :16].contiguous(), 3 * x[:, 16:18].contiguous(), labels)


def test_menet_layer_of_an_empty_class_has_no_metric_gradient():
    metric = torch.randn(1, 3, 4, 4, dtype=torch.float64).requires_grad_()
    logits = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    found = menet.EuclideanLossLayer()(metric, logits, torch.zeros(1, 1, 4, 4))
    unit = F.normalize(metric.detach(), dim=1).flatten(2).mean(2)
    torch.testing.assert_close(found[0].detach(), 4 - unit.square().sum())
    torch.testing.assert_close(found[1], torch.tensor(2.0).double().log() / 2)  # half the usual
    assert (torch.autograd.grad(found[0], metric)[0] == 0).all()
