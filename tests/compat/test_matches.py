"""Drop-ins for matchers of image pairs: LoFTR, EfficientLoFTR and DeDoDe."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pixelkernels as pk
from pixelkernels import compat
from pixelkernels.compat import dedode, loftr
from tests.compat import original_matchers as originals


class CoarseMatching(nn.Module):
    """LoFTR's, stated anew: from the matrix of confidences, which is the only way it knows."""

    def __init__(self, thr=0.2, border_rm=2, temperature=0.1, **options):
        super().__init__()
        self.thr, self.border_rm, self.temperature = thr, border_rm, temperature
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, feat_c0, feat_c1, data, mask_c0=None, mask_c1=None):
        data["conf_matrix"] = originals.loftr_confidences(
            feat_c0, feat_c1, self.temperature, mask_c0, mask_c1,
            softmax=not getattr(self, "skip_softmax", False),
        )  # fmt: skip
        data.update(self.get_coarse_match(data["conf_matrix"], data))

    @torch.no_grad()
    def get_coarse_match(self, conf_matrix, data):
        return originals.loftr_matches(conf_matrix, data, self.thr, self.border_rm)


class Patched(CoarseMatching):
    forward = loftr.coarse_matching


def flattened(x):
    """[N, C, h, w] as LoFTR's [N, h w, C]."""
    return x.flatten(2).mT.contiguous()


def scene(frames, scaled=False, padded=False, dtype=torch.float64):
    """Features of two frames and of the same in another order, and LoFTR's data of them."""
    first, second = F.normalize(frames.first, dim=0), F.normalize(frames.second, dim=0)
    a, b = torch.stack([first, second]), torch.stack([second.roll(2, 2), first.roll(-1, 1)])
    # enough, and at one side more than at the other
    a, b = 3 * a[..., 1:], 3 * b
    sizes = a.shape[2:], b.shape[2:]
    data = {f"hw{n}_c": size for n, size in enumerate(sizes)}
    data |= {f"hw{n}_i": tuple(8 * side for side in size) for n, size in enumerate(sizes)}
    if scaled:
        data |= {f"scale{n}": torch.tensor([[1.5, 1.25], [1.0, 2.0]]) + n for n in range(2)}
    masks = (None, None)
    if padded:
        for n, (height, width) in enumerate(sizes):
            mask = torch.zeros(2, height, width, dtype=torch.bool)
            mask[0, : height - 1, : width - 2 * n] = True
            mask[1, :, : width - 3] = True
            data[f"mask{n}"] = mask
        masks = tuple(data[f"mask{n}"].flatten(1) for n in range(2))
    channels = a.shape[1]
    # similarities as large as of trained features, after the division by the channels
    sides = [flattened(x).to(dtype) * channels**0.5 for x in (a, b)]
    return *sides, data, *masks


def assert_same_data(found, expected, left_out=("conf_matrix",)):
    assert found.keys() == expected.keys() - set(left_out)
    for name, right in expected.items():
        if name in left_out or not isinstance(right, torch.Tensor):
            continue
        assert found[name].shape == right.shape, name
        if right.is_floating_point():
            torch.testing.assert_close(found[name].double(), right.double(), rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(found[name], right), name


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loftr_in_evaluation(frames, scaled, padded, dtype):
    expected, found = (scene(frames, scaled, padded) for _ in range(2))
    options = {"temperature": 0.05, "thr": 0.02}
    CoarseMatching(match_type="dual_softmax", **options).eval()(*expected)
    a, b, *others = found
    Patched(match_type="dual_softmax", **options).eval()(a.to(dtype), b.to(dtype), *others)
    assert len(expected[2]["b_ids"]) > 3
    assert_same_data(found[2], expected[2])
    assert found[2]["mconf"].dtype == dtype


@pytest.mark.parametrize("padded", [False, True])
def test_efficient_loftr_without_the_softmax(frames, padded):
    expected, found = (scene(frames, padded=padded) for _ in range(2))
    options = {"skip_softmax": True, "fp16matmul": True, "thr": 20.0, "border_rm": 1}
    CoarseMatching(**options).eval()(*expected)
    Patched(**options).eval()(*found)
    assert len(expected[2]["b_ids"]) > 3
    assert_same_data(found[2], expected[2])


@pytest.mark.parametrize("skip_softmax", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_loftr_in_training_has_the_matrix_and_its_gradient(frames, padded, skip_softmax):
    results = []
    for kind in (CoarseMatching, Patched):
        a, b, data, *masks = scene(frames, padded=padded)
        a.requires_grad_(), b.requires_grad_()
        kind(skip_softmax=skip_softmax, fp16matmul=False)(a, b, data, *masks)
        weights = torch.linspace(-1, 1, data["conf_matrix"].numel(), dtype=a.dtype)
        matrix = data["conf_matrix"].where(data["conf_matrix"] > -1e8, 0)
        gradients = torch.autograd.grad((matrix.flatten() * weights).sum(), (a, b))
        results.append((data, *gradients))
    (expected, *right), (found, *gradients) = results
    assert_same_data(found, expected, left_out=())
    for one, other in zip(gradients, right, strict=True):
        torch.testing.assert_close(one, other)


def test_loftr_has_the_matrix_where_there_is_a_supervision(frames):
    expected, found = (scene(frames) for _ in range(2))
    for case in (expected, found):
        case[2]["conf_matrix_gt"] = torch.zeros(2, 3, 3)
    CoarseMatching().eval()(*expected)
    Patched().eval()(*found)
    assert_same_data(found[2], expected[2], left_out=())


def test_loftr_with_one_of_the_two_kinds_of_masks(frames):
    for kept in ("mask_c0", "mask0"):
        results = []
        for kind in (CoarseMatching, Patched):
            a, b, data, *masks = scene(frames, padded=True)
            if kept == "mask_c0":
                del data["mask0"], data["mask1"]
            else:
                masks = []
            kind().eval()(a, b, data, *masks)
            results.append(data)
        assert_same_data(results[1], results[0], left_out=())


def test_loftr_without_matches(frames):
    for border, threshold in ((100, 0.0), (0, 1.0)):
        found = scene(frames)
        Patched(border_rm=border, thr=threshold).eval()(*found)
        data = found[2]
        names = ("b_ids", "i_ids", "j_ids", "m_bids", "mconf", "gt_mask")
        assert all(data[name].shape == (0,) for name in names)
        assert data["mkpts0_c"].shape == data["mkpts1_c"].shape == (0, 2)


def test_loftr_refuses_optimal_transport(frames):
    with pytest.raises(ValueError, match=r"^match_type: expected 'dual_softmax', got 'sinkhorn'"):
        Patched(match_type="sinkhorn").eval()(*scene(frames))


def test_sizes_may_be_tensors_as_in_kornia(frames):
    expected, found = (scene(frames) for _ in range(2))
    for name in ("hw0_c", "hw1_c", "hw0_i", "hw1_i"):
        found[2][name] = torch.tensor(found[2][name])
    Patched(thr=0.02).eval()(*expected)
    Patched(thr=0.02).eval()(*found)
    for name in ("mkpts0_c", "mkpts1_c"):
        assert torch.equal(found[2][name], expected[2][name])


LOFTR = """
from tests.compat.test_matches import CoarseMatching as Base
class CoarseMatching(Base):
    def forward(self, feat_c0, feat_c1, data, mask_c0=None, mask_c1=None):
        super().forward(feat_c0, feat_c1, data, mask_c0, mask_c1)
"""


def test_patched_loftr_leaves_out_the_matrix(frames, tmp_path, monkeypatch):
    folder = tmp_path / "their_loftr" / "utils"
    folder.mkdir(parents=True)
    (folder / "coarse_matching.py").write_text(LOFTR)
    monkeypatch.syspath_prepend(tmp_path)
    from their_loftr.utils.coarse_matching import CoarseMatching as Theirs

    matching = Theirs(thr=0.02).eval()
    before, during, after = (scene(frames) for _ in range(3))
    matching(*before)
    with compat.patch("loftr", package="their_loftr"):
        matching(*during)
    matching(*after)
    assert_same_data(during[2], before[2])
    assert_same_data(after[2], before[2], left_out=())


# ---- DeDoDe ----


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("normalize", "inv_temp", "threshold"), [(True, 20, 0.1), (False, 1, 0.0)])
def test_dedode_matches(frames, normalize, inv_temp, threshold, dtype):
    a, b, *_ = scene(frames)
    points = [torch.rand(*x.shape[:2], 2, dtype=torch.float64) for x in (a, b)]
    expected = originals.dedode(
        points[0], a, points[1], b, normalize=normalize, inv_temp=inv_temp, threshold=threshold
    )
    options = {"normalize": normalize, "inv_temp": inv_temp, "threshold": threshold}
    found = dedode.match(None, points[0], a.to(dtype), points[1], b.to(dtype), **options)
    assert len(expected[2]) > 3
    for one, right in zip(found, expected, strict=True):
        assert torch.equal(one, right)
    lists = [list(x) for x in (points[0], a.to(dtype), points[1], b.to(dtype))]
    for one, right in zip(dedode.match(None, *lists, **options), expected, strict=True):
        assert torch.equal(one, right)


def test_dedode_of_equal_maxima_returns_the_first():
    a = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    points = torch.arange(6.0).view(1, 3, 2)
    found, _, batch = dedode.match(None, points, a, points, a, inv_temp=9)
    assert found.tolist() == [[0, 1], [4, 5]]
    assert batch.tolist() == [0, 0]
    assert len(originals.dedode(points, a, points, a, False, 9, 0.0)[2]) == 5
    assert len(pk.mutual_matches(a.mT, a.mT, temperature=1 / 9, threshold=0.0).i) == 2
