"""Argument checks on metadata. An error names the argument, what was expected and what it got."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, distributed

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER_DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)

# kernels count regions, classes, draws and the pixels of a side in int32, and use one more number
MOST = 2**31 - 2
# the largest int of an operator schema
LARGEST_INT = 2**63 - 1
# the longest side for which every squared distance is an int32
LONGEST_SIDE = 32767


def tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else str(value.layout)
        raise TypeError(f"{name}: expected a dense tensor, got a {kind} one")
    return value


def floating(name: str, value: Any) -> Tensor:
    """A tensor of one of FLOAT_DTYPES."""
    tensor(name, value)
    if value.dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name}: expected a floating-point dtype of 16, 32 or 64 bits, got {value.dtype}"
        )
    return value


def features(name: str, value: Any) -> Tensor:
    """A floating-point [B, C, H, W] tensor."""
    floating(name, value)
    if value.dim() != 4:
        raise ValueError(f"{name}: expected shape [B, C, H, W], got {list(value.shape)}")
    return value


def feature_pair(like_name: str, like: Any, name: str, value: Any) -> None:
    """Features [B, D, ...] that differ at most in their spatial shape."""
    for each, features in ((like_name, like), (name, value)):
        floating(each, features)
        if features.dim() not in (3, 4):
            raise ValueError(
                f"{each}: expected shape [B, D, H, W] or [B, D, N], got {list(features.shape)}"
            )
    same_kind(name, value, like_name, like)
    if value.shape[:2] != like.shape[:2]:
        raise ValueError(
            f"{name}: expected {list(like.shape[:2])} images and channels as {like_name}, got "
            f"{list(value.shape[:2])}"
        )


def same_kind(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    """A tensor with the dtype and device of `like`."""
    if value.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype} as {like_name}, got {value.dtype}")
    on_device(name, value, like, like_name)


def integers(name: str, value: Any) -> Tensor:
    """A tensor of any integer dtype or bool."""
    tensor(name, value)
    if value.dtype not in INTEGER_DTYPES:
        raise TypeError(f"{name}: expected an integer or bool dtype, got {value.dtype}")
    return value


def mask(name: str, value: Any) -> Tensor:
    """An integer or bool [B, H, W] tensor."""
    integers(name, value)
    if value.dim() != 3:
        raise ValueError(f"{name}: expected shape [B, H, W], got {list(value.shape)}")
    return value


def mask_like(name: str, value: Any, like_name: str, like: Tensor) -> None:
    """An integer or bool tensor of the shape and on the device of `like`."""
    integers(name, value)
    if value.shape != like.shape:
        raise ValueError(
            f"{name}: expected shape {list(like.shape)} as {like_name}, got {list(value.shape)}"
        )
    on_device(name, value, like, like_name)


def short_sides(name: str, value: Tensor) -> None:
    """An image in which every squared distance between pixels is an int32."""
    height, width = value.shape[-2:]
    if max(height, width) > LONGEST_SIDE:
        raise ValueError(f"{name}: expected sides up to {LONGEST_SIDE}, got {height} x {width}")


def labels(name: str, value: Any, like: Tensor) -> Tensor:
    """An integer or bool [B, H, W] tensor on the device of the features `like`."""
    return per_pixel(name, integers(name, value), like)


def weights(name: str, value: Any, like: Tensor, *, same_size: bool = True) -> Tensor:
    """A floating-point [B, H, W] tensor on the device of the features `like`."""
    floating(name, value)
    if same_size:
        return per_pixel(name, value, like)
    if value.dim() != 3 or value.shape[0] != like.shape[0]:
        raise ValueError(
            f"{name}: expected shape [{like.shape[0]}, H', W'], got {list(value.shape)}"
        )
    return on_device(name, value, like, "features")


def per_pixel(name: str, value: Tensor, like: Tensor) -> Tensor:
    expected = [like.shape[0], *like.shape[2:]]
    if list(value.shape) != expected:
        raise ValueError(
            f"{name}: expected shape {expected} for features of shape {list(like.shape)}, "
            f"got {list(value.shape)}"
        )
    return on_device(name, value, like, "features")


def on_device(name: str, value: Tensor, like: Tensor, like_name: str) -> Tensor:
    if value.device != like.device:
        raise ValueError(
            f"{name}: expected device {like.device} as {like_name}, got {value.device}"
        )
    return value


def integer(name: str, value: Any, *, minimum: int, maximum: int = LARGEST_INT) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    if value > maximum:
        raise ValueError(f"{name}: expected at most {maximum}, got {value}")
    return value


def count(name: str, value: Any, *, minimum: int = 1) -> Any:
    return integer(name, value, minimum=minimum, maximum=MOST)


def integer_list(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected some ints, got {type(value).__name__}")
    return tuple(integer(name, one, minimum=-(2**63)) for one in value)


def number(name: str, value: Any, *, minimum: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if isinstance(value, int) and not -(2**1023) <= value <= 2**1023:
        raise ValueError(f"{name}: expected a number in the range of a float, got a larger int")
    if minimum is not None and not value >= minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    return float(value)


def positive(name: str, value: Any) -> float:
    found = number(name, value)
    if not found > 0 or found == math.inf:
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")
    return found


def flag(name: str, value: Any) -> bool:
    """A bool of Python or NumPy."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")
    return bool(value)


def pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected two numbers, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name}: expected two numbers, got {len(value)}")
    return value[0], value[1]


def option(name: str, value: Any, allowed: Collection[Any]) -> Any:
    # compare types first: 2.0 == 2, and comparing with a tensor gives a tensor
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def generator(value: Any, like: Tensor) -> None:
    if value is None:
        return
    if not isinstance(value, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {type(value).__name__}")
    if value.device.type != like.device.type:
        raise ValueError(f"generator: expected device {like.device}, got {value.device}")


def group(value: Any) -> None:
    if value is not None and not isinstance(value, distributed.ProcessGroup):
        raise TypeError(
            f"group: expected a torch.distributed.ProcessGroup, got {type(value).__name__}"
        )
