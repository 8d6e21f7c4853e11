"""What holds for sampled anchors alone: which pixels are drawn, and how many of each kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import pixelkernels as pk
from pixelkernels import testing
from tests.helpers import peak_extra_bytes


def groups(labels, prediction, max_samples, max_views, ignore_index):
    """Image, label, and what to draw: (hard pixels, how many of them, easy ones, how many)."""
    found = []
    for image, (own, guess) in enumerate(
        zip(labels.flatten(1).tolist(), prediction.flatten(1).tolist(), strict=True)
    ):
        for label in sorted(set(own) - {ignore_index}):
            pixels = [i for i, x in enumerate(own) if x == label]
            if len(pixels) > max_views:
                hard = {i for i in pixels if guess[i] != label}
                found.append((image, label, hard, set(pixels) - hard))
    views = min(max_samples // len(found), max_views) if found else 0
    for image, label, hard, easy in found:
        if len(hard) < views / 2:
            number = len(hard)
        elif len(easy) < views / 2:
            number = views - len(easy)
        else:
            number = views // 2
        yield image, label, (hard, number), (easy, views - number)


def numbered(labels):
    """Features [B, 1, H, W] that count the pixels of all images, from 1 on."""
    return torch.arange(1.0, labels.numel() + 1, dtype=torch.float64).view(labels.shape)[:, None]


def check(labels, prediction, max_samples, max_views, ignore_index=-1):
    """Returns the number of anchors."""
    size = labels[0].numel()
    anchors = pk.sample_anchors(
        numbered(labels), labels, prediction, max_samples=max_samples, max_views=max_views,
        ignore_index=ignore_index,
    )  # fmt: skip
    assert anchors.features.shape == (max_samples, 1)
    assert anchors.labels.dtype == torch.int64
    drawn = [int(x) - 1 for x in anchors.features[:, 0]]
    place = 0
    for image, label, *kinds in groups(labels, prediction, max_samples, max_views, ignore_index):
        for pixels, number in kinds:
            part = slice(place, place + number)
            assert anchors.labels[part].tolist() == [label] * number
            found = [x - image * size for x in drawn[part]]
            assert len(set(found)) == number
            assert set(found) <= pixels
            place += number
    assert drawn[place:] == [-1] * (max_samples - place)
    assert anchors.labels[place:].tolist() == [ignore_index] * (max_samples - place)
    return place


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    ("max_samples", "max_views"), [(200, 1), (200, 6), (150, 40), (1024, 100), (7, 3), (37, 1000)]
)
def test_counts_and_order_are_those_of_a_loop(share, max_samples, max_views):
    labels = testing.random_labels(3, 14, 23, low=-1, high=4, seed=1)
    labels[1] = labels[1].where(labels[1] < 2, 3)
    labels[2] = testing.coherent_labels(1, 14, 23, 3)[0]
    wrong = testing.random_labels(3, 14, 23, low=-1, high=4, seed=2)
    chance = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3))
    check(labels, torch.where(chance < share, wrong, labels), max_samples, max_views)


def test_classes_of_one_image_may_differ_in_how_many_are_hard():
    labels = torch.arange(4).repeat_interleave(30).view(1, 4, 30)
    prediction = labels.clone()
    for label, hard in enumerate((1, 10, 15, 27)):
        prediction[0, label, :hard] = 5
    for max_samples in (119, 81, 80, 79, 3):
        assert check(labels, prediction, max_samples, 20) == 4 * min(max_samples // 4, 20)


def test_a_class_needs_more_pixels_than_views():
    labels = torch.tensor([7] * 4 + [8] * 5 + [9] * 6).view(1, 3, 5)
    assert check(labels, labels, 50, 4) == 8
    assert check(labels, labels, 50, 5) == 5
    assert check(labels, labels, 50, 6) == 0


def test_more_groups_than_samples_have_no_anchors():
    labels = torch.arange(6).repeat_interleave(4).view(1, 4, 6)
    assert check(labels, labels, 6, 3) == 6
    assert check(labels, labels, 5, 3) == 0


@pytest.mark.parametrize("ignore_index", [-1, 255, 0, -(2**63), 2**63 - 1])
def test_labels_may_be_any_numbers(ignore_index):
    values = torch.tensor([-(2**63), -7, -1, 0, 3, 255, 2**40, 2**63 - 1])
    labels = values[testing.random_labels(2, 12, 15, high=8)]
    assert check(labels, labels.flip(2), 200, 5, ignore_index) == 14 * 5


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.uint32])
def test_labels_and_prediction_of_any_dtype(dtype):
    labels = testing.random_labels(2, 12, 15, high=2)
    assert check(labels.to(dtype), labels.flip(1).to(torch.int32), 50, 20) == 48


def assert_uniform(counts):
    assert stats.chisquare(counts).pvalue > 1e-4


def test_draws_are_uniform_and_in_random_order():
    """3 of 9 hard and 4 of 12 easy pixels, in many images at once."""
    images = 4000
    labels = torch.zeros(images, 1, 25, dtype=torch.int64)
    labels[..., 21:] = -1
    prediction = labels.clone()
    prediction[..., :9] = 1
    features = torch.arange(25.0).expand(images, 1, 1, 25)
    options = {"max_samples": 7 * images, "max_views": 7}
    generator = torch.Generator().manual_seed(5)
    anchors = pk.sample_anchors(features, labels, prediction, **options, generator=generator)
    drawn = anchors.features[:, 0].view(images, 7).long().numpy()
    for first, kind in ((0, drawn[:, :3]), (9, drawn[:, 3:])):
        count = 9 if first == 0 else 12
        for column in kind.T:
            assert_uniform(np.bincount(column - first, minlength=count))
        # every ordered pair of neighbouring draws is as likely, and so is a pair of two images
        own = kind[:, 0] - first
        pairs = np.bincount(own * count + kind[:, 1] - first, minlength=count**2)
        assert_uniform(pairs.reshape(count, count)[~np.eye(count, dtype=bool)])
        assert_uniform(np.bincount(own[:-1] * count + own[1:], minlength=count**2))
    both = np.bincount(drawn[:, 0] * 12 + drawn[:, 3] - 9, minlength=108)
    assert_uniform(both)


def picture():
    labels = testing.random_labels(2, 14, 17, low=-1, high=3)
    return testing.features(2, 5, 14, 17), labels, labels.roll(3, 2)


def test_the_generator_decides():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return pk.sample_anchors(*picture(), max_views=20, generator=generator).features

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_gradient_is_that_of_the_drawn_pixels_and_zero_elsewhere():
    features, labels, prediction = picture()
    generator = torch.Generator().manual_seed(0)
    numbers = pk.sample_anchors(
        numbered(labels), labels, prediction, max_views=10, generator=generator
    )
    drawn = numbers.features[numbers.labels >= 0, 0].long() - 1
    assert len(drawn) == 60
    features[0, :, 0, 0] = torch.nan  # what padding reads
    labels[0, 0, 0] = -1
    features.requires_grad_()
    anchors = pk.sample_anchors(
        features, labels, prediction, max_views=10, generator=generator.manual_seed(0)
    )
    gradient = torch.randn(1024, 5, generator=generator)
    (found,) = torch.autograd.grad(anchors.features, features, gradient)
    expected = torch.zeros(2 * 14 * 17, 5)
    expected[drawn] = gradient[:60]
    assert torch.equal(found.movedim(1, -1).flatten(0, 2), expected)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
def test_strides_change_nothing(layout):
    tensors = picture()
    draws = (
        pk.sample_anchors(*given, generator=torch.Generator().manual_seed(2), max_views=20)
        for given in (tensors, [testing.LAYOUTS[layout](x) for x in tensors])
    )
    assert all(map(torch.equal, *draws))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(
        pk.sample_anchors, fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    for size in ((2, 14, 17), (3, 9, 21))[: 1 + dynamic]:
        labels = testing.random_labels(*size, low=-1, high=3)
        results = []
        for function in (pk.sample_anchors, compiled):
            features = testing.features(size[0], 4, *size[1:]).requires_grad_()
            torch.manual_seed(0)
            anchors = function(features, labels, labels.flip(1), max_samples=99, max_views=15)
            assert isinstance(anchors, pk.Anchors)
            anchors.features.square().sum().backward()
            results.append((*anchors, features.grad))
        assert all(map(torch.equal, *results))


@pytest.mark.keeps_memory
def test_features_are_not_copied():
    labels = testing.coherent_labels(2, 200, 300, 5)
    features = torch.zeros(2, 256, 200, 300)

    def call():
        pk.sample_anchors(features, labels, labels.roll(5, 1))

    assert features.nbytes > 100e6
    assert peak_extra_bytes(call) <= 80 * labels.numel() + (8 << 20)
