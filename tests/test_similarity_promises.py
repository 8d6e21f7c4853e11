"""What every op of the similarity family promises beside its result."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels.similarity import ops
from tests.helpers import backends, needs_gpu
from tests.promises import (
    compiles_whole,
    flat,
    ignores_autocast,
    keeps_its_bits,
    peak_extra_bytes,
    replayed_from_a_cuda_graph,
)
from tests.similarity_cases import COMBINATIONS, METRICS, REDUCES, inputs, options

COMPILED = backends("cpu", "triton")


def calls(backend, device):
    """Every function as (call, arguments), the arguments with a second, narrower form."""
    query, reference, labels, _ = inputs(device=device)
    weights = testing.weights(2, 5, 14, device=device)
    chosen = options("cosine", "sigmoid", "mean")

    def scores(query, reference, labels):
        return pk.matching_scores(query, reference, labels, 3, backend=backend, **chosen)

    def transfer(query, reference, labels):
        return pk.label_transfer(
            query, reference, labels, 3, metric="sqeuclidean", reduce="min", backend=backend
        )

    def prior(query, reference, weights):
        return pk.prior_mask(query, reference, weights, backend=backend)

    def prior_softmax(query, reference, weights):
        return pk.prior_mask(query, reference, weights, reduce="softmax", backend=backend)

    def pairs(query, reference, labels):
        own = labels.flatten(1).repeat(1, 2)[:, : query[0, 0].numel()].view_as(query[:, 0])
        return pk.pair_similarity_loss(query, reference, own, labels, backend=backend)

    def sample(reference, labels):
        return pk.sample_reference(reference, labels, 3, 5, backend=backend)

    return {
        "matching_scores": (scores, (query, reference, labels)),
        "label_transfer": (transfer, (query, reference, labels)),
        "prior_mask": (prior, (query, reference, weights)),
        "prior_mask, softmax": (prior_softmax, (query, reference, weights)),
        "pair_similarity_loss": (pairs, (query, reference, labels)),
        "sample_reference": (sample, (reference, labels)),
    }


NAMES = tuple(calls(None, "cpu"))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_whole_with_dynamic_shapes(name, backend, device):
    call, arguments = calls(backend, device)[name]
    assert compiles_whole(call, arguments, [x[..., 1:].contiguous() for x in arguments])


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_opcheck(layout, backend, device):
    suffix = "_triton" if backend == "triton" else ""
    names = ("matching_scores", "matching_scores_backward", "prior_scores", "sample_ranks")
    scores, backward, prior, ranks = (
        getattr(torch.ops.pixelkernels, name + suffix).default for name in names
    )
    query, reference, labels, classes = inputs(device=device, layout=layout)
    query.requires_grad_(), reference.requires_grad_()
    order, offsets = ops.points_by_class(backend, labels.flatten(1).contiguous(), classes)
    one = torch.tensor(0.5, device=device)
    values = testing.weights(2, 70, device=device)
    for reduce in range(len(REDUCES)):
        given = values if REDUCES[reduce] == "softmax" else None
        codes = (reduce % len(METRICS), reduce % 3, reduce, 2)
        arguments = (query, reference, order, offsets, given, one, one, *codes)
        torch.library.opcheck(scores, arguments)
        found, _, edge, place = scores(
            *[x.detach() if hasattr(x, "detach") else x for x in arguments]
        )
        saved = (query.detach(), reference.detach(), order, offsets, given, one, one)
        grad = torch.ones_like(found)
        torch.library.opcheck(backward, (grad, *saved, found, edge, place, *codes))
    weights = testing.weights(2, 5, 14, device=device)
    torch.library.opcheck(prior, (query, reference, weights.requires_grad_(), 1e-7))
    if backend == "cpu":
        sort = torch.ops.pixelkernels.points_by_class.default
        for dtype in (torch.int64, torch.int16, torch.bool):
            torch.library.opcheck(sort, (labels.flatten(1).to(dtype), classes))
    torch.library.opcheck(ranks, (offsets.diff(), torch.tensor([5], device=device), 6))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_every_run_and_thread_count(name, backend, device):
    assert keeps_its_bits(*calls(backend, device)[name])


@pytest.mark.parametrize("combination", COMBINATIONS[::4], ids="-".join)
def test_gradients_are_the_same_on_every_thread_count(combination):
    case = inputs(shape=(2, 9, 40, 50), points=(30, 70))
    threads = torch.get_num_threads()

    def run():
        leaves = [x.detach().requires_grad_() for x in case[:2]]
        found = pk.matching_scores(*leaves, *case[2:], **options(*combination))
        return torch.autograd.grad(found[:, :3].square().sum(), leaves)

    first = run()
    try:
        torch.set_num_threads(1)
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.keeps_memory
def test_memory_does_not_grow_with_the_number_of_pairs():
    """102 480 queries and as many points: the matrix of their similarities would take 42 GB."""
    query, reference, labels, classes = inputs(shape=(1, 8, 240, 427), points=(240, 427))
    chosen = options("dot", "sigmoid", "mean", scale=0.1)
    result = 4 * query[0, 0].numel() * classes
    pk.matching_scores(query[..., :9], reference[..., :9], labels[..., :9], classes, **chosen)
    forward = peak_extra_bytes(
        lambda: pk.matching_scores(query, reference, labels, classes, **chosen), warm_up=False
    )
    # int64 labels and orders weigh as much as two channels, and sorting takes several
    assert forward <= query.nbytes + reference.nbytes + 3 * result + (8 << 20)


@pytest.mark.keeps_memory
@pytest.mark.parametrize(
    "combination", [("dot", "sigmoid", "mean"), ("sqeuclidean", "identity", "topk")], ids="-".join
)
def test_memory_of_the_gradient_does_not_either(combination):
    """A quarter of the pixels of each: the matrix would take 2.6 GB."""
    query, reference, labels, classes = inputs(shape=(1, 8, 120, 213), points=(120, 213))
    chosen = options(*combination, scale=0.1)

    def both():
        leaves = [x.detach().requires_grad_() for x in (query, reference)]
        found = pk.matching_scores(*leaves, labels, classes, **chosen)
        torch.autograd.grad(found[:, : classes - 1].sum(), leaves)

    assert peak_extra_bytes(both) <= 10 * query.nbytes + (32 << 20)


@pytest.mark.keeps_memory
def test_memory_of_a_sampled_reference():
    features = testing.features(2, 64, 256, 256)
    labels = testing.coherent_labels(2, 256, 256, 5)
    extra = peak_extra_bytes(lambda: pk.sample_reference(features, labels, 5, 100))
    assert extra <= 8 * labels.numel() + (4 << 20)


@pytest.mark.keeps_memory
def test_memory_of_a_prior_mask():
    query = testing.features(2, 512, 60, 60)
    support = testing.features(2, 512, 60, 60, seed=1)
    weights = testing.coherent_labels(2, 60, 60, 2).float()
    extra = peak_extra_bytes(lambda: pk.prior_mask(query, support, weights))
    assert extra <= support[0].nbytes + (4 << 20)


@pytest.mark.parametrize("backend", COMPILED)
def test_a_second_derivative_raises(backend, device):
    query, reference, labels, classes = inputs(device=device)
    query.requires_grad_()
    found = pk.matching_scores(query, reference, labels, classes, backend=backend, reduce="mean")
    loss = found[:, :2].square().sum()
    (gradient,) = torch.autograd.grad(loss, query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sample_reference"])
def test_vmap_falls_back_to_eager(name):
    call, arguments = calls(None, "cpu")[name]
    stacked = [torch.stack([x, x.flip(-1)]) for x in arguments]
    mapped = flat(torch.func.vmap(call)(*stacked))
    for i in range(2):
        expected = flat(calls("eager", "cpu")[name][0](*(x[i] for x in stacked)))
        for one, e in zip(mapped, expected, strict=True):
            torch.testing.assert_close(one[i], e)


@pytest.mark.parametrize("backend", backends("eager", "cpu", "triton"))
@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name, backend, device):
    assert ignores_autocast(*calls(backend, device)[name], device)


def test_gradients_keep_the_layout_of_the_features():
    query, reference, labels, classes = inputs(layout="channels_last")
    leaves = query.requires_grad_(), reference.requires_grad_()
    found = pk.matching_scores(*leaves, labels, classes, transform="sigmoid", reduce="mean")
    for leaf, gradient in zip(leaves, torch.autograd.grad(found[:, :2].sum(), leaves), strict=True):
        assert gradient.stride() == leaf.stride()


def test_modules_are_their_functions():
    query, reference, labels, classes = inputs()
    module = pk.LabelTransfer(metric="cosine", reduce="topk", k=4)
    expected = pk.label_transfer(
        query, reference, labels, classes, metric="cosine", reduce="topk", k=4
    )
    found = module(query, reference, labels, classes)
    assert isinstance(found, pk.TransferredLabels)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert "reduce='topk'" in repr(module)
    weights = testing.weights(2, 5, 14)
    prior = pk.PriorMask(normalize=None)
    assert torch.equal(
        prior(query, reference, weights),
        pk.prior_mask(query, reference, weights, normalize=None),
    )
    assert "normalize=None" in repr(prior)


@needs_gpu
@pytest.mark.parametrize("backend", backends("triton"))
@pytest.mark.parametrize("name", NAMES)
def test_captures_in_a_cuda_graph(name, backend, device):
    call, arguments = calls(backend, device)[name]
    expected = flat(call(*arguments))
    captured = replayed_from_a_cuda_graph(lambda: call(*arguments))
    if name != "sample_reference":  # which draws anew
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


@needs_gpu
def test_tf32_is_used_where_it_is_allowed():
    query, reference, labels, classes = inputs(device="cuda", shape=(1, 128, 40, 50))
    before = torch.get_float32_matmul_precision()
    found = {}
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            found[precision] = pk.matching_scores(
                query, reference, labels, classes, reduce="max", backend="triton"
            )[:, : classes - 1]
    finally:
        torch.set_float32_matmul_precision(before)
    oracle = pk.matching_scores(
        query.double(), reference.double(), labels, classes, reduce="max", backend="eager"
    )[:, : classes - 1]
    assert (found["highest"] - oracle).abs().max() <= 1e-5 * oracle.abs().max()
    assert (found["high"] - oracle).abs().max() <= 1e-2 * oracle.abs().max()


def test_shapes_past_two_to_the_31_on_meta():
    query = torch.empty(300, 64, 512, 512, device="meta")
    points = torch.empty(300, 64, 1, 7, device="meta")
    order = torch.empty(300, 7, dtype=torch.int64, device="meta")
    offsets = torch.empty(300, 41, dtype=torch.int64, device="meta")
    one = torch.empty((), device="meta")
    for suffix in ("", "_triton"):
        scores = getattr(torch.ops.pixelkernels, f"matching_scores{suffix}")
        found = scores(query, points, order, offsets, None, one, one, 0, 0, 2, 0)
        assert found[0].shape == (300, 40, 512, 512)


def test_the_operators_know_the_options():
    assert (ops.METRICS, ops.REDUCES) == (METRICS, REDUCES)
