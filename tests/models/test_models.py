"""The reference networks: shapes, losses, gradients, inference."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
import torch.nn.functional as F

import pixelkernels as pk
from examples.train.tasks import SMALL
from pixelkernels import testing
from tests.helpers import peak_extra_bytes

models = pytest.importorskip("pixelkernels.models", exc_type=ModuleNotFoundError)
Clicks, Support = models.Clicks, models.Support
SIZE = (97, 83)
NETWORKS = {
    "coseg": models.CoSegNet,
    "menet": models.MEnet,
    "cas": models.CASNet,
    "transfer": models.LabelTransferNet,
    "interactive": models.FewShotInteractiveNet,
}


LARGEST = ("cas", "transfer", "interactive")


def small(name):
    torch.manual_seed(0)
    return NETWORKS[name](**SMALL[name])


def scene(batch=2, dtype=torch.float32):
    """Pairs of noisy images with a bright rectangle, and its masks; height and width are odd."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(batch, 2, *SIZE, dtype=torch.int64)
    masks[:, :, 30:70, 20:60] = 1
    noise = torch.randn(batch, 2, 3, *SIZE, generator=generator)
    return (noise + 2 * masks[:, :, None]).to(dtype), masks


def clicks_on(masks):
    return Clicks(*pk.simulate_clicks(masks, 2, 2, generator=torch.Generator().manual_seed(1)))


def loss_of(name, network):
    images, masks = scene(dtype=next(network.parameters()).dtype)
    generator = torch.Generator().manual_seed(2)
    if name == "coseg":
        return network.loss(images, masks, num_samples=50, generator=generator)
    if name == "transfer":
        return network.loss(images, masks, 2, num_per_class=20, generator=generator)
    first, of_first = images[:, 0], masks[:, 0]
    if name == "interactive":
        support = Support(images[:, 1:], masks[:, 1:])
        return network.loss(first, clicks_on(of_first), support, of_first)
    return network.loss(first, of_first, *([2] if name == "cas" else []))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LARGEST else []) for n in NETWORKS],
)
def test_every_parameter_has_a_gradient_that_backends_agree_on(name):
    def gradients(backend):
        network = small(name).double()
        with pk.use_backend(backend), testing.same_draws():
            loss = loss_of(name, network)
            loss.backward()
        return loss, {n: p.grad for n, p in network.named_parameters() if p.requires_grad}

    (eager, expected), (default, found) = gradients("eager"), gradients(None)
    torch.testing.assert_close(default, eager)
    for key, gradient in found.items():
        assert gradient is not None, f"{key} has no gradient"
        torch.testing.assert_close(gradient, expected[key], msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_parameters_is_as_documented(name):
    text = " ".join(NETWORKS[name].__doc__.split())
    documented = int(re.search(r"About (\d+) million parameters", text)[1])
    with torch.device("meta"):
        network = NETWORKS[name]()
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == documented


def test_shapes_of_outputs():
    images, masks = scene()
    coseg = small("coseg")
    result = coseg(images)
    assert result.embedding.shape == (4, 32, *SIZE)
    assert result.logits.shape == (4, 2, *SIZE)
    assert coseg.predict(images).shape == masks.shape
    menet = small("menet")
    assert menet(images[:, 0]).metric.shape == (2, 16, *SIZE)
    assert len(menet.scales) == 13
    saliency = menet.saliency(images[:, 0])
    assert saliency.shape == (2, *SIZE)
    assert ((saliency >= 0) & (saliency <= 1)).all()
    cas = models.CASNet(3, architecture="deeplab", **SMALL["cas"])
    torch.testing.assert_close(cas(images[:, 0]).sum(1), torch.ones(2, *SIZE))
    assert small("transfer")(images[:, 0]).shape == (2, 32, 49, 42)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_co_segmentation_loss_is_a_sum(kind):
    network = small("coseg").eval()
    images, masks = scene()
    alone = network.loss(images, masks, segmentation=kind, triplet_weight=0)
    generator = torch.Generator().manual_seed(0)
    both = network.loss(images, masks, segmentation=kind, triplet_weight=0.5, generator=generator)
    result = network(images)
    generator.manual_seed(0)
    triplets = pk.is_triplet_loss(result.embedding, masks.flatten(0, 1), generator=generator)
    torch.testing.assert_close(both, alone + 0.5 * triplets)
    if kind == "cross_entropy":
        expected = F.cross_entropy(result.logits, masks.flatten(0, 1))
        torch.testing.assert_close(alone, expected)


def test_displacement_correlation_follows_its_definition():
    x, y = torch.randn(2, 2, 5, 4, 3, dtype=torch.float64)
    found = models.displacement_correlation(x, y, 2).unflatten(1, (5, 5))
    for dy, dx in itertools.product(range(-2, 3), repeat=2):
        for row, column in itertools.product(range(4), range(3)):
            r, c = row + dy, column + dx
            inside = 0 <= r < 4 and 0 <= c < 3
            expected = (x[:, :, row, column] * y[:, :, r, c]).mean(1) if inside else torch.zeros(2)
            at = found[:, dy + 2, dx + 2, row, column]
            torch.testing.assert_close(at, expected.double())


def test_losses_of_saturated_logits():
    logits = torch.full((1, 2, 2, 2), 40.0)
    logits[:, 0] = 0
    logits[0, 1, 1] = -40  # object in the upper row only
    upper = torch.tensor([[[1, 1], [0, 0]]])
    assert models.dice_loss(logits, upper) == 0
    assert abs(models.dice_loss(logits, 1 - upper) - (1 - 1 / 5)) < 1e-6
    for mask in (upper, 1 - upper):
        assert models.class_agnostic_cross_entropy(logits, mask) < 1e-6
    assert models.class_agnostic_cross_entropy(logits, torch.ones_like(upper)) > 10


def test_cas_chooses_the_channel_that_correlates_with_the_mask(monkeypatch):
    network = models.CASNet(3, **SMALL["cas"])
    images, masks = scene()
    target = masks[:, 0].float()
    maps = torch.stack([1 - target, target / 2, target * 0 + 0.1], 1)
    monkeypatch.setattr(network, "forward", lambda images: maps)
    channel = network.choose_channel(images[:, 0], masks[:, 0])
    assert channel == 1
    assert torch.equal(network.predict(images[:, 0], channel).long(), masks[:, 0])


def test_transfer_scores_are_sums_of_normalised_products():
    network = small("transfer").eval()
    norm = network.similarity
    norm.running_mean.fill_(0.3), norm.running_var.fill_(2), norm.weight.data.fill_(1.5)
    query, reference = torch.randn(1, 8, 5, 4), torch.randn(1, 8, 7)
    labels = torch.tensor([[0, 1, 1, -1, 0, 1, 0]])
    products = torch.einsum("dn,dk->kn", query[0].flatten(1), reference[0])
    psi = F.batch_norm(
        products[None, None], norm.running_mean, norm.running_var, norm.weight, norm.bias
    )[0, 0]
    expected = torch.stack([psi[labels[0] == c].sum(0) for c in (0, 1)]).view(1, 2, 5, 4)
    found, scores = network.transfer(query, reference, labels, 2)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, expected.argmax(1))


@pytest.mark.keeps_memory
def test_memory_does_not_grow_with_the_video():
    network = small("transfer").eval()
    labels = scene()[1][0, 0]

    def frames(count):
        return (torch.randn(3, *SIZE) for _ in range(count))

    def label(count):
        for found in network.propagate(frames(count), labels, 2):
            assert found.shape == SIZE
            assert found.unique().tolist() in ([0], [1], [0, 1])

    few, many = (peak_extra_bytes(lambda n=n: label(n)) for n in (3, 12))
    assert many <= few + (8 << 20)
    empty = torch.full(SIZE, -1)
    assert all((x == -1).all() for x in network.propagate(frames(2), empty, 2))


def test_shots_of_the_support_are_averaged():
    network = small("interactive").eval()
    images, masks = scene()
    clicks = clicks_on(masks[:, 0])
    orders = [
        network(images[:, 0], clicks, Support(images[:, order], masks[:, order]))
        for order in ([0, 1], [1, 0], [1], [1, 1, 1])
    ]
    torch.testing.assert_close(orders[0], orders[1])
    torch.testing.assert_close(orders[2], orders[3])
    assert not torch.allclose(orders[0], orders[2])


def test_misfit_is_computed_from_squares_around_clicks():
    """f-BRS computes it from logits at full size, under masks of the squares."""
    points = torch.tensor([[[0, 0], [5, 7], [6, 8], [-1, -1]], [[9, 12], [3, 3], [-1, -1], [2, 6]]])
    labels = torch.tensor([[1, 1, 1, -1], [0, 0, -1, 1]])
    size = (10, 13)
    masks = torch.zeros(2, 2, *size, dtype=torch.float64)
    for image, (at, kinds) in enumerate(zip(points.tolist(), labels.tolist(), strict=True)):
        for (row, column), kind in zip(at, kinds, strict=True):
            if kind >= 0:
                rows, columns = (slice(max(x - 1, 0), x + 2) for x in (row, column))
                masks[kind, image, rows, columns] = 1
    logits = torch.randn(2, 1, 4, 5, dtype=torch.float64)
    p = F.interpolate(logits, size, mode="bilinear")[:, 0].sigmoid()
    negative, positive = masks
    expected = (positive * (1 - p) ** 2).sum() / (positive.sum() + 1e-5)
    expected = expected + (negative * p**2).sum() / (negative.sum() + 1e-5)
    found, satisfied = models.refinement._Squares(Clicks(points, labels), size).misfit(logits)
    torch.testing.assert_close(found, expected)
    assert not satisfied
    fits = torch.where(F.interpolate(positive[:, None], (4, 5)) > 0, 9.0, -9.0)
    one = Clicks(torch.tensor([[[9, 0]], [[0, 12]]]), torch.tensor([[0], [0]]))
    assert models.refinement._Squares(one, size).misfit(fits * 0 - 9)[1]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "after"])
def test_refinement_reduces_the_misfit_at_clicks(place):
    network = small("interactive")
    with torch.no_grad():
        for _ in range(20):  # batch norms collect statistics
            loss_of("interactive", network)
    network.eval()
    images, masks = scene()
    support = Support(images[:, 1:], masks[:, 1:])
    clicks = clicks_on(masks[:, 0])
    squares = models.refinement._Squares(clicks, SIZE)
    with torch.no_grad():
        joined = network.junction(network.join(images[:, 0], clicks, support))
        before, _ = squares.misfit(network.head(joined))
    logits = models.refined_logits(network, images[:, 0], clicks, support, place=place)
    after, _ = squares.misfit(logits[:, None])
    assert after < 0.97 * before
    padding = clicks._replace(labels=torch.full_like(clicks.labels, -1))
    with torch.no_grad():
        unrefined = network(images[:, 0], padding, support)
    refined = models.refined_logits(network, images[:, 0], padding, support, place=place)
    torch.testing.assert_close(refined, unrefined)


def test_click_loop_skips_images_without_errors(monkeypatch):
    network = small("interactive").eval()
    images, masks = scene()
    target = masks[:, 0]
    answer = torch.where(target == 1, 1.0, -1.0)
    answer[1, 30, 20] = -1  # the only error, in the second image
    monkeypatch.setattr(network, "forward", lambda *_: answer)
    support = Support(images[:, 1:], masks[:, 1:])
    first, second = models.click_loop(network, images[:, 0], support, target, num_clicks=2)
    assert first.clicks.labels.tolist() == [[1], [1]]
    assert first.iou[0] == 1
    assert second.clicks.points[:, 1].tolist() == [[-1, -1], [30, 20]]
    assert second.clicks.labels[:, 1].tolist() == [-1, 1]


def test_bad_input_is_refused():
    (images, masks), menet = scene(), small("menet")
    first, of_first = images[:, 0], masks[:, 0]
    maps = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4)
    for reason, call in (
        ("images: expected floats", lambda: small("coseg")(first)),
        ("at least 64 x 64", lambda: menet(torch.zeros(1, 3, 63, 80))),
        ("masks: expected", lambda: menet.loss(first, of_first[:, 1:])),
        ("kind: expected cas", lambda: small("cas").loss(first, of_first, 2, kind="dice")),
        ("pairs: expected sampled", lambda: small("transfer").loss(images, masks, 2, pairs="some")),
        ("architecture: expected fcn or deeplab", lambda: models.CASNet(architecture="unet")),
        ("weights: there are none", lambda: models.CASNet(depth=(1,) * 4, weights="DEFAULT")),
        ("reference: expected the shape", lambda: models.displacement_correlation(*maps, 1)),
        (
            "place: expected before or after",
            lambda: models.refined_logits(small("interactive"), images, None, None, place="inside"),
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            call()
