"""Drop-ins on photographs and their masks, against independent statements of the originals.

Photographs that scikit-image ships are always there; further ones come from the folder that the
environment variable PIXELKERNELS_TEST_DATA names: video/<name>/images and masks, instances and
scenes/voc.

Points, disks and distances to SciPy's float64 are equal to the last bit, maps of tanh within 2e-6.
Losses, their gradients and features agree within 1e-9 of their largest value in float64, and
within 1e-5 in float32.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from skimage import data

from pixelkernels.compat import cas, feelvos, kornia, monai, panet, pfenet, ritm, sam2, scipy
from pixelkernels.compat.discriminative import ContrastiveLoss
from tests.test_compat import Clicker, click_as_written, maps_as_written

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}


def folder(*names):
    """A folder of the test data."""
    root = Path(os.environ.get("PIXELKERNELS_TEST_DATA") or "nowhere")
    if not root.is_dir():
        pytest.skip("PIXELKERNELS_TEST_DATA names no folder of images")
    return root.joinpath(*names)


def read(file):
    """The numbers in an image: of one with a palette, those of its colours, which are ids."""
    return np.array(Image.open(file))


def assert_close(found, expected):
    """Within the tolerance of the found one's dtype, of the largest value expected."""
    limit = TOLERANCES[found.dtype] * expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=limit)


# ---- masks ----


@pytest.fixture(scope="module", params=["silhouettes", "car-shadow"])
def pairs(request):
    """An object and what stands for its prediction, bool [H, W] each: another mask."""
    if request.param == "car-shadow":
        files = sorted(folder("video", "car-shadow", "masks").glob("*.png"))
        frames = [read(file) > 127 for file in files]
        return [
            (frames[i], frames[j]) for i, j in ((0, 1), (3, 10), (6, 7), (11, 4), (13, 14), (19, 2))
        ]
    horse, coins = ~data.horse().astype(bool), data.coins() > 120
    return [
        (mask, other)
        for mask in (horse, coins)
        for other in (np.roll(mask, (5, -9), (0, 1)), mask[::-1], ~mask, np.zeros_like(mask))
    ]


def clicker(target):
    """As RITM's: the object alone, and beside it what counts."""
    everywhere = np.ones(target.shape, bool)
    return Clicker(gt_mask=target, not_ignore_mask=everywhere, not_clicked_map=everywhere.copy())


def test_ritm_clicks(pairs):
    ties = 0
    for target, prediction in pairs:
        state = clicker(target)
        for _ in range(2):
            found = ritm.get_next_click(state, prediction)
            assert found == click_as_written(state, prediction)
            state.not_clicked_map[found.coords] = False
        error = np.pad(target & ~prediction if found.is_positive else prediction & ~target, 1)
        depth = ndimage.distance_transform_edt(error)
        ties += (depth == depth.max()).sum() > 1
    assert ties > 1  # so that it matters which of the deepest pixels is the first


def test_ritm_clicks_leave_out_what_the_clicker_ignores(pairs):
    target = pairs[0][0]
    known = ndimage.distance_transform_edt(~target) < 10
    state, written = clicker(target), clicker(np.where(known, target, -1))
    state.not_ignore_mask &= known
    everywhere = np.ones_like(target)
    assert ritm.get_next_click(state, everywhere) == click_as_written(written, everywhere)


@pytest.mark.parametrize("padding", [True, False])
def test_sam2_centers(pairs, padding):
    for shape in {target.shape for target, _ in pairs}:
        group = [pair for pair in pairs if pair[0].shape == shape][::2]
        target, prediction = (
            torch.from_numpy(np.stack(masks))[:, None] for masks in zip(*group, strict=True)
        )
        points, labels = sam2.sample_one_point_from_error_center(target, prediction, padding)
        clicks = [click_as_written(clicker(x), y, padding) for x, y in group]
        assert points[:, 0].tolist() == [[c.coords[1], c.coords[0]] for c in clicks]
        assert labels[:, 0].tolist() == [c.is_positive for c in clicks]


def test_ritm_distance_maps_of_clicks(pairs):
    for target, prediction in pairs[::4]:
        state, sides = clicker(target), {True: [], False: []}
        for _ in range(4):
            found = click_as_written(state, prediction)
            # quarters of pixels, as clicks in an enlarged view have them
            sides[found.is_positive].append((found.coords[0] + 0.25, found.coords[1] - 0.5))
            state.not_clicked_map[found.coords] = False
        points = [side + [(-1, -1)] * (4 - len(side)) for side in (sides[True], sides[False])]
        points, image = torch.tensor(points).view(1, 8, 2), torch.zeros(1, 3, *target.shape)
        for radius, disks in ((5, True), (100, False)):
            found = ritm.DistMaps(radius, use_disks=disks)(image, points).double()
            expected = maps_as_written(points, 1, *target.shape, radius, 1.0, disks)
            torch.testing.assert_close(found, expected, rtol=0, atol=0 if disks else 2e-6)


def squares_as_written(mask):
    """Squared distances to the nearest zero, int, from the place where SciPy finds it."""
    place = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    return ((np.indices(mask.shape) - place) ** 2).sum(0)


def test_distance_transforms(pairs):
    for mask in [pair[0] for pair in pairs[::4]]:
        found, squares = scipy.distance_transform_edt(mask), squares_as_written(mask)
        assert np.array_equal(found, ndimage.distance_transform_edt(mask))
        assert np.array_equal(found, np.sqrt(squares))
        in_float32 = np.sqrt(squares).astype(np.float32)
        tensor = torch.from_numpy(mask)[None].float()
        assert np.array_equal(monai.distance_transform_edt(tensor)[0], found)
        assert np.array_equal(kornia.distance_transform(1 - tensor[None])[0, 0], in_float32)


def test_monai_transform_is_scipys_in_float64(pairs):
    masks = np.stack([pairs[0][0], ~pairs[0][0]])
    found = monai.distance_transform_edt(masks)
    assert np.array_equal(found, [ndimage.distance_transform_edt(mask) for mask in masks])


def test_distance_transforms_of_many_objects(instances):
    labels = instances.labels[0, 0].numpy()
    edges = ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)
    for mask in (labels > 0, edges, labels):
        found = scipy.distance_transform_edt(mask)
        assert np.array_equal(found, ndimage.distance_transform_edt(mask))
        assert np.array_equal(found, np.sqrt(squares_as_written(mask)))


# ---- instances ----


def smoothed(image):
    """The channels of a photograph [H, W, C], as they are and blurred: float64 [1, 3 C, H, W]."""
    image = image.astype(np.float64)
    image = (image - image.mean((0, 1))) / image.std((0, 1))
    scales = [ndimage.gaussian_filter(image, (s, s, 0)) for s in (0, 2, 6)]
    return torch.from_numpy(np.concatenate(scales, 2)).movedim(2, 0)[None].contiguous()


@pytest.fixture(scope="module", params=["coins", "nuclei", "voc"])
def instances(request):
    """Features [1, E, H, W] and labels [1, 1, H, W] with ids that are not consecutive."""
    if request.param == "coins":
        image = data.coins()[..., None]
        labels = ndimage.label(ndimage.median_filter(image[..., 0], 7) > 120)[0] * 7
    elif request.param == "nuclei":
        image = read(folder("instances", "img2d.tif"))[..., None]
        labels = read(folder("instances", "mask2d.tif"))
        assert len(np.unique(labels)) == 126
        image, labels = image[::2, ::2], labels[::2, ::2]
    else:
        image = read(folder("scenes", "voc", "JPEGImages", "2011_000006.jpg"))
        labels = read(folder("scenes", "voc", "SegmentationObject", "2011_000006.png"))
    labels = torch.from_numpy(labels.astype(np.int64))
    ids = labels.unique()
    assert len(ids) < ids.max() + 1
    return SimpleNamespace(features=smoothed(image), labels=labels[None, None])


def contrastive_as_written(features, labels, delta_var, delta_dist):
    """The three terms of one image, [E, H, W] and [H, W]."""
    pixels, labels = features.flatten(1).T, labels.flatten()
    ids, cluster, count = labels.unique(return_inverse=True, return_counts=True)
    members = F.one_hot(cluster).to(pixels.dtype)
    means = members.T @ pixels / count[:, None]
    hinge = ((pixels - means[cluster]).norm(dim=1) - delta_var).clamp(min=0).square()
    pull = (members.T @ hinge / count).mean()
    apart = (means[:, None] - means).norm(dim=2)[~torch.eye(len(ids), dtype=torch.bool)]
    push = (2 * delta_dist - apart).clamp(min=0).square().mean()
    return torch.stack([pull, push, means.norm(dim=1).mean()])


def test_torch_em_loss_of_instances(instances):
    features = instances.features.clone().requires_grad_()
    terms = contrastive_as_written(features[0], instances.labels[0, 0], 0.5, 1.5)
    assert (terms > 0.01).all()  # every term counts
    expected = terms @ torch.tensor([1.0, 2.0, 0.001]).double()
    (gradient,) = torch.autograd.grad(expected, features)
    for dtype in TOLERANCES:
        given = features.detach().to(dtype).requires_grad_()
        loss = ContrastiveLoss(0.5, 1.5, beta=2.0)(given, instances.labels)
        assert_close(loss, expected.detach())
        assert_close(torch.autograd.grad(loss, given)[0], gradient)


# ---- two frames and their masks ----


def photograph(array, size):
    """[1, 3, H, W] in 0..1, float64, cropped to `size`."""
    image = torch.from_numpy(np.array(array)).movedim(2, 0)[None].double() / 255
    return image[..., : size[0], : size[1]]


@pytest.fixture(scope="module", params=["chelsea", "car-shadow", "judo"])
def frames(request):
    """Two images [1, 3, H, W], of sides that 16 divides, and labels [H, W] of the first."""
    if request.param == "chelsea":
        image, size = data.chelsea(), (288, 448)
        warmth = ndimage.gaussian_filter(image[..., 0] - 1.0 * image[..., 2], 3)
        labels = np.digitize(warmth, [50, 80]) * 2  # nothing is 1 or 3
        images = [image, image[::-1, ::-1]]
    else:
        size, place = (480, 848), folder("video", request.param)
        names = {"car-shadow": ("00000", "00004"), "judo": ("00008", "00009")}[request.param]
        images = [read(place / "images" / f"{name}.jpg") for name in names]
        labels = read(place / "masks" / f"{names[0]}.png")
        labels = labels.astype(int) if request.param == "judo" else (labels > 127).astype(int)
    reference, query = (photograph(image, size) for image in images)
    labels = torch.from_numpy(labels[: size[0], : size[1]])
    assert labels.bool().any()
    return SimpleNamespace(reference=reference, query=query, labels=labels)


def features(image):
    """48 differences from the image's mean colours, of 16 x 16 pixels each: [1, 48, H/16, W/16]."""
    return F.pixel_unshuffle(F.avg_pool2d(image - image.mean((2, 3), True), 4), 4)


def prior_as_written(query, support, mask):
    """One shot's: [B, C, h, w] twice and [B, 1, H, W]."""
    size = query.shape[2:]
    weights = F.interpolate(mask, size=size, mode="bilinear", align_corners=True)
    s, q = (support * weights).flatten(2), query.flatten(2)
    norms = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None]
    best = (s.mT @ q / (norms + 1e-7)).amax(1)
    low, high = best.amin(1, True), best.amax(1, True)
    return ((best - low) / (high - low + 1e-7)).view(-1, 1, *size)


def test_pfenet_prior(frames):
    mask = (frames.labels > 0).double()[None, None]
    # the second image of the batch and the second shot are mirror images
    query = torch.cat([features(frames.query), features(frames.reference.flip(3))])
    shots = [torch.cat([x, x.flip(3)]) for x in (frames.reference, frames.reference.flip(2))]
    masks = [torch.cat([x, x.flip(3)]) for x in (mask, mask.flip(2))]
    shots = [features(x) for x in shots]
    expected = sum(prior_as_written(query, s, m) for s, m in zip(shots, masks, strict=True)) / 2
    for dtype in TOLERANCES:
        given = [[x.to(dtype) for x in xs] for xs in (shots, masks)]
        assert_close(pfenet.prior(query.to(dtype), *given), expected)


def test_prototypes(frames):
    mask, given = (frames.labels > 0).double()[None], features(frames.reference)[:, :12]
    large = F.interpolate(given, size=mask.shape[1:], mode="bilinear", align_corners=False)
    expected = (large * mask).sum((2, 3)) / (mask.sum() + 1e-5)
    small = F.avg_pool2d(mask, 16)[:, None]
    pooled = (given * small).sum((2, 3), True) / (small.sum() + 5e-4)
    for dtype in TOLERANCES:
        features_, mask_, small_ = (x.to(dtype) for x in (given, mask, small))
        assert_close(panet.getFeatures(None, features_, mask_), expected)
        assert_close(pfenet.weighted_gap(features_, small_), pooled)


def test_feelvos_nearest_neighbours(frames):
    images = [features(x)[0].movedim(0, -1) for x in (frames.reference, frames.query)]
    labels = frames.labels[8::16, 8::16, None]
    given = {dtype: [x.to(dtype) for x in images] for dtype in TOLERANCES}
    found = {
        (dtype, k): feelvos.nearest_neighbor_features_per_object(*given[dtype], labels, k)
        for dtype in TOLERANCES
        for k in (1, 5)
    }
    reference, query = (x.flatten(0, 1) for x in images)
    for i in range(int(labels.max()) + 1):
        points = reference[labels.flatten() == i]
        distances = torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist")
        distances = distances.square().sort(1).values
        for (_, k), (scores, ids) in found.items():
            assert ids[i] == i
            if len(points) == 0:
                assert (scores[..., i, 0] == (1e20 if k == 1 else 0)).all()
            else:
                places = [min(j, len(points) - 1) for j in range(k)]
                assert_close(scores[0, ..., i, 0].flatten(), distances[:, places].mean(1))
    itself = (images[0], images[0], labels)
    assert feelvos.nearest_neighbor_features_per_object(*itself, 1)[0].min() >= 0


def cas_as_written(gt, softmaxed):
    inside, outside = gt + 3e-5, 1 - gt + 3e-5
    mean, other = (
        (w * softmaxed).sum((2, 3), True) / w.sum((2, 3), True) for w in (inside, outside)
    )
    spread = (inside * (softmaxed - mean)).square().sum((2, 3)) / (inside.sum((2, 3)) + 3e-5)
    return 0.5 * (spread.sum() - (mean - other).square().sum()) / 40


def test_cas_loss(frames):
    gt = F.max_pool2d((frames.labels > 0).double()[None, None], 2).expand(2, 1, -1, -1)
    colours = F.avg_pool2d(torch.cat([frames.reference, frames.query]), 2)
    softmaxed = (4 * colours[:, :2]).softmax(1).requires_grad_()
    expected = cas_as_written(gt, softmaxed)
    (gradient,) = torch.autograd.grad(expected, softmaxed)
    for dtype in TOLERANCES:
        given = softmaxed.detach().to(dtype).requires_grad_()
        loss = cas.lss()(gt.to(dtype), given)
        assert_close(loss, expected.detach())
        assert_close(torch.autograd.grad(loss, given)[0], gradient)
