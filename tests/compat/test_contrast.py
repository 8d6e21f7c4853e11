"""Drop-ins for contrastive losses: ContrastiveSeg and pytorch-metric-learning."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import pixelkernels as pk
from pixelkernels import compat, testing
from pixelkernels.compat.contrastiveseg import PixelContrastLoss
from pixelkernels.compat.metric_learning import SupConLoss
from tests.compat import originals
from tests.compat.conftest import features
from tests.compat.originals import TOLERANCES, assert_close
from tests.compat.test_losses import assert_value_and_gradients

# ---- ContrastiveSeg ----


class Configer:
    """The two methods of ContrastiveSeg's that the loss calls."""

    def __init__(self, ignore_index=None, **contrast):
        self.contrast = {"temperature": 0.1, "base_temperature": 0.07, **contrast}
        self.params = {} if ignore_index is None else {"ce_ignore_index": ignore_index}

    def get(self, *names):
        return self.params if names == ("loss", "params") else self.contrast[names[1]]

    def exists(self, *names):
        return names == ("loss", "params") and bool(self.params)


def scene(images=2, size=(9, 11), ignored=-1):
    """Features, labels at four times their size, and predictions."""
    x = F.normalize(testing.features(images, 6, *size, dtype=torch.float64), dim=1)
    labels = testing.random_labels(images, *(4 * side for side in size), low=-1, high=4)
    predict = testing.random_labels(images, *size, high=4, seed=1)
    return x, labels.where(labels >= 0, ignored), predict


def queue(classes=5, entries=16):
    return F.normalize(testing.features(classes, entries, 6, dtype=torch.float64, seed=3), dim=2)


def sampled(x, labels, predict, max_samples, max_views, ignore_index=-1):
    """The anchors [classes, views, D] that a loss draws from the same state, and their labels."""
    small = F.interpolate(labels[:, None].double(), x.shape[2:], mode="nearest")[:, 0].long()
    classes = sum(
        int((image == label).sum() > max_views)
        for image in small
        for label in image.unique()
        if label != ignore_index
    )
    views = min(max_samples // classes, max_views)
    torch.manual_seed(0)
    anchors, kinds = pk.sample_anchors(
        x, small, predict, max_samples=max_samples, max_views=max_views, ignore_index=ignore_index
    )
    assert int((kinds != ignore_index).sum()) == classes * views
    used = anchors[: classes * views].unflatten(0, (classes, views))
    return used, kinds[: classes * views].view(classes, views)[:, 0]


def check_contrastiveseg(tensors, bank, max_samples, max_views, ignore_index=None, **skips):
    x, labels, predict = tensors
    configer = Configer(ignore_index, max_samples=max_samples, max_views=max_views)
    loss = PixelContrastLoss(configer, **skips)

    def ours(x, *bank):
        torch.manual_seed(0)
        return loss(x, labels, predict, *bank)

    def theirs(x, *bank):
        ignored = -1 if ignore_index is None else ignore_index
        anchors, kinds = sampled(x, labels, predict, max_samples, max_views, ignored)
        skipped = [skips.get(f"skip_{name}", True) for name in ("class_0", "diagonal")]
        return originals.contrastiveseg(anchors, kinds, 0.1, 0.07, *bank, skips=skipped)

    assert_value_and_gradients(ours, theirs, x, *([] if bank is None else [bank]))


SIZES = [(60, 5), (50, 9), (72, 3)]


@pytest.mark.parametrize(("max_samples", "max_views"), SIZES)
def test_contrastiveseg_loss_of_anchors_with_one_another(max_samples, max_views):
    check_contrastiveseg(scene(), None, max_samples, max_views)


@pytest.mark.parametrize(("max_samples", "max_views"), SIZES)
@pytest.mark.parametrize("skips", list(product((True, False), repeat=2)), ids=str)
def test_contrastiveseg_loss_of_anchors_with_a_bank(max_samples, max_views, skips):
    options = dict(zip(("skip_class_0", "skip_diagonal"), skips, strict=True))
    check_contrastiveseg(scene(), queue(), max_samples, max_views, **options)


@pytest.mark.parametrize("ignore_index", [255, 0, 2])
def test_contrastiveseg_ignores_a_label_of_images_but_not_of_the_bank(ignore_index):
    check_contrastiveseg(scene(ignored=ignore_index), queue(), 60, 5, ignore_index)


def test_contrastiveseg_loss_of_photos(photos):
    x = F.normalize(torch.cat([features(photos.reference), features(photos.query)]), dim=1)[:, :6]
    labels = photos.labels.expand(2, -1, -1)
    predict = labels[:, 8::16, 8::16].roll(2, 2)
    bank = queue(classes=int(labels.max()) + 1, entries=60)
    check_contrastiveseg((x.contiguous(), labels, predict), bank, 48, 9)


@pytest.mark.parametrize("skips", [True, False])
def test_contrastiveseg_entry_of_the_bank_with_an_anchors_number_is_no_positive(skips):
    # one anchor of each class for every view; all are alike, and one entry of the bank is not 0
    labels = torch.tensor([1, 2, 3]).repeat_interleave(8).view(1, 4, 6)
    x = torch.ones(1, 1, 4, 6, dtype=torch.float64)
    bank = torch.zeros(4, 4, 1, dtype=torch.float64)
    bank[2, 0] = 1  # number 4 of the bank, because class 0 comes last
    configer = Configer(max_samples=6, max_views=7, temperature=0.25, base_temperature=0.25)
    loss = PixelContrastLoss(configer, skip_diagonal=skips)(x, labels, labels, bank)
    # entries of class 2 have 12 negatives, all 0
    odd, zero = math.log(math.exp(4) + 12) - 4, math.log(13)
    rest = math.log(1 + 11 + math.exp(4))  # of classes 1 and 3: it is a negative
    first, second = (odd + 3 * zero) / 4, zero if skips else (odd + 3 * zero) / 4
    assert loss.item() == pytest.approx((4 * rest + first + second) / 6)


@pytest.mark.parametrize(("max_samples", "max_views"), [(60, 99), (3, 2)])
def test_contrastiveseg_loss_without_anchors_is_zero(max_samples, max_views):
    x, labels, predict = scene()
    loss = PixelContrastLoss(Configer(max_samples=max_samples, max_views=max_views))
    for bank in ((), (queue(),)):
        found = loss(x.requires_grad_(), labels, predict, *bank)
        assert found.item() == 0
        assert not torch.autograd.grad(found, x)[0].any()


def test_contrastiveseg_anchors_without_a_positive_are_left_out():
    x, labels, predict = scene(images=1)
    loss = PixelContrastLoss(Configer(max_samples=9, max_views=2))
    bank = queue(classes=3)  # class 3 is absent
    torch.manual_seed(0)
    found = loss(x, labels, predict, bank)
    anchors, kinds = sampled(x, labels, predict, 9, 2)
    assert kinds.tolist() == [0, 1, 2, 3]
    bank, bank_kinds = originals_bank(bank)
    kinds = kinds.repeat(2)
    scores = anchors.transpose(0, 1).flatten(0, 1) @ bank.T / 0.1
    same = (kinds[:, None] == bank_kinds) & ~torch.eye(8, 48, dtype=torch.bool)
    rest = (scores.exp() * (kinds[:, None] != bank_kinds)).sum(1, keepdim=True)
    terms = [t[p].mean() for t, p in zip((scores.exp() + rest).log() - scores, same, strict=True)]
    assert sum(bool(t.isnan()) for t in terms) == 2
    assert_close(found, torch.stack(terms).nanmean() * 0.1 / 0.07)


def originals_bank(queue):
    kinds = torch.tensor([*range(1, len(queue)), 0]).repeat_interleave(queue.shape[1])
    return torch.cat([*queue[1:], 0 * queue[0]]), kinds


def test_contrastiveseg_refuses_what_does_not_fit():
    x, labels, predict = scene()
    loss = PixelContrastLoss(Configer(max_samples=60, max_views=5))
    for arguments, message in (
        ((x, labels), "labels, predict: expected tensors, got None"),
        ((x, labels, predict[:, ::2]), "predict: expected shape"),
        ((x, labels, predict, queue()[..., :4]), r"queue: expected shape \[C, K, 6\]"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    with pytest.raises(TypeError, match="skip_diagonal: expected True or False"):
        PixelContrastLoss(Configer(max_samples=60, max_views=5), skip_diagonal=0)


# ---- pytorch-metric-learning ----


def batch(rows, seed=0, classes=3):
    x = testing.features(rows, 5, dtype=torch.float64, seed=seed)
    return x, testing.random_labels(rows, low=-2, high=classes - 2, seed=seed)


# a loss that is 0 in float32 and just above 0 in float64 would change the mean
@pytest.mark.parametrize(("rows", "temperature"), [(3, 1), (5, 0.5), (40, 0.07)])
def test_supcon_loss_of_embeddings(rows, temperature):
    x, labels = batch(rows)
    loss = SupConLoss(temperature)
    assert_value_and_gradients(
        lambda x: loss(x, labels),
        lambda x: originals.supcon(x, labels, temperature, x, labels, True),
        x,
    )


def test_supcon_loss_of_photos(photos):
    x = features(photos.reference)[0].flatten(1).T[::5]
    labels = photos.labels[8::16, 8::16].flatten()[::5]
    assert_value_and_gradients(
        lambda x: SupConLoss()(x, labels),
        lambda x: originals.supcon(x, labels, 0.1, x, labels, True),
        x,
    )


@pytest.mark.parametrize("rows", [9, 50])
def test_supcon_loss_of_embeddings_and_references(rows):
    (x, labels), (y, others) = batch(20), batch(rows, 1, 4)
    assert_value_and_gradients(
        lambda x, y: SupConLoss()(x, labels, ref_emb=y, ref_labels=others),
        lambda x, y: originals.supcon(x, labels, 0.1, y, others, False),
        *(x, y),
    )


def test_supcon_compares_nothing_with_itself_where_labels_are_the_same_tensor():
    x, labels = batch(20)
    y, _ = batch(25, 1)
    copy = labels.clone()
    for references, given, bank, own in (
        (x, labels, x, True),
        (x, copy, x, False),
        (y[:20], labels, y[:20], True),
        (y[:20], copy, y[:20], False),
        (y, None, y[:20], True),
        (None, batch(20, 2)[1], x, True),
    ):
        found = SupConLoss()(x, labels, ref_emb=references, ref_labels=given)
        assert_close(found, originals.supcon(x, labels, 0.1, bank, labels, own))


@pytest.mark.parametrize(
    ("labels", "others"),
    [
        ([0, 0, 0], None),  # no negatives
        ([0, 1, 2], None),  # no positives
        ([0], [0, 1]),  # one pair of each
        ([0], []),
        ([], None),
    ],
)
def test_supcon_loss_without_enough_pairs_is_zero(labels, others):
    x = testing.features(len(labels), 4).requires_grad_()
    bank = None if others is None else testing.features(len(others), 4, seed=1)
    labels = torch.tensor(labels, dtype=torch.int64)
    others = None if others is None else torch.tensor(others, dtype=torch.int64)
    found = SupConLoss()(x, labels, ref_emb=bank, ref_labels=others)
    assert found.item() == 0
    assert not torch.autograd.grad(found, x)[0].any()


def test_supcon_loss_is_the_mean_of_those_of_embeddings_with_a_positive():
    x, y = testing.features(3, 4, dtype=torch.float64), testing.features(2, 4, seed=1).double()
    labels, others = torch.tensor([0, 0, 5]), torch.tensor([0, 1])
    found, first = (SupConLoss()(x[:n], labels[:n], ref_emb=y, ref_labels=others) for n in (3, 2))
    assert first > 0
    assert_close(found, first)


def setting(name, **attributes):
    return type(name, (SimpleNamespace,), {})(**attributes)


def test_supcon_takes_the_options_of_the_original_with_their_defaults():
    x, labels = batch(12)
    loss = SupConLoss(
        temperature=0.1,
        distance=setting("CosineSimilarity", p=2, power=1),
        reducer=setting("AvgNonZeroReducer"),
        embedding_regularizer=None,
        embedding_reg_weight=2,
        collect_stats=False,
    )
    assert torch.equal(loss(x, labels), SupConLoss()(x, labels))


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (ValueError, "distance", setting("LpDistance", p=2, power=1)),
        (ValueError, "distance", setting("CosineSimilarity", p=2, power=2)),
        (ValueError, "reducer", setting("MeanReducer")),
        (ValueError, "embedding_regularizer", setting("LpRegularizer")),
        (ValueError, "collect_stats", True),
        (ValueError, "temperature", 0),
        (TypeError, "margin", 1.0),
    ],
)
def test_supcon_refuses_other_options(error, name, value):
    with pytest.raises(error, match=f"^{name}: "):
        SupConLoss(**{name: value})


def test_supcon_refuses_what_does_not_fit():
    x, labels = batch(12)
    triplets = (labels, labels, labels)
    for arguments, message in (
        ((x,), "^labels: expected a tensor"),
        ((x, labels[1:]), "^labels: expected shape"),
        ((x, labels, triplets), "^indices_tuple: expected None"),
        ((x, labels, None, x[:, 1:], labels), "^ref_emb: expected 5 channels"),
        ((x, labels, None, x[1:]), "^ref_emb: expected at least 12 rows"),
        ((x[None], labels), r"^embeddings: expected shape \[N, D\]"),
    ):
        with pytest.raises(ValueError, match=message):
            SupConLoss()(*arguments)


def test_supcon_is_that_of_the_installed_package():
    package = pytest.importorskip("pytorch_metric_learning.losses")
    x, labels = batch(30)
    original = package.SupConLoss(0.2)(x, labels)
    with compat.patch("metric_learning"):
        assert package.SupConLoss is SupConLoss
        assert_close(package.SupConLoss(0.2)(x, labels), original)
        wrapped = package.SelfSupervisedLoss(package.SupConLoss(0.2))
        assert wrapped(x, x.flip(0)) > 0


def test_losses_of_sixteen_bits_are_accumulated_in_float32():
    x, labels, predict = scene()
    anchors = PixelContrastLoss(Configer(max_samples=60, max_views=5))
    for dtype in (torch.float16, torch.bfloat16):
        assert anchors(x.to(dtype), labels, predict, queue().float()).dtype == torch.float32
        assert SupConLoss()(batch(9)[0].to(dtype), batch(9)[1]).dtype == torch.float32
    assert set(TOLERANCES) == {torch.float32, torch.float64}
