"""Random calls over the registry, as plain data, so that a crashed one can be made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from pixelkernels.testing import LAYOUTS
from pixelkernels.testing.arguments import (
    INTEGER_DTYPES,
    ClickLabels,
    Count,
    Features,
    Generator,
    Group,
    How,
    Labels,
    Mask,
    ObjectLabels,
    Option,
    Points,
    TensorKind,
    Weights,
)
from pixelkernels.testing.op import Call, Op
from pixelkernels.testing.samples import OPS

BATCHES, CHANNELS = (0, 1, 1, 2, 3), (0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 21, 33, 70)
SIDES = (0, 1, 1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 40)
LONG_SIDES = (300, 700, 1500, 2049)
COUNTS = (1, 2, 2, 3, 5, 7, 20, 100, 300)
FLOATS = ("float32", "float32", "float64", "float16", "bfloat16")
INTEGERS = tuple(str(x).removeprefix("torch.") for x in INTEGER_DTYPES)
DTYPES = {
    Weights: FLOATS,
    Labels: INTEGERS,
    # an unsigned -1 is 255, which no mask has beside other objects
    ObjectLabels: ("int8", "int16", "int32", "int64"),
    Mask: INTEGERS,
    ClickLabels: ("int8", "int16", "int32", "int64"),
    Points: (*FLOATS, "int64", "int16", "uint8"),
}
# of features, small to large, and those that are not finite or have no finite square in float32
CALM = ("normal", "normal", "small", "large", "whole", "constant", "zeros", "shifted")
WILD = ("nan", "inf", "huge")
# products much larger than they differ lose their digits in float32 before there is a loss
SPREAD = dict.fromkeys(
    ("pair_similarity_loss", "pixel_contrast_loss"),
    ("normal", "small", "large", "whole", "zeros", *WILD),
)


def strided(x: Tensor) -> Tensor:
    every_other = tuple(slice(1, 2 * n + 1, 2) for n in x.shape)
    whole = x.new_ones([2 * n + 1 for n in x.shape])
    whole[every_other] = x
    return whole[every_other]


def expanded(x: Tensor) -> Tensor:
    """The first row in the place of all."""
    return x[..., :1, :].expand(x.shape) if x.numel() else x


def negated(x: Tensor) -> Tensor:
    """With the bit set by which torch negates without copying."""
    if x.dtype not in (torch.float32, torch.float64):
        return x
    return torch.complex(torch.zeros_like(x), -x).conj().imag


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    **LAYOUTS,
    "first dimension last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "strided": strided,
    "expanded": expanded,
    "negated": negated,
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    def one_of(*options: Any) -> Any:
        return draw(st.sampled_from(options))

    op = OPS[one_of(*OPS)]
    case = one_of(*op.cases)
    mistaken = one_of(*[False] * 4, True)
    kinds = {**op.arguments, **op.cases[case].arguments}
    fixed = {*op.dependent, *op.cases[case].options}
    options = {
        name: draw(st.integers(0, len(kind.choices) - 1))
        for name, kind in kinds.items()
        if isinstance(kind, Option) and not isinstance(kind, (Generator, Group))
        if name not in fixed and one_of(False, True)
    }
    ways = ["function", "function"] + ["meta"] * op.compiles
    ways += ["module"] * bool(op.module) + ["array"] * bool(op.numpy)
    return {
        "op": op.name,
        "case": case,
        "dims": sizes(op, one_of, least=2 if mistaken else 0),
        "dtype": one_of(*FLOATS) if op.differentiable else "float32",
        "seed": draw(st.integers(0, 10**6)),
        "density": one_of(None, 0.0, 0.02, 0.3, 0.7, 1.0),
        "nothing": one_of(*[False] * 11, True),
        "options": options,
        "values": one_of(*SPREAD.get(op.name, (*CALM, *CALM, *WILD))),
        "dtypes": {
            name: one_of(*DTYPES[type(kind)])
            for name, kind in kinds.items()
            if type(kind) in DTYPES
        },
        "extremes": one_of(*[False] * 3, True),
        "strides": {
            name: one_of(*STRIDES) for name, kind in kinds.items() if isinstance(kind, TensorKind)
        },
        "way": one_of(*ways),
        "mistake": draw(st.integers(0, 10**6)) if mistaken else None,
    }


def sizes(op: Op, one_of: Any, least: int) -> dict[str, int]:
    counts = {kind.letter for kind in op.arguments.values() if isinstance(kind, Count)}
    dims = {}
    for letter in sorted({*op.sizes.tiny, *counts}):
        known = COUNTS if letter in counts or letter in "KLNRS" else SIDES
        known = {"B": BATCHES, "C": CHANNELS, "D": CHANNELS}.get(letter, known)
        dims[letter] = one_of(*(x for x in known if x >= least))
    if one_of(*[False] * 11, True):
        dims |= {"H": one_of(1, 2, 3), "W": one_of(*LONG_SIDES)}
        dims |= {letter: min(dims[letter], 9) for letter in "CDL" if letter in dims}
    if "X" in dims and 0 in dims.values():  # weights of no pixels cannot be resized, nor to none
        dims["X"], dims["Y"] = dims.get("P", dims["H"]), dims.get("Q", dims["W"])
    dims["S"] = min(dims.get("S", 1), 5)
    return dims


def how(facts: dict[str, Any]) -> How:
    return How(
        facts["dims"],
        dtype=getattr(torch, facts["dtype"]),
        seed=facts["seed"],
        density=facts["density"],
        nothing=facts["nothing"],
    )


def made(facts: dict[str, Any]) -> Call:
    """The call that the data describes."""
    op = OPS[facts["op"]]
    call = op.call(facts["case"], how(facts))
    kinds = {name: op.kind(call.case, name) for name in facts["options"]}
    options = {name: kind.choices[facts["options"][name]] for name, kind in kinds.items()}
    tensors = {}
    for name, x in call.tensors.items():
        kind = op.kind(call.case, name)
        if isinstance(kind, Features):
            x = shaped(x, facts["values"], facts["seed"])
        if isinstance(kind, Points) and facts["values"] in WILD:
            x = x.masked_fill(some(x, facts["seed"]), 1e30)
        if name in facts["dtypes"]:
            dtype = getattr(torch, facts["dtypes"][name])
            if type(kind) in (Labels, Mask) and facts["extremes"] and dtype != torch.bool:
                x = extreme(x, dtype, facts["seed"], negative=type(kind) is Labels)
            x = converted(x, dtype)
        tensors[name] = STRIDES[facts["strides"][name]](x) if x.dim() > 1 else x
    return call.replaced(**options, **tensors)


def some(x: Tensor, seed: int) -> Tensor:
    """One in ten."""
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.1


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_floating_point() and not dtype.is_floating_point:
        x = x.clamp(0, 100)
    return x.to(dtype)


def extreme(x: Tensor, dtype: torch.dtype, seed: int, negative: bool) -> Tensor:
    """With the least and the greatest number that the dtype and int64 hold."""
    info = torch.iinfo(dtype)
    x = x.long().masked_fill(some(x, seed), info.min if negative else 0)
    return x.masked_fill(some(x, seed + 1), min(info.max, 2**63 - 1))


def shaped(x: Tensor, values: str, seed: int) -> Tensor:
    match values:
        case "small" | "large" | "huge":
            return x * {"small": 1e-3, "large": 100.0, "huge": 1e30}[values]
        case "whole":
            return (2 * x).round()
        case "constant":
            return x.flatten()[:1].expand(x.numel()).view(x.shape).clone()
        case "zeros":
            return 0 * x
        case "shifted":
            return x + 30
        case "nan":
            return x.masked_fill(some(x, seed), torch.nan)
        case "inf":
            return torch.where(some(x, seed), x.sign() * torch.inf, x)
        case _:
            return x
