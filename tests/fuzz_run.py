"""One call: what it gives has to be right, or an error that names what is wrong."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels import testing
from tests import fuzz_draws
from tests.fuzz_values import AS_IS, FLOATS, WILD, How, build

MODULES = {
    "cas_loss": pk.CASLoss,
    "metric_expression_loss": pk.MetricExpressionLoss,
    "discriminative_loss": pk.DiscriminativeLoss,
    "is_triplet_loss": pk.ISTripletLoss,
    "click_maps": pk.ClickMaps,
    "label_transfer": pk.LabelTransfer,
    "prior_mask": pk.PriorMask,
}
# what torch, C++ and NumPy say of more than there is memory for
NO_MEMORY = re.compile("allocate|bad_alloc|overflow|memory|too big|maximum")
# these need values or a generator of the tensors' device, or have tensors of their own
NOT_ON_META = ("compact_labels", "siamese")
PERTURBED = 2
WRONG = (TypeError, ValueError, pk.BackendUnavailable)


def run(call: dict[str, Any]) -> str:
    """How the call ended: "refused", "compared" or "returned". Anything else raises."""
    meta = call["valid"] == "meta"
    try:
        found = perform(call, How(device="meta") if meta else AS_IS)
    except (*WRONG, RuntimeError, MemoryError) as error:
        check_error(call, error)
        return "refused"
    if call.get("enormous"):
        return "returned"
    if meta:
        # there are no gradients on meta
        for one, other in zip(found, perform(call, AS_IS), strict=False):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
        return "returned"
    if any(tensor.is_meta for tensor in found):
        return "returned"
    if call["name"] in fuzz_draws.CHECKS:
        fuzz_draws.CHECKS[call["name"]](found, *arguments(call))
        return "compared"
    return "compared" if compare(call, found) else "returned"


def check_error(call: dict[str, Any], error: Exception) -> None:
    if not isinstance(error, WRONG):
        text = f"{type(error).__name__}: {error}"
        assert call.get("enormous"), text
        assert NO_MEMORY.search(text), text
        return
    due = not call["valid"]
    if call["valid"] == "meta":
        unavailable = isinstance(error, pk.BackendUnavailable)
        due = unavailable or call["name"] in NOT_ON_META or "generator" in str(error)
    assert due, f"a valid call was refused: {error!r}"
    check_message(call, error)


def check_message(call: dict[str, Any], error: Exception) -> None:
    """It begins with an argument's name, unless Python itself raised it or a backend is off."""
    if isinstance(error, pk.BackendUnavailable) or "unexpected keyword argument" in str(error):
        return
    if "required positional argument" in str(error) or "missing" in str(error):
        return
    names = {
        "generator",
        "backend",
        "use_backend",
        "explain",
        *inspect.signature(function(call)).parameters,
    }
    subject = re.match(r"(\w+): ", str(error))
    assert subject, f"the message names no argument: {error!r}"
    assert subject[1] in names, f"the message names no argument of the call: {error!r}"


def function(call: dict[str, Any]) -> Any:
    name = call["name"]
    if name == "siamese":
        return pk.pair_similarity_loss
    return getattr(pkn, name[6:]) if name.startswith("numpy.") else getattr(pk, name)


def arguments(call: dict[str, Any], how: How = AS_IS) -> tuple[list[Any], dict[str, Any]]:
    return [build(one, how) for one in call["args"]], {
        name: build(one, how) for name, one in call["kwargs"].items()
    }


def perform(call: dict[str, Any], how: How, backend: str | None = None) -> list[Tensor]:
    """The results as tensors, those that an argument holds after the call, and the gradients."""
    args, kwargs = arguments(call, how)
    if backend is not None:
        kwargs["backend"] = backend
    name = call["name"]
    if name.startswith("numpy.") and backend is not None:
        args = [on_torch(one) for one in args]
        kwargs = {key: on_torch(one) for key, one in kwargs.items()}
        result = getattr(pk, name[6:])(*args, **kwargs)
    elif name == "siamese":
        with pk.use_backend(kwargs.pop("backend", None)):
            module = pk.SiameseSimilarityLoss(**kwargs)
            module = module.double() if how.wide else module
            result = (module(*args), *module.buffers())
            args = [*args, *module.parameters()]
    else:
        with testing.same_draws() if name == "is_triplet_loss" else torch.enable_grad():
            if call["module"] and name in MODULES:
                result = MODULES[name](**kwargs)(*args)
            else:
                result = function(call)(*args, **kwargs)
    outputs = [torch.as_tensor(one) for one in listed(result)]
    outputs += [
        kwargs[key] for key in ("running_mean", "running_var") if kwargs.get(key) is not None
    ]
    wild = any(
        one.get("values") in (*WILD, "far") for one in described([call["args"], call["kwargs"]])
    )
    # what is not a number has no gradient
    return outputs if wild else outputs + gradients(outputs, [*args, *kwargs.values()])


def listed(result: Any) -> list[Any]:
    if isinstance(result, dict):  # explain's reasons
        return [len(reasons) for reasons in result.values()]
    return list(result) if isinstance(result, tuple) else [result]


def on_torch(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))))


def gradients(outputs: list[Tensor], inputs: list[Any]) -> list[Tensor]:
    """Of a sum that gives every element of every output a weight of its own."""
    outputs = [one for one in outputs if one.requires_grad and one.device.type != "meta"]
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad and x.is_leaf]
    if not outputs or not leaves:
        return []
    random = torch.Generator().manual_seed(len(outputs))
    weights = [torch.randn(x.shape, generator=random, dtype=torch.float64) for x in outputs]
    found = torch.autograd.grad(
        outputs,
        leaves,
        [weight.to(x.dtype) for weight, x in zip(weights, outputs, strict=True)],
        allow_unused=True,
    )
    return [
        torch.zeros_like(x) if one is None else one for x, one in zip(leaves, found, strict=True)
    ]


def compare(call: dict[str, Any], found: list[Tensor]) -> bool:
    """With the eager backend in float64, and in the dtype of the call for shapes, dtypes and what
    overflows there."""
    if call["kwargs"].get("backend") == "eager":
        return False
    plain = perform(call, AS_IS, "eager")
    assert [(x.shape, x.dtype) for x in found] == [(x.shape, x.dtype) for x in plain]
    facts = described(call)
    wild = any(one.get("values") in (*WILD, "far") for one in facts)
    # maps of clicks are 1 less an exponential; a square of what is 0 but for rounding is no number
    scale = 1.0 if call["name"].endswith("click_maps") else 1e-7 * largest(call) ** 2
    if call["name"] in ("pair_similarity_loss", "siamese") and not wild:
        scale = max(scale, logits(call))
    wide = bool(facts) and all(one["dtype"] == "float64" for one in facts)
    noise = 4 * torch.finfo(torch.float64 if wide else torch.float32).eps
    oracle = perform(call, How(wide=True), "eager")
    # how a sum that cancels is rounded in float64 shows when it is taken in float32
    single = perform(call, How(single=True), "eager") if wide else plain
    worth = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps if wide else 1.0
    around = [
        perform(call, How(wide=True, noise=noise, seed=seed), "eager")
        for seed in range(1, PERTURBED + 1)
    ]
    for i, (one, low, right) in enumerate(zip(found, plain, oracle, strict=True)):
        others = [perturbed[i] for perturbed in around]
        if one.is_floating_point():
            rounding = worth * (single[i].double() - right.double()).abs()
            check_floats(one, low, right, others, rounding, noise, scale, f"result {i}")
            if not wild:
                check_infinities(one, low, right, f"result {i}")
        else:
            # what depends on the last digits of something is not compared
            sure = torch.stack([other == right for other in (low, *others)]).all(0)
            if call["name"].endswith("label_transfer"):
                # a sum of infinities is a number or not by the order of its terms
                sure &= (found[1].isnan() == plain[1].isnan()).all(1)
                sure &= ~tied(oracle[1], right, 64 * noise)
            assert torch.equal(one[sure], right[sure].to(one.dtype)), f"result {i}"
    return True


def tied(scores: Tensor, label: Tensor, rounding: float) -> Tensor:
    """Where another class scores like the one of the label, but for rounding."""
    best = scores.gather(1, label.clamp(min=0).unsqueeze(1))
    return ((scores - best).abs() <= rounding * (1 + best.abs())).sum(1) > 1


def logits(call: dict[str, Any]) -> float:
    """How large those of a pair loss are before their mean is taken off, in float32."""
    (x, y, *_), kwargs = arguments(call, How(wide=True))
    products = (x.detach().flatten(2).mT @ y.detach().flatten(2)).flatten()
    spread = products.var(correction=0) if products.numel() else torch.zeros(())
    weight = kwargs.get("weight", torch.ones(1)).detach().abs().item()
    slope = weight / (spread + kwargs.get("eps", 1e-5)).sqrt()
    return (slope * products.abs().max()).item() if products.numel() else 0.0


def largest(call: dict[str, Any]) -> float:
    """Of the finite numbers in the arguments, and 1."""
    args, kwargs = arguments(call)
    floats = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.numel()]
    floats = [x.detach().double().nan_to_num(0, 0, 0).abs().max().item() for x in floats]
    return max([1.0, *(x for x in floats if x < 1e6)])


def described(value: Any) -> list[dict[str, Any]]:
    """The tensors of floats among the arguments."""
    if isinstance(value, dict):
        if "dtype" in value and "kind" in value:
            return [value] if value["dtype"] in FLOATS else []
        return [one for part in value.values() for one in described(part)]
    return [one for part in value for one in described(part)] if isinstance(value, list) else []


def check_floats(
    found: Tensor,
    plain: Tensor,
    oracle: Tensor,
    others: list[Tensor],
    rounding: Tensor,
    noise: float,
    scale: float,
    name: str,
) -> None:
    """As near to the oracle as plain torch is, or as that is to itself when its arguments move by a
    few roundings.

    Where plain torch is not finite there is no answer to compare with.
    """
    if found.numel() == 0:
        return
    right, info = oracle.double(), torch.finfo(found.dtype)
    sure = torch.stack([x.isfinite() for x in (right, plain, *others)]).all(0)
    sure &= right.abs() < info.max / 2
    if not sure.any():
        return
    there, expected = found.double()[sure], right[sure]
    assert there.isfinite().all(), f"{name}: not finite where plain torch is"
    carried = max((other.double()[sure] - expected).abs().max() for other in others)
    carried += rounding[sure].nan_to_num(0, 0, 0).max()
    most = expected.abs().max().clamp(min=scale)
    # noise is four roundings; what is stored in 16 bits is rounded once more
    budget = 32 * carried + 16 * noise * most + 2 * info.eps * most + 4 * info.smallest_normal
    error = (there - expected).abs().max()
    assert error <= budget, f"{name}: error {error:.3e} over {budget:.3e}, largest {most:.3e}"


def check_infinities(found: Tensor, plain: Tensor, oracle: Tensor, name: str) -> None:
    """An infinity that both have is the answer, such as the score of a class without points."""
    same = (plain.double() == oracle) & oracle.isinf()
    assert torch.equal(found.double()[same], oracle.double()[same]), f"{name}: other infinities"
