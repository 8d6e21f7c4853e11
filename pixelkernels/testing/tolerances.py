"""How near to the float64 oracle a result has to be."""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import same_draws
from .op import Call, named_outputs


def assert_within_budget(
    actual: Tensor, oracle: Tensor, plain: Tensor, name: str = "", scale: float = 0.0
) -> None:
    """`actual` is as near to the float64 `oracle` as twice what plain PyTorch in the same dtype
    manages.

    The budget is 2 * (the error of `plain` + eps * the largest value), with eps of the working
    dtype of `plain`; `scale` is the size of the terms where the result is a difference of larger
    ones. Where the dtype is float64 too, `plain` says nothing about rounding and 1e-11 of the
    largest value is the budget.
    """
    assert actual.shape == oracle.shape, f"{name}: {list(actual.shape)} != {list(oracle.shape)}"
    assert torch.isfinite(actual).all(), f"{name}: not finite"
    if oracle.numel() == 0:
        return
    oracle = oracle.double()
    largest = oracle.abs().max().clamp(min=scale)
    if plain.dtype == torch.float64:
        budget = 1e-11 * largest
    else:
        budget = 2 * (
            (plain.double() - oracle).abs().max() + torch.finfo(plain.dtype).eps * largest
        )
    error = (actual.double() - oracle).abs().max()
    assert error <= budget, (
        f"{name}: error {error:.3e} over budget {budget:.3e}, largest {largest:.3e}"
    )


def assert_agrees(call: Call, backend: str | None) -> None:
    """Results and gradients are those of eager in float64, within the budget of the dtype."""
    with same_draws("eager"):
        actual, plain = call.results(backend), call.results("eager")
        oracle = call.double().results("eager")
    if call.op.oracle is not None:
        oracle = named_outputs(call.op.oracle(call))
    terms = call.op.terms(call)
    assert actual.keys() == plain.keys() == oracle.keys()
    for name, right in oracle.items():
        found, low = actual[name], plain[name]
        assert (found.dtype, found.shape) == (low.dtype, right.shape), name
        if not right.is_floating_point():
            assert torch.equal(found, right), name
            continue
        finite = right.isfinite()
        assert torch.equal(found[~finite].double(), right[~finite].double()), name
        assert_within_budget(
            found[finite], right[finite], low[finite], name, scale=terms.get(name, 0.0)
        )
