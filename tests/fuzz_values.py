"""From the plain data that describes an argument to the argument.

The same description gives the same values in float64 (`wide`), for the oracle, and with a little
relative `noise`, which tells how far rounding may carry a result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

FLOATS = ("float16", "bfloat16", "float32", "float64")
# of features: what is not finite, or has no finite square in float32
WILD = ("nan", "inf", "huge")


class How(NamedTuple):
    """Which of the tensors that a description stands for."""

    wide: bool = False
    single: bool = False
    noise: float = 0.0
    seed: int = 0
    device: str = "cpu"


AS_IS = How()


def build(value: Any, how: How = AS_IS) -> Any:
    if isinstance(value, list):
        return [build(one, how) for one in value]
    if not isinstance(value, dict):
        return value
    if "kind" in value:
        return tensor(value, how)
    if "array" in value:
        return array(value)
    if "tuple" in value:
        return tuple(build(one, how) for one in value["tuple"])
    if "generator" in value:
        return torch.Generator().manual_seed(value["generator"])
    return strange(value["strange"])


def strange(name: str) -> Any:
    """What nobody should pass."""
    x = torch.ones(2, 3, 4, 5)
    return {
        "ndarray": np.ones((2, 3, 4, 5)),
        "sparse": x.to_sparse(),
        "sparse matrix": torch.eye(3).to_sparse_csr(),
        "nested": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)]),
        "quantized": torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        "object": object(),
        "tensor": torch.tensor([1, 0]),
        "array": np.array(["max", "min"]),
    }[name]


def tensor(facts: dict[str, Any], how: How) -> Tensor:
    if facts["kind"] == "number":
        x = torch.tensor(facts["value"], device=facts.get("device", how.device))
        x = x.float().to(torch.float64 if how.wide else torch.float32)
        return x.requires_grad_(facts["grad"])
    dtype = getattr(torch, facts["dtype"])
    x = laid_out(exact(facts).to(dtype), facts["layout"])
    if (how.wide or how.single) and facts["dtype"] in FLOATS:
        x = x.double() if how.wide else x.float()
        if how.noise:
            x = noisy(x, how, facts)
    device = facts.get("device", how.device)
    if device != "cpu":
        x = x.to(device)
    if facts.get("grad") and x.is_floating_point():
        x = x.detach().requires_grad_()
    return x


def noisy(x: Tensor, how: How, facts: dict[str, Any]) -> Tensor:
    random = torch.Generator().manual_seed(1000 * how.seed + facts["seed"])
    noise = how.noise * torch.randn(x.shape, generator=random, dtype=torch.float64)
    if facts["kind"] != "features" or x.numel() == 0:
        return x * (1 + noise)
    # so that what is zero for all points does not stay equal for all
    largest = x.nan_to_num(0, 0, 0).abs().max()
    return torch.where(x == 0, noise * torch.where(largest > 0, largest, 1), x * (1 + noise))


def exact(facts: dict[str, Any]) -> Tensor:
    """The values before they are rounded to their dtype."""
    shape, values = facts["shape"], facts.get("values", "random")
    random = torch.Generator().manual_seed(facts["seed"])
    normal = torch.randn(shape, generator=random, dtype=torch.float64)
    uniform = torch.rand(shape, generator=random, dtype=torch.float64)
    match facts["kind"]:
        case "features":
            return shaped(normal, uniform, values)
        case "weights":
            weights = torch.where(uniform < 0.2, 0, uniform)
            special = {"zeros": 0 * weights, "ones": 0 * weights + 1, "negative": uniform - 0.5}
            return special.get(values, weights)
        case "mask":
            # bool and unsigned dtypes have no -1
            signed = not facts["dtype"].startswith(("u", "bool"))
            return (uniform < facts["density"]).long() * (-1 if signed and values == "odd" else 1)
        case "points":
            points = (1.4 * uniform - 0.2) * facts["size"]
            points = torch.where(normal > 0, points.round(), points)
            if facts["dtype"] not in FLOATS:
                points = points.round().clamp(0, 100)
            return torch.where(uniform < 0.05, 1e30, points) if values == "far" else points
        case _:
            return integers(facts, uniform, values)


def shaped(normal: Tensor, uniform: Tensor, values: str) -> Tensor:
    match values:
        case "small" | "large" | "huge":
            return normal * {"small": 1e-3, "large": 100.0, "huge": 1e30}[values]
        case "whole":
            return (2 * normal).round()
        case "constant":
            return normal.flatten()[:1].expand(normal.numel()).view(normal.shape).clone()
        case "zeros":
            return 0 * normal
        case "shifted":
            return normal + 30
        case "nan":
            return torch.where(uniform < 0.1, torch.nan, normal)
        case "inf":
            return torch.where(uniform < 0.1, normal.sign() * torch.inf, normal)
        case _:
            return normal


def integers(facts: dict[str, Any], uniform: Tensor, values: str) -> Tensor:
    """Whole numbers from `low` to `high`, as far as the dtype has them."""
    if facts["dtype"] in (*FLOATS, "complex64", "float8_e4m3fn"):
        return uniform
    info = None if facts["dtype"] == "bool" else torch.iinfo(getattr(torch, facts["dtype"]))
    least, most = (0, 1) if info is None else (info.min, min(info.max, 2**62))
    low, high = max(facts["low"], least), min(facts["high"], most)
    if low > high:
        low = high = max(least, min(facts["high"], most))
    whole = low + (uniform * (high - low + 1)).long().clamp(max=high - low)
    if values == "extremes":
        whole = torch.where(uniform < 0.2, most, torch.where(uniform > 0.8, least, whole))
    if values == "blocks" and whole.numel():
        whole = whole.sort(dim=-1).values
    return whole


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values in other strides, but for "expanded", which repeats some."""
    if x.dim() < 2:
        return x
    match layout:
        case "channels_last" if x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        case "transposed":
            return x.mT.contiguous().mT
        case "first last":
            return x.movedim(0, -1).contiguous().movedim(-1, 0)
        case "cropped":
            room = x.new_ones([n + 3 for n in x.shape])
            inside = tuple(slice(1, n + 1) for n in x.shape)
            room[inside] = x
            return room[inside]
        case "strided":
            room = x.new_ones([2 * n + 1 for n in x.shape])
            every = tuple(slice(1, 2 * n + 1, 2) for n in x.shape)
            room[every] = x
            return room[every]
        case "expanded" if x.numel():
            return x[..., :1, :].expand(x.shape)
        case "all expanded" if x.numel():
            return x.flatten()[0].expand(x.shape)
        case "negated" if x.dtype in (torch.float32, torch.float64):
            return torch.complex(torch.zeros_like(x), -x).conj().imag
        case _:
            return x


def array(facts: dict[str, Any]) -> Any:
    """A NumPy array, with strides and byte orders that torch does not have."""
    described = facts["array"]
    if facts["dtype"] in ("complex128", "O", "U3", "datetime64[s]", "longdouble"):
        return np.zeros(described["shape"], facts["dtype"])
    x = tensor({**described, "layout": "contiguous"}, AS_IS).numpy().astype(facts["dtype"])
    match facts["layout"]:
        case "fortran":
            return np.asfortranarray(x)
        case "reversed":
            return np.flip(np.flip(x).copy())
        case "strided":
            return np.repeat(x, 2, -1)[..., ::2] if x.ndim else x
        case "swapped":
            return x.astype(x.dtype.newbyteorder())
        case "unaligned":
            room = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
            room[...] = x
            return room
        case "broadcast" if x.size and x.ndim > 1:
            return np.broadcast_to(x[..., :1, :], x.shape)
        case _:
            return x
