"""Drop-ins that match frames, against statements of the originals pixel by pixel."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelkernels import testing
from pixelkernels.compat import cfbi, dino, feelvos, metavos, stcn


def squares(x, y):
    return (x[:, None] - y[None]).square().sum(-1)


def frames(height, width, channels, seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, height, width, channels, dtype=torch.float64)


def squashed(x):
    return 2 / (1 + torch.exp(-x)) - 1


def test_manet_passes_the_largest_label_for_the_ids():
    reference, query = frames(5, 6, 3)
    labels = torch.randint(0, 3, (5, 6, 1))
    for largest in (4, torch.tensor(4)):
        found, ids = feelvos.nearest_neighbor_features_per_object(
            reference, query, labels, 1, largest
        )
        assert ids.tolist() == [0, 1, 2, 3, 4]
        assert (found[..., 3:, 0] == 1e20).all()


@pytest.mark.parametrize("size", [(12, 16), (13, 11)])
def test_manet_local_matching(size):
    height, width = size
    previous, query = frames(height, width, 4)
    labels = testing.coherent_labels(1, height, width, 3)[0][..., None]
    ids = torch.tensor([0, 2, 7])
    reach = 2
    x, y = (F.avg_pool2d(f.movedim(-1, 0)[None], 2)[0] for f in (query, previous))
    half_height, half_width = x.shape[1:]
    expected = torch.ones(height, width, 3, dtype=torch.float64)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            distance = torch.ones(half_height, half_width, dtype=torch.float64)
            for row in range(half_height):
                for column in range(half_width):
                    if 0 <= row + dy < half_height and 0 <= column + dx < half_width:
                        gap = x[:, row, column] - y[:, row + dy, column + dx]
                        distance[row, column] = squashed(gap.square().sum())
            full = F.interpolate(distance[None, None], size, mode="bilinear", align_corners=True)
            for row in range(height):
                for column in range(width):
                    far = (row + 2 * dy, column + 2 * dx)
                    inside = 0 <= far[0] < height and 0 <= far[1] < width
                    there = (labels[far] if inside else 0) == ids
                    at = expected[row, column]
                    at[there] = at[there].clamp(max=full[0, 0, row, column])
    found = feelvos.local_previous_frame_nearest_neighbor_features_per_object(
        previous, query, labels, ids, reach
    )
    assert found.shape == (1, height, width, 3, 1)
    torch.testing.assert_close(found[0, ..., 0], expected)
    assert (found[..., 2, 0] == 1).all()  # no pixel has the label 7


def soft_labels(height, width):
    """Two objects: hard pixels, a pixel of both, one of neither, one whose labels sum to 0.9."""
    labels = torch.zeros(height, width, 2, dtype=torch.float64)
    labels[: height // 2, :, 0] = 1
    labels[height // 2 :, :, 1] = 1
    labels[0, 0] = 0.5
    labels[0, 1] = 0
    labels[1, 0] = torch.tensor([0.9, 0.0])
    labels[1, 1] = torch.tensor([0.95, 0.05])
    return labels


@pytest.mark.parametrize(("rate", "least"), [(1, 0), (2, 0), (2, 5)])
def test_cfbi_global_matching(rate, least):
    reference, query = frames(6, 7, 4)
    labels = soft_labels(6, 7)
    labels[3:] = 0
    labels[4, :3, 1] = 1  # 3 pixels of the second object, fewer than 5 * rate^2
    bias = torch.tensor([0.1, -0.3], dtype=torch.float64)
    thin = labels.clone()
    if rate > 1:
        lattice = torch.zeros(6, 7, 1)
        lattice[::rate, ::rate] = 1
        for i in range(2):
            if labels[..., i].sum() > least * rate**2:
                thin[..., i : i + 1] *= lattice
    flat = thin.flatten(0, 1)
    entering = flat.sum(1) > 0.9
    distance = squares(query.flatten(0, 1), reference.flatten(0, 1)[entering])
    expected = torch.stack(
        [squashed(distance[:, flat[entering, i] >= 0.1].amin(1) + bias[i]) for i in range(2)], 1
    )
    before = labels.clone()
    options = {"dis_bias": bias, "atrous_rate": rate, "atrous_obj_pixel_num": least}
    found = cfbi.global_matching(reference, query, labels, **options)
    assert found.shape == (1, 6, 7, 2, 1)
    torch.testing.assert_close(found[0, ..., 0].flatten(0, 1), expected)
    assert torch.equal(labels, before)  # the original thins them out in place
    both = cfbi.global_matching_for_eval([reference] * 2, query, [labels] * 2, **options)
    torch.testing.assert_close(both, found)
    resized = cfbi.global_matching(reference, query, labels, ori_size=(9, 10), **options)
    wanted = F.interpolate(
        found[0, ..., 0].movedim(-1, 0)[None], (9, 10), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(resized[0, ..., 0].movedim(-1, 0)[None], wanted)


def test_cfbi_a_pixel_enters_above_a_sum_of_0_9_and_is_an_object_s_from_0_1():
    reference = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]], dtype=torch.float64)
    query = torch.zeros(1, 1, 1, dtype=torch.float64)
    labels = torch.tensor([[[0.9, 0.0], [0.95, 0.05], [0.1, 0.85], [0.0, 1.0]]]).double()
    found = cfbi.global_matching(reference, query, labels)[0, 0, 0, :, 0]
    # 0.9 does not enter; 0.05 is no membership; 0.1 is one
    torch.testing.assert_close(found, squashed(torch.tensor([1.0, 4.0], dtype=torch.float64)))


def test_cfbi_an_absent_object_is_one_and_no_reference_ones_of_the_query_s_size():
    reference, query = frames(4, 5, 3)
    labels = torch.zeros(4, 5, 2, dtype=torch.float64)
    labels[..., 0] = 1
    found = cfbi.global_matching(reference, query, labels)
    assert (found[..., 1, 0] == 1).all()
    assert (found[..., 0, 0] < 1).all()
    nothing = cfbi.global_matching(reference, query, labels * 0.9, ori_size=(8, 9))
    assert torch.equal(nothing, torch.ones(1, 4, 5, 2, 1))


@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("downsample", [False, True])
def test_cfbi_local_matching(rate, downsample):
    height, width = 19, 34
    previous, query = frames(height, width, 3)
    labels = F.one_hot(testing.coherent_labels(1, height, width, 3)[0], 3).double()
    labels[..., 2] *= 0.9  # not above 0.9
    bias = torch.tensor([0.2, 0.0, -0.1], dtype=torch.float64)
    x, y, objects = (f.movedim(-1, 0)[None] for f in (query, previous, labels))
    if downsample:
        size = (height // 2 + 1, width // 2 + 1)
        x, y = (F.interpolate(f, size, mode="bilinear", align_corners=True) for f in (x, y))
        objects = F.interpolate(objects, size, mode="nearest")
    size = x.shape[2:]
    expected = torch.full((3, 3, *size), torch.inf, dtype=torch.float64)
    y, objects = F.pad(y, (5,) * 4, value=torch.inf), F.pad(objects, (5,) * 4)
    for n, reach in enumerate((5, 3, 4)):  # the largest comes first
        steps = range(-(reach // rate) * rate, reach + 1, rate)
        for dy, dx in ((dy, dx) for dy in steps for dx in steps):
            far = (..., slice(5 + dy, 5 + dy + size[0]), slice(5 + dx, 5 + dx + size[1]))
            distance = (x[0] - y[0][far]).square().sum(0)
            there = torch.where(objects[0][far] > 0.9, distance, torch.inf)
            expected[:, n] = torch.minimum(expected[:, n], there)
    expected = squashed(expected + bias[:, None, None, None])
    found = cfbi.local_matching(
        previous, query, labels, bias, [3, 4, 5], atrous_rate=rate, allow_downsample=downsample
    )
    assert found.shape == (1, height, width, 3, 3)
    wanted = F.interpolate(expected, (height, width), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found[0], wanted.permute(2, 3, 0, 1))
    assert (found[..., 2, :] == 1).all()


def test_cfbi_gradients_are_those_of_the_nearest_pixels():
    previous, query = (f.requires_grad_() for f in frames(6, 7, 3))
    labels = F.one_hot(testing.coherent_labels(1, 6, 7, 2)[0], 2).double()

    def local(p, q):
        return cfbi.local_matching(p, q, labels, multi_local_distance=[2], allow_downsample=False)

    def everywhere(p, q):
        return cfbi.global_matching(p, q, labels)

    for call in (local, everywhere):
        assert torch.autograd.gradcheck(call, (previous, query))


class ViT:
    """What label propagation asks of a vision transformer: 4 x 4 patches and a class token."""

    patch_embed = SimpleNamespace(patch_size=4)

    def get_intermediate_layers(self, images, n):
        patches = F.unfold(images, 4, stride=4).transpose(1, 2)
        return [torch.cat([patches.new_full((1, 1, patches.shape[2]), 100), patches], 1)]


def propagated(target, sources, segments, radius, topk):
    """Pixel by pixel: exponentials in the window, zeros elsewhere, all that reach the k-th."""
    height, width = target.shape[1:]
    flat = sources.flatten(2)
    found = torch.zeros(segments.shape[1:], dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            here = target[:, row, column]
            cosine = F.cosine_similarity(here[None, :, None], flat, dim=1)
            near = torch.zeros(height, width)
            if radius:
                rows = slice(max(row - radius, 0), row + radius + 1)
                near[rows, max(column - radius, 0) : column + radius + 1] = 1
            else:
                near[:] = 1
            weights = (torch.exp(cosine / 0.1) * near.flatten()).flatten()
            weights[weights < weights.sort(descending=True).values[topk - 1]] = 0
            labels = segments.flatten(2).transpose(0, 1).flatten(1)
            found[:, row, column] = labels @ weights / weights.sum()
    return found


@pytest.mark.parametrize("radius", [0, 2, 12])
def test_dino_label_propagation(radius):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 4 * 10, 4 * 19, dtype=torch.float64)
    model, args = ViT(), SimpleNamespace(size_mask_neighborhood=radius, topk=5)
    features = [model.get_intermediate_layers(x[None], 1)[0][0, 1:].T for x in images]
    segments = [
        F.one_hot(testing.coherent_labels(1, 10, 19, 3, seed=i), 3).movedim(-1, 1).double()
        for i in range(3)
    ]
    found, own, mask = dino.label_propagation(args, model, images[3], features[:3], segments)
    assert torch.equal(own, features[3])
    assert mask is None
    expected = propagated(
        features[3].unflatten(1, (10, 19)),
        torch.stack(features[:3]).unflatten(2, (10, 19)),
        torch.cat(segments), radius, 5,
    )  # fmt: skip
    assert found.shape == (1, 3, 10, 19)
    torch.testing.assert_close(found[0], expected)


def test_dino_keeps_all_that_tie_with_the_last_of_the_best():
    # one best match and three that tie for the second place
    target = torch.tensor([1.0, 0.0]).view(2, 1, 1).double()
    sources = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]]).double()
    segments = torch.eye(5, dtype=torch.float64)
    found = dino.propagate(
        target, sources.view(5, 2, 1, 1), segments.view(5, 5, 1, 1), radius=1, topk=2
    ).flatten()
    weights = torch.tensor([10.0, 6.0, 6.0, 6.0]).double().exp()
    torch.testing.assert_close(found[:4], weights / weights.sum())
    assert found[4] == 0


def test_dino_a_window_of_fewer_pixels_than_topk():
    torch.manual_seed(0)
    target, source = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    segments = torch.rand(1, 2, 2, 2, dtype=torch.float64)
    found = dino.propagate(target, source[None], segments, radius=1, topk=9)
    expected = propagated(target, source[None], segments, 1, 4)
    torch.testing.assert_close(found, expected)


def memory(selected):
    torch.manual_seed(0)
    mk, qk = torch.randn(1, 6, 40), torch.randn(1, 6, 25)
    ms = 1 + torch.rand(1, 1, 40) if selected else None
    qe = torch.rand(1, 6, 25) if selected else None
    mv = torch.randn(3, 5, 40)
    return [x if x is None else x.double() for x in (mk, ms, qk, qe, mv)]


@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("top_k", [7, None])
def test_xmem_readout(selected, top_k, monkeypatch):
    monkeypatch.setattr(stcn, "BLOCK", 200)  # five queries at a time
    mk, ms, qk, qe, mv = memory(selected)
    gaps = (mk[0][:, :, None] - qk[0][:, None]).square()
    similarity = -(gaps if qe is None else gaps * qe[0][:, None]).sum(0) / math.sqrt(6)
    if ms is not None:
        similarity = similarity * ms[0, 0][:, None]
    affinity = similarity.exp()
    if top_k is not None:
        affinity[affinity < affinity.sort(0, descending=True).values[top_k - 1]] = 0
    affinity = affinity / affinity.sum(0)
    found, usage = stcn.readout(mk, ms, qk, qe, mv, top_k)
    torch.testing.assert_close(found, mv @ affinity)
    torch.testing.assert_close(usage, affinity.sum(1)[None])


def test_xmem_readout_of_frames_and_its_gradients():
    mk, ms, qk, qe, mv = memory(True)
    square = stcn.readout(
        mk.view(1, 6, 2, 4, 5), ms.view(1, 1, 2, 4, 5), qk.view(1, 6, 5, 5), qe.view(1, 6, 5, 5),
        mv.view(3, 5, 2, 4, 5), 4,
    )  # fmt: skip
    for ours, flat in zip(square, stcn.readout(mk, ms, qk, qe, mv, 4), strict=True):
        assert torch.equal(ours, flat)
    leaves = [x[..., :6].clone().requires_grad_() for x in (mk, ms, qk, qe, mv)]
    assert torch.autograd.gradcheck(lambda *x: stcn.readout(*x, 3)[0], leaves)


def test_xmem_readout_where_every_match_is_far_away_is_not_nan():
    mk, _, qk, _, mv = memory(False)
    found, _ = stcn.readout(mk.float(), None, 1000 + qk.float(), None, mv.float(), 3)
    assert found.isfinite().all()  # exp(-400000) is 0, and 0/0 in the original


@pytest.mark.parametrize("best", [None, 1, 3, 50])
def test_metavos_label_transfer(best, monkeypatch):
    monkeypatch.setattr(metavos, "BLOCK", 60)
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (1, 9, 11)) * 2 - 1  # -1 is void; 1 and 3
    labels[0, 0, 0] = 8
    points = [[0] * 4, [0] * 6, [0] * 2]
    scores = torch.randn(1, 1, 12, 5 * 6)
    found, first = metavos.label_transfer(scores, labels, None, (4, 5, 6), points, None, best)
    values = 1 / (1 + np.exp(-scores[0, 0].double().numpy()))
    of_class = np.split(values, [4, 10])
    kept = [np.sort(v, 0)[-min(best or len(v), len(v)) :].mean(0) for v in of_class]
    share = np.stack(kept) / np.sum(kept, 0)
    large = F.interpolate(
        torch.from_numpy(share).view(1, 3, 5, 6), (9, 11), mode="bilinear", align_corners=False
    )[0].numpy()
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.array([1, 3, 8])[large.argmax(0)])
    np.testing.assert_allclose(first, large[0], rtol=1e-5)
    with pytest.raises(ValueError, match="crf_niter"):
        metavos.label_transfer(scores, labels, None, (4, 5, 6), points, crf_niter=5)
