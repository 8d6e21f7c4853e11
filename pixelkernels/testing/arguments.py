"""Kinds of arguments: how a sample of each is made, and which values a function has to refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import inputs

# the size of each letter of a shape
Dims = Mapping[str, int]

INTEGER_DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
)
# larger than any number of regions, classes, samples or pixels of a side
TOO_MANY = 2**31 - 1
NO_FLOAT = 10**400


@dataclass(frozen=True)
class How:
    """Which sample of a call to make. `dims` gives the letters of the shapes their sizes."""

    dims: Dims
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    layout: str = "contiguous"
    seed: int = 0
    # labels, masks and weights leave no pixel to look at
    nothing: bool = False
    # no weight is exactly 0, where a function has a kink
    smooth: bool = False
    # of the True pixels of a mask; None: connected regions
    density: float | None = None


class Mistake(NamedTuple):
    """A value that raises `error` with a message that matches the regular expression."""

    name: str
    error: type[Exception]
    message: str
    value: Any


class Kind:
    """What an argument is. An optional one is left out of a sample that does not ask for it."""

    optional: bool = True

    def make(self, how: How, seed: int) -> Any:
        raise NotImplementedError

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        """`value` is a right one; `known` are the letters of the arguments before."""
        raise NotImplementedError


@dataclass(frozen=True)
class TensorKind(Kind):
    """`shape` has a letter or a digit for each dimension."""

    shape: str
    _: KW_ONLY
    optional: bool = False
    differentiable: ClassVar[bool] = False
    wrong_dtype: ClassVar[torch.dtype] = torch.float32

    def sizes(self, how: How) -> tuple[int, ...]:
        return tuple(int(d) if d.isdigit() else how.dims[d] for d in self.shape)

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        raise NotImplementedError

    def make(self, how: How, seed: int) -> Tensor:
        x = self.values(how, how.seed + seed, *self.sizes(how))
        # a vector is the column of a matrix
        matrix = x.view(-1, 1) if x.dim() == 1 else x
        return inputs.LAYOUTS[how.layout](matrix.to(how.device)).view_as(x)

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        yield Mistake("list", TypeError, f"^{name}: expected .*got list", [1.0])
        wrong = str(self.wrong_dtype).removeprefix("torch.")
        yield Mistake(
            "dtype", TypeError, f"^{name}: expected .*got .*{wrong}", value.to(self.wrong_dtype)
        )
        if value.dtype != torch.bool:  # which has no sparse form worth the name
            yield Mistake("sparse", TypeError, f"^{name}: expected .*sparse", value.to_sparse())
        yield Mistake(
            "rank", ValueError, f"^{name}: expected .*got ", value[(0,) * max(value.dim() - 1, 1)]
        )
        for dim, letter in enumerate(self.shape):
            if letter in known or letter.isdigit():
                short = value.narrow(dim, 0, value.shape[dim] - 1)
                yield Mistake(
                    f"size {letter}", ValueError, rf"^{name}: expected .*got .*\[\d", short
                )
        if known:
            yield Mistake("device", ValueError, f"^{name}: expected device", value.to("meta"))


@dataclass(frozen=True)
class Features(TensorKind):
    """Normal values of standard deviation `size`."""

    shape: str = "BCHW"
    size: float = 1.0
    differentiable = True
    wrong_dtype = torch.int64

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        yield from super().mistakes(name, value, known)
        for wrong in ("float8_e4m3fn", "complex64"):
            narrow = value.detach().to(getattr(torch, wrong))
            yield Mistake(wrong, TypeError, f"^{name}: expected .*got .*{wrong}", narrow)
        nested = torch.nested.nested_tensor(list(value), layout=torch.jagged)
        yield Mistake("nested", TypeError, f"^{name}: expected .*nested", nested)

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        return (self.size * inputs.features(*shape, dtype=torch.float64, seed=seed)).to(how.dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Weights(TensorKind):
    """Exactly 0, or in [0.1, 1); float32 unless the features are float64."""

    shape: str = "BHW"
    differentiable = True
    wrong_dtype = torch.int64

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        if how.smooth:
            w = inputs.features(*shape, dtype=torch.float64, seed=seed).abs() + 0.1
        else:
            w = inputs.weights(*shape, dtype=torch.float64, seed=seed)
            w = w.where(w >= 0.1, 0)
        return (0 * w if how.nothing else w).to(wide(how.dtype))

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        yield from super().mistakes(name, value, known)
        yield Mistake("negative", ValueError, f"^{name}: expected no negative", value - 3)


@dataclass(frozen=True)
class Labels(TensorKind):
    """Labels of `classes` (a letter or a number), and some outside.

    They are random in the first image; in the others they form connected regions, of which the last
    one is absent. Without `classes` any number from 0 on is a label.
    """

    shape: str = "BHW"
    classes: str | int | None = "R"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        classes = how.dims[self.classes] if isinstance(self.classes, str) else self.classes or 4
        if how.nothing:
            return torch.full(shape, -1)
        labels = inputs.random_labels(*shape, low=-1, high=classes + 1, seed=seed)
        if not labels.numel():
            return labels
        batch, *rows, width = shape  # a volume is a tall image
        regions = inputs.coherent_labels(batch, math.prod(rows), width, classes, seed).view(shape)
        labels[1:] = regions[1:].where(regions[1:] < max(classes - 1, 2), -1)
        labels.view(shape[0], -1)[1:, :2] = -1
        return labels


@dataclass(frozen=True)
class ObjectLabels(Labels):
    """A mask as labels: 0, objects of two labels, and -1 where it is ignored."""

    classes: str | int | None = 2


@dataclass(frozen=True)
class Mask(TensorKind):
    """Connected regions, or pixels of the given density."""

    shape: str = "BHW"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        if how.nothing:
            return torch.zeros(shape, dtype=torch.bool)
        if how.density is not None:
            generator = torch.Generator().manual_seed(seed)
            return torch.rand(shape, generator=generator) < how.density
        batch, *rows, width = shape
        return inputs.coherent_labels(batch, math.prod(rows), width, 4, seed).view(shape) == 1


@dataclass(frozen=True)
class Pixels(TensorKind):
    """Flat pixels. Some rows have none, some pixels recur, and the last image has none at all."""

    shape: str = "BK"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        pixels = how.dims["H"] * how.dims["W"]
        if how.nothing or pixels == 0:
            return torch.full(shape, -1)
        index = inputs.random_labels(*shape, high=pixels, seed=seed)
        index[:, 2:5] = pixels // 2
        index[:, seed % 7 :: 7] = -1
        index[2:] = -1
        return index


@dataclass(frozen=True)
class Points(TensorKind):
    """Clicks inside and around an image, at integers and between them."""

    shape: str = "BN2"
    wrong_dtype = torch.complex64

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        sides = torch.tensor([how.dims[x] for x in "ZHW"[-shape[-1] :]])
        points = (1.4 * torch.rand(shape, generator=generator) - 0.2) * sides
        points[:, ::2] = points[:, ::2].round()
        return points

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        yield from super().mistakes(name, value, known)
        yield Mistake("NaN", ValueError, f"^{name}: expected no NaN", value * torch.nan)


@dataclass(frozen=True)
class ClickLabels(TensorKind):
    """1, 0, or -1 for padding."""

    shape: str = "BN"

    def values(self, how: How, seed: int, *shape: int) -> Tensor:
        labels = inputs.random_labels(*shape, low=-1, high=2, seed=seed)
        return torch.full_like(labels, -1) if how.nothing else labels

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        yield from super().mistakes(name, value, known)
        yield Mistake("value", ValueError, f"^{name}: expected .*got 7", value.abs() * 0 + 7)


@dataclass(frozen=True)
class Element(TensorKind):
    """A tensor of one number: 0-d, or of shape [1]."""

    shape: str = "1"
    value: float = 1.0
    _: KW_ONLY
    optional: bool = True
    # whether a plain number does as well
    or_number: bool = False
    # whether the call changes it in place
    buffer: bool = False
    choices: tuple[float, ...] = ()

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return not self.buffer

    def make(self, how: How, seed: int) -> Tensor:
        return torch.full(self.sizes(how), self.value, dtype=wide(how.dtype), device=how.device)

    def mistakes(self, name: str, value: Tensor, known: str) -> Iterator[Mistake]:
        number = "1" if self.or_number else 0.5
        yield Mistake("type", TypeError, f"^{name}: expected", number)
        yield Mistake("vector", ValueError, rf"^{name}: expected .*\[2\]", value.new_ones(2))
        meta = torch.empty(value.shape, device="meta")
        yield Mistake("device", ValueError, f"^{name}: expected device", meta)


@dataclass(frozen=True)
class Count(Kind):
    """A number of regions, classes, samples or clicks: the size of a letter."""

    letter: str
    minimum: int = 1
    limited: bool = True
    optional: bool = False

    def make(self, how: How, seed: int) -> int:
        return how.dims[self.letter]

    def mistakes(self, name: str, value: int, known: str) -> Iterator[Mistake]:
        least = self.minimum - 1
        yield Mistake(
            "too small",
            ValueError,
            f"^{name}: expected at least {self.minimum}, got {least}",
            least,
        )
        yield Mistake("float", TypeError, f"^{name}: expected .*got float", 2.0)
        yield Mistake("bool", TypeError, f"^{name}: expected .*got bool", True)
        for most in (TOO_MANY, 2**61) if self.limited else (2**63,):
            yield Mistake(f"{most}", ValueError, f"^{name}: expected at most .*got {most}", most)


@dataclass(frozen=True)
class Size(Kind):
    """The sides of an image or a volume."""

    sides: str = "HW"
    optional: bool = False

    def make(self, how: How, seed: int) -> tuple[int, ...]:
        return tuple(how.dims[x] for x in self.sides)

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        yield Mistake("int", TypeError, f"^{name}: expected . numbers, got int", 4)
        yield Mistake("four", ValueError, f"^{name}: expected . numbers, got 4", (1, 4, 5, 6))
        yield Mistake("negative", ValueError, f"^{name}: expected .*got -4", (-4, *value[1:]))
        yield Mistake("too large", ValueError, f"^{name}: expected", (TOO_MANY, *value[1:]))


@dataclass(frozen=True)
class Option(Kind):
    """An argument with a default. `choices` are right ones, for random calls."""

    choices: tuple[Any, ...]

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        return iter(())


@dataclass(frozen=True)
class Choice(Option):
    """One of the values."""

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        message = f"^{name}: expected one of "
        yield Mistake("unknown", ValueError, f"{message}.*'bogus'", "bogus")
        yield Mistake("other type", ValueError, message, 2.0)
        yield Mistake("tensor", ValueError, message, torch.ones(2))
        yield Mistake("array", ValueError, message, np.array([str(v) for v in self.choices]))


@dataclass(frozen=True)
class Number(Option):
    """A real number; `minimum` is the least one, `positive` excludes 0."""

    minimum: float | None = None
    positive: bool = False

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        yield Mistake("text", TypeError, f"^{name}: expected a number, got str", "x")
        yield Mistake("too large", ValueError, f"^{name}: expected", NO_FLOAT)
        if self.minimum is not None:
            yield Mistake("negative", ValueError, f"^{name}: expected .*got -1", -1)
        if self.positive:
            yield Mistake("zero", ValueError, f"^{name}: expected .*got 0", 0)


@dataclass(frozen=True)
class Integer(Option):
    """An integer of 64 bits."""

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        yield Mistake("float", TypeError, f"^{name}: expected .*got float", 0.5)
        yield Mistake("too large", ValueError, f"^{name}: expected at most", 2**63)


@dataclass(frozen=True)
class Flag(Option):
    choices: tuple[Any, ...] = (False, True)

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        for wrong in (2, None, "no", torch.ones(2)):
            message = f"^{name}: expected True or False, got {type(wrong).__name__}"
            yield Mistake(type(wrong).__name__, TypeError, message, wrong)


@dataclass(frozen=True)
class Generator(Option):
    """A random generator, which a sample leaves to whoever makes the call."""

    choices: tuple[Any, ...] = (None,)

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        yield Mistake("int", TypeError, f"^{name}: expected a torch.Generator, got int", 1)


@dataclass(frozen=True)
class Group(Option):
    """A process group, which tests/core/test_distributed.py covers."""

    choices: tuple[Any, ...] = (None,)

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        yield Mistake("text", TypeError, f"^{name}: expected .*got str", "WORLD")


@dataclass(frozen=True)
class Backend(Option):
    choices: tuple[Any, ...] = (None, "eager")

    def mistakes(self, name: str, value: Any, known: str) -> Iterator[Mistake]:
        yield Mistake("unknown", ValueError, f"^{name}: expected one of .*'gpu'", "gpu")
        yield Mistake("array", ValueError, f"^{name}: expected", np.array(["cpu", "eager"]))
