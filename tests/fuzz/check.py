"""One call: it gives a right result, or the error of a wrong argument."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelkernels import testing
from pixelkernels.similarity.reference import kept_pairs
from pixelkernels.testing.arguments import Features
from pixelkernels.testing.op import Call, Op
from pixelkernels.testing.samples import OPS
from tests.fuzz.draw import WILD, how, made

PERTURBED = 2


def run(facts: dict[str, Any]) -> str:
    """How the call ended: "refused" or "compared". Anything else raises."""
    if facts["mistake"] is not None:
        return check_mistake(facts)
    call, way = made(facts), facts["way"]
    if way == "meta":
        check_meta(call)
    elif call.op.name in CHECKS:
        CHECKS[call.op.name](call)
    else:
        if way == "module":
            called = call.through(partial(call_module, call.op))
        elif way == "array" and "random" not in call.arguments:
            called = call.through(partial(call_array, call.op, facts["seed"]))
        else:
            called = call
        with testing.same_draws("eager"):
            compare(called, call, facts["values"] in WILD or saturates(call))
    return "compared"


def check_mistake(facts: dict[str, Any]) -> str:
    op = OPS[facts["op"]]
    mistakes = list(op.mistakes(replace(how(facts), nothing=False)))
    (_, error, message, _), call = mistakes[facts["mistake"] % len(mistakes)]
    with pytest.raises(error, match=message):
        call.function(**call.arguments)
    return "refused"


def check_meta(call: Call) -> None:
    found = call.mapped(lambda x: x.to("meta")).outputs()
    for name, expected in call.outputs("eager").items():
        assert (found[name].shape, found[name].dtype) == (expected.shape, expected.dtype), name


def call_module(op: Op, **arguments: Any) -> Any:
    required, options = op.split(arguments)
    assert op.module
    return op.module(**options)(*required.values())


def call_array(
    op: Op, seed: int, backend: None = None, generator: Any = None, **arguments: Any
) -> Any:
    """By arrays of the same values, in forms that tensors do not have."""

    def array(x: Tensor) -> Any:
        found = x.resolve_neg().numpy()
        match seed % 4:
            case 0:
                return np.flip(np.flip(found).copy())
            case 1:
                return found.astype(found.dtype.newbyteorder())
            case 2:  # at an odd address
                unaligned = np.zeros(found.nbytes + 1, np.uint8)[1:].view(found.dtype)
                unaligned.reshape(found.shape)[...] = found
                return unaligned.reshape(found.shape)
            case _:
                return found

    assert op.numpy
    arrays = {
        name: array(x.float() if x.dtype == torch.bfloat16 else x) if isinstance(x, Tensor) else x
        for name, x in arguments.items()
    }
    return op.numpy(**arrays)


def perturbed(call: Call, noise: float, seed: int) -> Call:
    """In float64, every value moved by a few roundings."""
    random = torch.Generator().manual_seed(seed)

    def moved(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        x = x.double()
        factors = noise * torch.randn(x.shape, generator=random, dtype=torch.float64)
        return x * (1 + factors)

    call = call.mapped(moved)
    features = {}
    for name, x in call.named(Features).items():
        if x.numel():
            # so that what is 0 in all points does not stay equal in all
            largest = x.nan_to_num(0, 0, 0).abs().max()
            random_x = noise * torch.randn(x.shape, generator=random, dtype=torch.float64)
            features[name] = x.where(x != 0, random_x * torch.where(largest > 0, largest, 1))
    return call.replaced(**features)


def saturates(call: Call) -> bool:
    """Whether points whose scores float64 tells apart may tie in float32, and one gets it all."""
    reduce, transform = (call.arguments.get(name) for name in ("reduce", "transform"))
    return reduce in ("max", "min", "topk") and transform in ("sigmoid", "exp")


def results(call: Call, backend: str | None, wild: bool) -> dict[str, Tensor]:
    # what is not a number, or changes by steps, has no gradient
    return call.outputs(backend) if wild else call.results(backend)


def compare(called: Call, call: Call, wild: bool) -> None:
    """With eager in float64, within what rounding of the arguments changes there."""
    found, plain = results(called, None, wild), results(call, "eager", wild)
    assert found.keys() == plain.keys()
    wide = all(x.dtype == torch.float64 for x in call.named(Features).values())
    wide = wide and bool(call.named(Features))
    noise = 4 * torch.finfo(torch.float64 if wide else torch.float32).eps
    oracle = results(call.double(), "eager", wild)
    around = [
        results(perturbed(call, noise, seed), "eager", wild) for seed in range(1, PERTURBED + 1)
    ]
    terms = call.op.terms(call) if not wild else {}
    for name, right in oracle.items():
        one, low, others = found[name], plain[name], [x[name] for x in around]
        assert (one.shape, one.dtype) == (low.shape, low.dtype), name
        if one.is_floating_point():
            check_floats(one, low, right, others, noise, terms.get(name, 0.0), name)
            same = (low.double() == right) & right.isinf()
            if not wild:
                assert torch.equal(one.double()[same], right[same].double()), f"{name}: infinities"
            continue
        # labels that depend on rounding are not compared
        sure = torch.stack([other == right for other in (low, *others)]).all(0)
        if "scores" in oracle:
            sure &= (found["scores"].isnan() == plain["scores"].isnan()).all(1)
            sure &= ~tied(oracle["scores"], right, 64 * noise)
        assert torch.equal(one[sure], right[sure].to(one.dtype)), name


def tied(scores: Tensor, label: Tensor, rounding: float) -> Tensor:
    """Whether another class scores like the chosen one, but for rounding."""
    best = scores.gather(1, label.clamp(min=0).unsqueeze(1))
    return ((scores - best).abs() <= rounding * (1 + best.abs())).sum(1) > 1


def check_floats(
    found: Tensor,
    plain: Tensor,
    oracle: Tensor,
    others: list[Tensor],
    noise: float,
    scale: float,
    name: str,
) -> None:
    """As near to the oracle as the oracle is to itself when its arguments move by a few roundings.

    Where plain torch is not finite there is nothing to compare with.
    """
    if found.numel() == 0:
        return
    right, info = oracle.double(), torch.finfo(found.dtype)
    sure = torch.stack([x.isfinite() for x in (right, plain, *others)]).all(0)
    sure &= right.abs() < info.max / 2
    if not sure.any():
        return
    present, expected = found.double()[sure], right[sure]
    assert present.isfinite().all(), f"{name}: not finite where plain torch is"
    carried = max((other.double()[sure] - expected).abs().max() for other in others)
    carried += (plain.double()[sure] - expected).abs().max()
    most = expected.abs().max().clamp(min=max(scale, 1e-7))
    # noise is four roundings; what is stored in 16 bits is rounded once more
    budget = 32 * carried + 16 * noise * most + 2 * info.eps * most + 4 * info.smallest_normal
    error = (present - expected).abs().max()
    assert error <= budget, f"{name}: error {error:.3e} over {budget:.3e}, largest {most:.3e}"


def check_distinct(pixels: Tensor, inside: Tensor) -> None:
    """As many pixels of those inside as fit, each once, then -1."""
    present = pixels[pixels >= 0]
    assert len(present) == min(len(pixels), int(inside.sum()))
    assert torch.equal(pixels[: len(present)], present)
    assert (pixels[len(present) :] == -1).all()
    assert len(present.unique()) == len(present)
    assert inside[present].all()


def check_sampled_pixels(call: Call) -> None:
    mask = call.arguments["mask"]
    drawn = call.outputs()["value"]
    assert drawn.shape == (len(mask), call.arguments["num_samples"])
    for pixels, inside in zip(drawn, (mask != 0).flatten(1), strict=True):
        check_distinct(pixels, inside)


def check_sampled_reference(call: Call) -> None:
    # each pixel's features become its index, so that points name their pixels
    features, labels = call.arguments["features"].double(), call.arguments["labels"]
    index = torch.arange(1, features.shape[2:].numel() + 1, dtype=torch.float64)
    features = index.view(1, 1, *features.shape[2:]).expand(len(features), 1, -1, -1)
    points, kinds = call.replaced(features=features.contiguous()).outputs().values()
    count = call.arguments["num_per_class"]
    for b, own in enumerate(labels.flatten(1).long()):
        for c in range(call.arguments["num_classes"]):
            part = slice(c * count, (c + 1) * count)
            present = kinds[b, part] == c
            assert torch.equal(present, points[b, 0, part] > 0)
            check_distinct(points[b, 0, part].long() - 1, own == c)
            assert (kinds[b, part][~present] == -1).all()


def check_sampled_anchors(call: Call) -> None:
    # each pixel's features become its index, so that anchors name their pixels
    labels = call.arguments["labels"].long()
    index = torch.arange(1, labels.numel() + 1, dtype=torch.float64).view(labels.shape)
    anchors = call.replaced(features=index[:, None]).outputs()
    drawn, kinds = anchors["features"][:, 0].long(), anchors["labels"]
    present = drawn[drawn > 0]
    assert torch.equal(drawn[: len(present)], present)
    assert len(present.unique()) == len(present)
    assert torch.equal(kinds[: len(present)], labels.flatten()[present - 1])
    ignored = call.arguments.get("ignore_index", -1)
    assert (kinds[: len(present)] != ignored).all()
    assert (kinds[len(present) :] == ignored).all()


def check_matches(call: Call) -> None:
    """The matches are in order, each the best of both of its pixels but for rounding; and those
    that are clearly the best are there."""
    found = call.outputs()
    batch, i, j = (found[name] for name in ("batch", "i", "j"))
    places = list(zip(batch.tolist(), i.tolist(), strict=True))
    assert places == sorted(set(places))
    assert len(set(zip(batch.tolist(), j.tolist(), strict=True))) == len(places)
    sides = [call.double().arguments[name].flatten(2) for name in "ab"]
    if not all(x.numel() and x.isfinite().all() and x.abs().max() < 1e15 for x in sides):
        return
    options = call.arguments
    masks = [options.get(f"mask_{name}") for name in "ab"]
    kept = [None if mask is None else (mask != 0).flatten(1) for mask in masks]
    dual = options.get("mode", "dual_softmax") == "dual_softmax"
    scale = 1 / options.get("temperature", 0.1) if dual else 1.0
    s, both = kept_pairs(*sides, *kept, scale)
    score = s
    if dual:
        s = torch.where(both, s, -torch.inf)
        score = s.log_softmax(2) + s.log_softmax(1)
    score = torch.where(both, score, -torch.inf)
    lengths = [float(x.square().sum(1).max().sqrt()) for x in sides]
    least = 64 * torch.finfo(torch.float32).eps * (1 + scale * lengths[0] * lengths[1])
    own = score[batch, i, j]
    threshold = options.get("threshold", 0.2)
    confidence = own.exp() if dual else own
    assert (own >= score.amax(2)[batch, i] - least).all()
    assert (own >= score.amax(1)[batch, j] - least).all()
    assert (confidence > threshold - least).all()
    assert ((found["confidence"] - confidence).abs() <= least).all()
    # where the second best of a row and of a column is far
    expected = call.double().outputs("eager")
    present = set(zip(batch.tolist(), i.tolist(), j.tolist(), strict=True))
    for key in zip(*(expected[name].tolist() for name in ("batch", "i", "j")), strict=True):
        image, row, column = key
        rivals = (score[image, row] > score[key] - least).sum()
        rivals += (score[image, :, column] > score[key] - least).sum()
        sure = score[key].exp() if dual else score[key]
        assert rivals > 2 or sure <= threshold + least or key in present, key


CHECKS = {
    "sample_pixels": check_sampled_pixels,
    "sample_reference": check_sampled_reference,
    "sample_anchors": check_sampled_anchors,
    "mutual_matches": check_matches,
}
