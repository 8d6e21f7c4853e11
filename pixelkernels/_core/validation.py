"""Argument checks on metadata. An error names the argument, what was expected and what it got."""

from __future__ import annotations

import functools
import math
import numbers
import operator
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

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

# kernels count draws and the pixels of a side in int32, and use one more number
MOST = 2**31 - 2
# a result has a row for every region or class, whether there are pixels of it or not
MOST_REGIONS = 2**24
# the largest int of an operator schema
LARGEST_INT = 2**63 - 1
# by the number of axes, the longest sides for which every squared distance is an int32
LONGEST_SIDES = {2: 32767, 3: 26755}
# by the number of axes, the shapes of images and volumes: one batch, and any
BATCHES = {2: "[B, H, W]", 3: "[B, D, H, W]"}
AXES = {2: "[..., H, W]", 3: "[..., D, H, W]"}
# the squares of these, and of the sides of images, are normal numbers in float32
LEAST_SPACING, MOST_SPACING = 2.0**-60, 2.0**40
# Beyond this quotient of two spacings, the roundings of float64 could decide which pixel is the
# nearest.
MOST_ANISOTROPY = 1024


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


def bool_or_floating(name: str, value: Any) -> Tensor:
    return value if tensor(name, value).dtype == torch.bool else floating(name, value)


def features(name: str, value: Any) -> Tensor:
    """A floating-point [B, C, H, W] tensor."""
    floating(name, value)
    if value.dim() != 4:
        raise ValueError(
            f"{name}: expected shape [B, C, H, W], got {list(value.shape)}"
            + (f"; `{name}[None]` is a batch of one" if value.dim() == 3 else "")
        )
    return value


def feature_pair(like_name: str, like: Any, name: str, value: Any) -> tuple[Tensor, Tensor]:
    """`like` and `value`: features [B, D, ...] that differ at most in their spatial shape."""
    for each, features in ((like_name, like), (name, value)):
        floating(each, features)
        if features.dim() not in (3, 4):
            raise ValueError(
                f"{each}: expected shape [B, D, H, W] or [B, D, N], got {list(features.shape)}"
            )
    like, value = same_kind(name, value, like_name, like)
    if value.shape[:2] != like.shape[:2]:
        swapped = value.shape[-1] == like.shape[1]
        hint = f"; if it has channels last, pass `{name}.movedim(-1, 1)`" if swapped else ""
        raise ValueError(
            f"{name}: expected {list(like.shape[:2])} images and channels as {like_name}, got "
            f"{list(value.shape[:2])}{hint}"
        )
    return like, value


def same_kind(name: str, value: Any, like_name: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """`like` and `value`, tensors of one dtype and device.

    Autocast makes some features narrower and leaves others: like torch's own operations of several
    inputs, those of this library then compute in the widest dtype of them.
    """
    on_device(name, floating(name, value), like_name, like)
    if value.dtype == like.dtype:
        return like, value
    if torch.is_autocast_enabled(like.device.type):
        wider = torch.promote_types(like.dtype, value.dtype)
        return like.to(wider), value.to(wider)
    raise TypeError(f"{name}: expected dtype {like.dtype} as {like_name}, got {value.dtype}")


def integers(name: str, value: Any) -> Tensor:
    """A tensor of any integer dtype or bool."""
    tensor(name, value)
    if value.dtype not in INTEGER_DTYPES:
        hint = f"; convert it, as with `{name}.long()` or `{name} > 0.5`"
        raise TypeError(
            f"{name}: expected an integer or bool dtype, got {value.dtype}"
            + (hint if value.is_floating_point() else "")
        )
    return value


def mask(name: str, value: Any, spatial_dims: int = 2) -> Tensor:
    """An integer or bool tensor: a batch of images, or of volumes."""
    integers(name, value)
    option("spatial_dims", spatial_dims, BATCHES)
    if value.dim() != spatial_dims + 1:
        hint = {
            spatial_dims: f"; `{name}[None]` is a batch of one",
            spatial_dims + 2: f"; `{name}.squeeze(1)` if C is 1",
        }
        raise ValueError(
            f"{name}: expected shape {BATCHES[spatial_dims]}, got {list(value.shape)}"
            + hint.get(value.dim(), "")
        )
    return value


def images(name: str, value: Any, spatial_dims: Any) -> None:
    """An integer or bool tensor of any batch of images, or of volumes."""
    integers(name, value)
    shape = AXES[option("spatial_dims", spatial_dims, AXES)]
    if value.dim() < spatial_dims:
        raise ValueError(
            f"{name}: expected shape {shape} with spatial_dims={spatial_dims}, got"
            f" {list(value.shape)}"
        )
    if spatial_dims == 2 and value.dim() > 4:
        raise ValueError(
            f"{name}: expected at most 4 dimensions with spatial_dims=2, got {list(value.shape)};"
            f" pass spatial_dims=3 for volumes {AXES[3]}"
        )


def mask_like(name: str, value: Any, like_name: str, like: Tensor) -> None:
    """An integer or bool tensor of the shape and on the device of `like`."""
    integers(name, value)
    if value.shape != like.shape:
        raise ValueError(
            f"{name}: expected shape {list(like.shape)} as {like_name}, got {list(value.shape)}"
        )
    on_device(name, value, like_name, like)


def short_sides(name: str, value: Tensor, spatial_dims: int = 2) -> None:
    """An image or a volume in which every squared distance between pixels is an int32."""
    sides, longest = value.shape[-spatial_dims:], LONGEST_SIDES[spatial_dims]
    if max(sides) > longest:
        got = " x ".join(map(str, sides))
        raise ValueError(f"{name}: expected sides up to {longest}, got {got}")


def labels(name: str, value: Any, like_name: str, like: Tensor) -> Tensor:
    """An integer or bool tensor with the batch, spatial shape and device of features `like`."""
    return per_pixel(name, integers(name, value), like_name, like)


def weights(
    name: str, value: Any, like_name: str, like: Tensor, *, same_size: bool = True
) -> Tensor:
    """A bool or floating-point [B, H, W] tensor on the device of the features `like`."""
    bool_or_floating(name, value)
    if same_size:
        return per_pixel(name, value, like_name, like)
    if value.dim() != 3 or value.shape[0] != like.shape[0]:
        raise ValueError(
            f"{name}: expected shape [{like.shape[0]}, H', W'], got {list(value.shape)}"
        )
    return on_device(name, value, like_name, like)


def per_pixel(name: str, value: Tensor, like_name: str, like: Tensor) -> Tensor:
    expected = [like.shape[0], *like.shape[2:]]
    found = list(value.shape)
    if found != expected:
        hint = ""
        if found == [expected[0], 1, *expected[1:]]:
            hint = f"; pass `{name}.squeeze(1)`"
        elif found == list(like.shape[:-1]):
            hint = f"; if {like_name} have channels last, pass `{like_name}.movedim(-1, 1)`"
        raise ValueError(
            f"{name}: expected shape {expected} for {like_name} of shape {list(like.shape)}, "
            f"got {found}{hint}"
        )
    return on_device(name, value, like_name, like)


def channel_images(name: str, value: Any) -> None:
    floating(name, value)
    if value.dim() not in (4, 5):
        raise ValueError(
            f"{name}: expected shape [B, C, H, W] or [B, C, D, H, W], got {list(value.shape)}"
        )


def class_target(target: Any, like_name: str, like: Tensor) -> None:
    """Masks of the shape of `like`, of any dtype, or integer labels without the channels."""
    if tensor("target", target).dim() == like.dim():
        (floating if target.is_floating_point() else integers)("target", target)
        if target.shape != like.shape:
            label = target.shape[1] == 1 and target.shape[2:] == like.shape[2:]
            raise ValueError(
                f"target: expected shape {list(like.shape)} as {like_name}, got"
                f" {list(target.shape)}"
                + ("; pass class labels as `target.squeeze(1)`" if label else "")
            )
        on_device("target", target, like_name, like)
        return
    labels("target", target, like_name, like)
    if like.shape[1] == 1:
        raise ValueError(
            f"target: expected a mask of shape {list(like.shape)} for one channel, got class labels"
            f" {list(target.shape)}; pass `target[:, None]`"
        )


def on_device(name: str, value: Tensor, like_name: str, like: Tensor) -> Tensor:
    if value.device != like.device:
        raise ValueError(
            f"{name}: expected device {like.device} as {like_name}, got {value.device}"
        )
    return value


def integer(name: str, value: Any, *, minimum: int, maximum: int = LARGEST_INT) -> Any:
    """An int; integers of NumPy and 0-d integer tensors become one."""
    found = value if isinstance(value, torch.SymInt) or type(value) is int else _index(name, value)
    if found < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    if found > maximum:
        raise ValueError(f"{name}: expected at most {maximum}, got {value}")
    return found


def _index(name: str, value: Any) -> int:
    is_bool = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool
    try:
        if is_bool or getattr(value, "ndim", 0):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {_kind(value)}") from None


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def count(name: str, value: Any, *, minimum: int = 1) -> Any:
    return integer(name, value, minimum=minimum, maximum=MOST)


def regions(name: str, value: Any) -> Any:
    """A number of regions or classes."""
    found = integer(name, value, minimum=1)
    if found > MOST_REGIONS:
        raise ValueError(
            f"{name}: expected at most {MOST_REGIONS}, got {found}; compact_labels numbers sparse"
            " labels consecutively"
        )
    return found


def label(name: str, value: Any) -> int:
    """A label, which may be outside of what the labels' dtype can hold."""
    return int(integer(name, value, minimum=-(2**63)))


def label_list(name: str, value: Any) -> tuple[int, ...]:
    """The labels of one, several or None."""
    if value is None:
        return ()
    several = isinstance(value, Iterable) and not isinstance(value, (str, Tensor))
    return tuple(label(name, one) for one in (value if several else (value,)))


def number(name: str, value: Any, *, minimum: float | None = None) -> float:
    """A float; ints, real numbers of NumPy and 0-d tensors become one."""
    found = value.item() if isinstance(value, Tensor) and value.dim() == 0 else value
    if isinstance(found, bool) or not isinstance(found, (int, float, numbers.Real)):
        raise TypeError(f"{name}: expected a number, got {_kind(value)}")
    try:
        found = float(found)
    except OverflowError:
        raise ValueError(
            f"{name}: expected a number in the range of a float, got a larger int"
        ) from None
    if minimum is not None and not found >= minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    return found


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
    first, second = sequence(name, value, 2)
    return first, second


def sequence(name: str, value: Any, count: int) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, (tuple, list, Sequence)):
        raise TypeError(f"{name}: expected {count} numbers, got {type(value).__name__}")
    if len(value) != count:
        raise ValueError(f"{name}: expected {count} numbers, got {len(value)}")
    return tuple(value)


def spacing(sampling: Any, axes: int, *, nearest: bool = False) -> tuple[float, float, float]:
    """The spacing of depth, rows and columns; 1 for the depth of an image.

    `nearest`: whether the nearest pixels are asked for.
    """
    if sampling is None:
        return (1.0, 1.0, 1.0)
    steps = [positive("sampling", x) for x in sequence("sampling", sampling, axes)]
    least, most = min(steps), max(steps)
    if not LEAST_SPACING <= least <= most <= MOST_SPACING:
        raise ValueError(
            f"sampling: expected numbers from {LEAST_SPACING:.0e} to {MOST_SPACING:.0e}, got"
            f" {sampling!r}"
        )
    if nearest and most > MOST_ANISOTROPY * least:
        raise ValueError(
            f"sampling: expected quotients up to {MOST_ANISOTROPY} with return_indices=True, got"
            f" {sampling!r}"
        )
    depth, row, column = [1.0] * (3 - axes) + steps
    return depth, row, column


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


# ---- renamed arguments ----

P = ParamSpec("P")
R = TypeVar("R")


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accepts the old spelling of keyword arguments, `renamed(old="new")`, with a warning."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def with_old_names(*args: P.args, **options: P.kwargs) -> R:
            for old in names.keys() & options.keys():
                new = names[old]
                if new in options:
                    raise TypeError(f"{old}: expected {new} alone, which it is now called")
                message = f"{old} is now called {new}; the old name goes with the next release"
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                options[new] = options.pop(old)
            return function(*args, **options)

        return with_old_names

    return decorate
