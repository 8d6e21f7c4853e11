"""Drop-ins that match frames: FEELVOS and MANet, CFBI, DINO, STCN and XMem, MetaVOS, DOCS."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelkernels import testing
from pixelkernels.compat import cfbi, dino, docs_correlation, feelvos, metavos, stcn
from tests.compat import originals
from tests.compat.originals import TOLERANCES, assert_close, squashed


def last(x, dtype=None):
    """[D, H, W] as the projects' [H, W, D]."""
    return x.movedim(0, -1).to(dtype)


# ---- FEELVOS and MANet ----


@pytest.mark.parametrize("k", [1, 5])
def test_feelvos_nearest_neighbours(frames, k):
    labels = 2 * frames.labels  # odd labels are absent
    labels[0, :3] = 2 * frames.count  # an object of fewer than k pixels
    ids = list(range(2 * frames.count + 1))
    expected = originals.feelvos(frames.first, frames.second, labels, ids, k)
    some = torch.tensor([ids[-1], 0])
    for dtype in TOLERANCES:
        given = last(frames.first, dtype), last(frames.second, dtype), labels[..., None], k
        found, found_ids = feelvos.nearest_neighbor_features_per_object(*given)
        assert found_ids.tolist() == ids
        assert found.shape == (1, *labels.shape, len(ids), 1)
        for result, wanted in zip(found[0, ..., 0].movedim(-1, 0), expected, strict=True):
            assert_close(result, wanted)
        few, _ = feelvos.nearest_neighbor_features_per_object(*given, gt_ids=some)
        torch.testing.assert_close(few, found[..., some, :])


def test_feelvos_distance_to_the_frame_itself_is_not_negative(frames):
    own = last(frames.first)
    found, _ = feelvos.nearest_neighbor_features_per_object(own, own, frames.labels[..., None], 1)
    assert found.min() >= 0


def nearest(reference, labels, query, k=1, ids=None):
    """Scalar embeddings -> distances, one row per object, and the objects' labels."""
    reference, query = (torch.tensor(x)[None, :, None].double() for x in (reference, query))
    found, ids = feelvos.nearest_neighbor_features_per_object(
        reference, query, torch.tensor(labels)[None, :, None], k, ids
    )
    return found[0, 0, :, :, 0].T.tolist(), ids.tolist()


def test_feelvos_absent_object_is_1e20_away_and_label_minus_one_is_no_object():
    found = nearest([0.0, 5.0, 1.0], [0, 3, -1], [1.0, 2.0])
    assert found == ([[1, 4], [1e20] * 2, [1e20] * 2, [16, 9]], [0, 1, 2, 3])


def test_feelvos_missing_neighbours_are_padded_by_the_farthest():
    found = nearest([0.0, 5.0, 7.0], [0, 1, 1], [4.0], k=4)[0]
    assert found == [[16], [(1 + 9 + 9 + 9) / 4]]


@pytest.mark.parametrize("largest", [4, torch.tensor(4)])
def test_manet_passes_the_largest_label_as_the_ids(largest):
    found, ids = nearest([0.0, 5.0, 1.0], [0, 2, 1], [1.0], ids=largest)
    assert ids == [0, 1, 2, 3, 4]
    assert found[3:] == [[1e20], [1e20]]


@pytest.mark.parametrize("radius", [2, 3])
def test_manet_local_matching(frames, radius):
    ids = torch.tensor([*range(frames.count), 97])  # the last one is absent
    expected = originals.manet_local(frames.first, frames.second, frames.labels, ids, radius)
    for dtype in TOLERANCES:
        found = feelvos.local_previous_frame_nearest_neighbor_features_per_object(
            last(frames.first, dtype), last(frames.second, dtype), frames.labels[..., None],
            ids, radius,
        )  # fmt: skip
        assert found.shape == (1, *frames.labels.shape, len(ids), 1)
        assert_close(found[0, ..., 0], last(expected))
        assert (found[..., -1, 0] == 1).all()


# ---- CFBI ----


def soft_labels(frames):
    """[objects, h, w]: one-hot but for a pixel of two objects and some that are not used."""
    labels = F.one_hot(frames.labels, frames.count).movedim(-1, 0).double()
    for column, values in enumerate(((0.5, 0.5), (0, 0), (0.9, 0), (0.95, 0.05))):
        labels[:, 0, column] = 0
        labels[:2, 0, column] = torch.tensor(values).double()
    return labels


@pytest.mark.parametrize(("rate", "least"), [(1, 0), (2, 0), (2, 20)])
def test_cfbi_global_matching(frames, rate, least):
    labels = soft_labels(frames)
    bias = torch.linspace(0.1, -0.3, frames.count).double()
    expected = originals.cfbi_global(frames.first, frames.second, labels, bias, rate, least)
    size = (frames.labels.shape[0] + 3, 2 * frames.labels.shape[1])
    wanted = originals.resized(expected[None], size)[0]
    for dtype in TOLERANCES:
        soft = last(labels, dtype)
        given = last(frames.first, dtype), last(frames.second, dtype), soft
        options = {"dis_bias": bias.to(dtype), "atrous_rate": rate, "atrous_obj_pixel_num": least}
        found = cfbi.global_matching(*given, **options)
        assert found.shape == (1, *frames.labels.shape, frames.count, 1)
        assert_close(found[0, ..., 0], last(expected))
        assert torch.equal(soft, last(labels, dtype))  # the original subsamples it in place
        twice = cfbi.global_matching_for_eval([given[0]] * 2, given[1], [soft] * 2, **options)
        torch.testing.assert_close(twice, found)
        resized = cfbi.global_matching(*given, ori_size=size, **options)
        assert_close(resized[0, ..., 0], last(wanted))


def test_cfbi_pixel_is_used_above_a_sum_of_0_9_and_belongs_to_an_object_from_0_1():
    reference = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]], dtype=torch.float64)
    query = torch.zeros(1, 1, 1, dtype=torch.float64)
    labels = torch.tensor([[[0.9, 0.0], [0.95, 0.05], [0.1, 0.85], [0.0, 1.0]]]).double()
    found = cfbi.global_matching(reference, query, labels)[0, 0, 0, :, 0]
    torch.testing.assert_close(found, squashed(torch.tensor([1.0, 4.0], dtype=torch.float64)))


def test_cfbi_absent_object_is_one_and_no_reference_gives_ones_of_the_query_size():
    reference, query = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    labels = torch.zeros(4, 5, 2, dtype=torch.float64)
    labels[..., 0] = 1
    found = cfbi.global_matching(reference, query, labels)
    assert (found[..., 1, 0] == 1).all()
    assert (found[..., 0, 0] < 1).all()
    nothing = cfbi.global_matching(reference, query, labels * 0.9, ori_size=(8, 9))
    assert torch.equal(nothing, torch.ones(1, 4, 5, 2, 1))


@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("downsample", [False, True])
def test_cfbi_local_matching(frames, rate, downsample):
    labels = F.one_hot(frames.labels, frames.count).movedim(-1, 0).double()
    labels[-1] *= 0.9  # not above 0.9
    bias = torch.linspace(0.2, -0.1, frames.count).double()
    given, radii = (frames.first, frames.second, labels), [3, 4, 5]
    expected = originals.cfbi_local(*given, bias, radii, rate, downsample)
    for dtype in TOLERANCES:
        found = cfbi.local_matching(
            *(last(x, dtype) for x in given), bias.to(dtype), radii,
            atrous_rate=rate, allow_downsample=downsample,
        )  # fmt: skip
        assert found.shape == (1, *frames.labels.shape, frames.count, 3)
        assert_close(found[0], expected.permute(2, 3, 0, 1))
        torch.testing.assert_close(found[..., -1, :], torch.ones_like(found[..., -1, :]))


def test_cfbi_gradients():
    previous, query = torch.randn(2, 6, 7, 3, dtype=torch.float64, requires_grad=True)
    labels = F.one_hot(testing.coherent_labels(1, 6, 7, 2)[0], 2).double()

    def local(p, q):
        return cfbi.local_matching(p, q, labels, multi_local_distance=[2], allow_downsample=False)

    def everywhere(p, q):
        return cfbi.global_matching(p, q, labels)

    for call in (local, everywhere):
        assert torch.autograd.gradcheck(call, (previous, query))


# ---- DINO ----


@pytest.mark.parametrize("radius", [0, 2, 5, 12])
def test_dino_propagation(frames, radius):
    sources = torch.stack([frames.first, frames.second.flip(2)])
    segments = torch.stack([frames.labels, frames.labels.flip(1)])
    segments = F.one_hot(segments).movedim(-1, 1).double()
    expected = originals.dino(frames.second, sources, segments, radius, 5)
    assert_close(dino.propagate(frames.second, sources, segments, radius, 5), expected)


class ViT:
    """The interface that label propagation uses: 4 x 4 patches after a class token."""

    patch_embed = SimpleNamespace(patch_size=4)

    def get_intermediate_layers(self, images, n):
        patches = F.unfold(images, 4, stride=4).transpose(1, 2)
        return [torch.cat([patches.new_full((1, 1, patches.shape[2]), 100), patches], 1)]


def test_dino_label_propagation_uses_the_patches_of_the_network():
    images = torch.randn(3, 3, 4 * 10, 4 * 19, dtype=torch.float64)
    model, args = ViT(), SimpleNamespace(size_mask_neighborhood=2, topk=5)
    *earlier, own = [model.get_intermediate_layers(x[None], 1)[0][0, 1:].T for x in images]
    labels = torch.cat([testing.coherent_labels(1, 10, 19, 3, seed=i) for i in range(2)])
    segments = F.one_hot(labels, 3).movedim(-1, 1).double()
    found, features, mask = dino.label_propagation(
        args, model, images[2], earlier, segments.split(1)
    )
    assert torch.equal(features, own)
    assert mask is None
    sources = torch.stack(earlier).unflatten(2, (10, 19))
    expected = dino.propagate(own.unflatten(1, (10, 19)), sources, segments, 2, 5)
    assert torch.equal(found, expected[None])


def test_dino_keeps_all_that_tie_with_the_last_of_the_best():
    # one best match and three that tie for the second rank
    target = torch.tensor([1.0, 0.0]).view(2, 1, 1).double()
    sources = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]]).double()
    segments = torch.eye(5, dtype=torch.float64)
    found = dino.propagate(
        target, sources.view(5, 2, 1, 1), segments.view(5, 5, 1, 1), radius=1, topk=2
    ).flatten()
    weights = torch.tensor([10.0, 6.0, 6.0, 6.0]).double().exp()
    torch.testing.assert_close(found[:4], weights / weights.sum())
    assert found[4] == 0


def test_dino_window_may_have_fewer_pixels_than_topk():
    target, source = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    segments = torch.rand(1, 2, 2, 2, dtype=torch.float64)
    found = dino.propagate(target, source[None], segments, radius=1, topk=9)
    assert_close(found, originals.dino(target, source[None], segments, 1, 4))


# ---- STCN, XMem ----


def memory(frames, shrunk, selected):
    keys, queries = (x.flatten(1)[None] for x in (frames.first, frames.second))
    values = torch.stack([keys[0, :2], keys[0, 2:4]])
    shrinkage = 1 + keys[:, :1].sigmoid() if shrunk else None
    return keys, shrinkage, queries, queries.sigmoid() if selected else None, values


@pytest.mark.parametrize("shrunk", [False, True])
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("top_k", [30, None])
def test_xmem_readout(frames, shrunk, selected, top_k, monkeypatch):
    monkeypatch.setattr(stcn, "BLOCK", 5 * frames.labels.numel())  # five queries at a time
    given = memory(frames, shrunk, selected)
    expected = originals.xmem_readout(*given, top_k)
    for found, wanted in zip(stcn.readout(*given, top_k), expected, strict=True):
        assert_close(found, wanted)


def test_xmem_readout_without_selection_leaves_out_the_square_of_the_query():
    mk, ms, qk, mv = (torch.tensor([[x]]) for x in ([1.0, 1.5], [1.0, 9.0], [2.0], [0.0, 1.0]))
    values, _ = stcn.readout(mk, ms, qk, None, mv, None)
    # similarities (-1 + 4) 1 and (-2.25 + 6) 9
    assert values.item() == pytest.approx(1 / (1 + np.exp(3 - 33.75)))


@pytest.mark.parametrize("objects", [None, 3])
def test_xmem_readout_of_a_batch_is_that_of_its_images(objects):
    mk, ms, mv = torch.randn(2, 6, 4, 10), 1 + torch.rand(2, 1, 4, 10), torch.randn(2, 5, 4, 10)
    if objects:
        mv = torch.randn(2, objects, 5, 4, 10)
    qk, qe = torch.randn(2, 6, 5, 5), torch.rand(2, 6, 5, 5)
    values, usage = stcn.readout(mk, ms, qk, qe, mv, 4)
    assert (values.shape, usage.shape) == ((*mv.shape[:-2], 25), (2, 40))
    for b in range(2):
        one = slice(b, b + 1)
        alone = stcn.readout(mk[one], ms[one], qk[one], qe[one], mv[one], 4)
        torch.testing.assert_close((values[one], usage[one]), alone)
    flat = (x[:1].flatten(2).double() for x in (mk, ms, qk, qe))
    expected, _ = originals.xmem_readout(*flat, mv[0].flatten(-2).double(), 4)
    assert_close(values[0], expected)
    with pytest.raises(ValueError, match="one batch"):
        stcn.readout(mk, ms, qk[:1], qe, mv, 4)


def test_xmem_readout_flattens_frames_and_has_gradients():
    mk, ms = torch.randn(1, 6, 40).double(), 1 + torch.rand(1, 1, 40).double()
    qk, qe = torch.randn(1, 6, 25).double(), torch.rand(1, 6, 25).double()
    mv = torch.randn(3, 5, 40).double()
    square = stcn.readout(
        mk.view(1, 6, 2, 4, 5), ms.view(1, 1, 2, 4, 5), qk.view(1, 6, 5, 5), qe.view(1, 6, 5, 5),
        mv.view(3, 5, 2, 4, 5), 4,
    )  # fmt: skip
    for ours, flat in zip(square, stcn.readout(mk, ms, qk, qe, mv, 4), strict=True):
        assert torch.equal(ours, flat)
    leaves = [x[..., :6].clone().requires_grad_() for x in (mk, ms, qk, qe, mv)]
    assert torch.autograd.gradcheck(lambda *x: stcn.readout(*x, 3)[0], leaves)


def test_xmem_readout_of_distant_matches_is_finite():
    mk, qk, mv = torch.randn(1, 6, 40), torch.randn(1, 6, 25), torch.randn(3, 5, 40)
    found, _ = stcn.readout(mk, None, 1000 + qk, None, mv, 3)
    assert found.isfinite().all()  # exp(-400000) is 0, and 0/0 in the original


# ---- MetaVOS ----


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("best", [None, 1, 3, 50])
def test_metavos_label_transfer(frames, best, dtype, monkeypatch):
    monkeypatch.setattr(metavos, "BLOCK", 2 * frames.labels.numel())  # two rows of scores at a time
    height, width = frames.labels.shape
    pixels = [F.normalize(x.flatten(1), dim=0) for x in (frames.first, frames.second)]
    flat = frames.labels.flatten()
    points = [(flat == i).nonzero()[::5, 0] for i in range(frames.count)]
    scores = (pixels[0][:, torch.cat(points)].T @ pixels[1]).to(dtype)
    labels = (2 * frames.labels + 1).repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    labels[0, 0, 0] = -1  # void
    expected = originals.metavos(
        scores, [len(p) for p in points], (height, width), labels.shape[1:], best
    )
    found, first = metavos.label_transfer(
        *(scores[None, None], labels, None, (len(pixels[0]), height, width)),
        [p.tolist() for p in points], None, best,
    )  # fmt: skip
    assert found.dtype == np.int64
    np.testing.assert_allclose(first, expected[0], rtol=TOLERANCES[dtype])
    # the label has the largest share, or one that rounding cannot tell from it
    index = torch.from_numpy(found)[None] // 2
    chosen, largest = expected.gather(0, index)[0], expected.amax(0)
    assert (found % 2 == 1).all()
    assert (chosen >= largest * (1 - TOLERANCES[dtype])).all()


def transfer(labels, points, scores=None, best=None):
    """MetaVOS at the size of the scores: 3 points, [2, 2] pixels."""
    scores = torch.arange(12.0).view(1, 1, 3, 4) if scores is None else scores
    return metavos.label_transfer(scores, labels, None, (5, 2, 2), points, None, best)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.float32])
def test_metavos_labels_of_any_dtype(dtype):
    labels = torch.tensor([[[3, 3], [7, 3]]])
    expected = transfer(labels, [[0, 1], [2]])
    found = transfer(labels.to(dtype), [[0, 1], [2]])
    assert found[0].dtype == np.int64
    assert set(expected[0].flatten()) <= {3, 7}
    for ours, wanted in zip(found, expected, strict=True):
        assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("best", [None, 1, 2])
def test_metavos_class_without_points_gets_no_pixel(best):
    labels = torch.tensor([[[0, 1], [2, 2]]])
    found, first = transfer(labels, [[0, 1], [], [2]], best=best)
    expected, share = transfer(torch.tensor([[[0, 0], [2, 2]]]), [[0, 1], [2]], best=best)
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(first, share)


def test_metavos_has_no_crf():
    with pytest.raises(ValueError, match="crf_niter"):
        metavos.label_transfer(None, None, None, (4, 5, 6), [], crf_niter=5)


# ---- DOCS ----


@pytest.mark.parametrize(("radius", "step"), [(4, 1), (3, 1), (4, 2), (3, 2)])
def test_docs_correlation(frames, radius, step):
    x, y = frames.first[None, :, ::2, ::2], frames.second[None, :, ::2, ::2]
    windows = originals.offsets(y, radius, 0, step)
    expected = torch.stack([(x * far).mean(1) for far in windows], 1)
    layer = docs_correlation.Correlation(radius, 1, radius, 1, step)
    assert layer.out_channels == expected.shape[1]
    for dtype in TOLERANCES:
        assert_close(layer(x.to(dtype), y.to(dtype)), expected)


@pytest.mark.parametrize(
    "options", [(4, 3, 4, 1, 1), (0, 1, 4, 1, 1), (4, 1, 4, 2, 1), (4, 1, 4, 1, 1, 2)]
)
def test_docs_correlation_refuses_options_that_docs_does_not_use(options):
    with pytest.raises(ValueError, match="pad_size"):
        docs_correlation.Correlation(*options)
