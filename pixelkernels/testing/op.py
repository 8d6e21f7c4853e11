"""An operation as data: its arguments, the calls that are tested, and what they promise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelkernels._core import dispatch

from .arguments import Backend, Dims, How, Kind, Mistake, TensorKind


def dims(text: str) -> Dims:
    """The size of each letter: "B2 C16" for 2 images of 16 channels."""
    return {word[0]: int(word[1:]) for word in text.split()}


class Sizes(NamedTuple):
    """The sizes that the letters of an operation's shapes stand for."""

    # a few pixels, for finite differences
    tiny: Dims
    # milliseconds under Triton's interpreter, with several tiles along each side
    small: tuple[Dims, ...]
    # several blocks, and what is left over of vectors and blocks
    ordinary: tuple[Dims, ...]
    # enough for several threads
    threads: Dims
    # the extra memory of a call shows
    large: Dims
    # sizes of 0 that leave nothing to compute from
    empty: tuple[Dims, ...] = ({"B": 0}, {"H": 0, "X": 0})
    # under Triton's interpreter, where tiny sizes are slow: a permutation of few values walks many
    # steps to stay among them
    interpreted: Dims | None = None


class Memory(NamedTuple):
    """Most bytes that a call adds to the peak: alone, and with its gradients."""

    forward: float
    both: float = 0


@dataclass(frozen=True)
class Case:
    """One way to call an operation: its options, and what holds for them."""

    options: Mapping[str, Any] = field(default_factory=dict)
    # optional tensors to make
    given: tuple[str, ...] = ()
    # kinds and sizes that differ from the operation's
    arguments: Mapping[str, Kind] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    # by output, where there is nothing to compute from; empty where that is no constant
    nothing: tuple[float, ...] | None = None
    # the same for an empty batch, where it differs
    no_images: tuple[float, ...] | None = None
    # options for finite differences; None: the gradient is not that of the value
    gradcheck: Mapping[str, Any] | None = field(default_factory=dict)
    # why rounding alone may change the result, if it may
    unstable: str = ""


@dataclass(frozen=True)
class Op:
    """A public function."""

    function: Callable[..., Any]
    # all but `backend`, which every function has
    arguments: Mapping[str, Kind]
    cases: Mapping[str, Case]
    sizes: Sizes
    # bad calls beyond those that the kinds of the arguments know: error, message, arguments
    bad: Mapping[str, tuple[type[Exception], str, Mapping[str, Any]]] = field(default_factory=dict)
    module: Callable[..., torch.nn.Module] | None = None
    # the function of NumPy arrays
    numpy: Callable[..., Any] | None = None
    # the cases that stand for all where a test is slow, the first one where it is very slow
    quick: tuple[str, ...] = ()
    # which of the options hold together: random calls take them from a case alone
    dependent: tuple[str, ...] = ()
    # the backends draw differently from one generator, or not at all
    draws: bool = False
    # the gradients in features have the strides of the features
    keeps_layout: bool = True
    # where not, torch's own operations give the gradient, which differentiate any number of times
    once_differentiable: bool = True
    # where not, it returns what a graph cannot hold
    compiles: bool = True
    # of the outputs, where there is nothing to compute from
    nothing: tuple[float, ...] = (0.0,)
    # the size of the terms that a result is a difference of, by the result's name
    terms: Callable[[Call], Mapping[str, float]] = lambda call: {}
    memory: Callable[[Call], Memory] | None = None
    # the pixels, by argument, that enter nothing: they may be NaN
    ignored: Callable[[Call], Mapping[str, Tensor]] | None = None
    # the outputs in float64, where the eager backend does not compute in it
    oracle: Callable[[Call], Any] | None = None

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def letters(self) -> set[str]:
        kinds = self.arguments.values()
        return {x for kind in kinds if isinstance(kind, TensorKind) for x in kind.shape}

    @property
    def differentiable(self) -> bool:
        return any(
            isinstance(kind, TensorKind) and kind.differentiable for kind in self.arguments.values()
        )

    @property
    def quick_cases(self) -> tuple[str, ...]:
        return self.quick or tuple(self.cases)

    @property
    def backends(self) -> tuple[str, ...]:
        return dispatch.IMPLEMENTED[self.name]

    def call(self, case: str, how: How) -> Call:
        """A call with its arguments made; `how.dims` may lack letters that the case fixes."""
        chosen = self.cases[case]
        how = replace(how, dims={**how.dims, **chosen.dims})
        made: dict[str, Any] = {}
        for seed, (name, kind) in enumerate({**self.arguments, **chosen.arguments}.items()):
            if not kind.optional or name in chosen.given:
                made[name] = kind.make(how, seed)
        return Call(self, chosen, {**made, **chosen.options}, self.function)

    def split(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those that are given by position, as to a module, and the options, as to its creation."""
        parameters = inspect.signature(self.function).parameters
        required: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for name, value in arguments.items():
            one = parameters[name]
            (options if one.kind is one.KEYWORD_ONLY else required)[name] = value
        return required, options

    def kind(self, case: Case, name: str) -> Kind:
        return case.arguments.get(name, self.arguments[name])

    def mistakes(self, how: How | None = None) -> Iterator[tuple[Mistake, Call]]:
        """Calls with one wrong argument each; without `how` of tiny sizes, and those of `bad`."""
        given = how or How(self.sizes.tiny)
        calls = {case: self.call(case, given) for case in self.cases}
        first, known = next(iter(calls.values())), ""
        for name, kind in {**self.arguments, "backend": Backend()}.items():
            # an option may be right with others alone
            call = next((one for one in calls.values() if name in one.arguments), first)
            value = call.arguments.get(name)
            if isinstance(kind, TensorKind) and not isinstance(value, Tensor):
                value = kind.make(given, 0)
            for mistake in kind.mistakes(name, value, known):
                named = mistake._replace(name=f"{name} {mistake.name}")
                yield named, call.replaced(**{name: mistake.value})
            known += kind.shape if isinstance(kind, TensorKind) else ""
        for title, (error, message, arguments) in self.bad.items() if how is None else ():
            yield Mistake(title, error, message, None), first.replaced(**arguments)


@dataclass(frozen=True)
class Call:
    """One call: the values of its arguments by name."""

    op: Op
    case: Case
    arguments: Mapping[str, Any]
    # what is called: the operation, or what stands for it
    function: Callable[..., Any]

    def replaced(self, **arguments: Any) -> Call:
        return replace(self, arguments={**self.arguments, **arguments})

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Call:
        """The call with every tensor changed."""
        return self.replaced(**{name: change(x) for name, x in self.tensors.items()})

    def through(self, function: Callable[..., Any]) -> Call:
        return replace(self, function=function)

    def double(self) -> Call:
        return self.mapped(lambda x: x.double() if x.is_floating_point() else x)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: x for name, x in self.arguments.items() if isinstance(x, Tensor)}

    @property
    def letters(self) -> set[str]:
        """Those of the shapes of its tensors."""
        kinds = (self.op.kind(self.case, name) for name in self.tensors)
        return {letter for kind in kinds if isinstance(kind, TensorKind) for letter in kind.shape}

    @property
    def first(self) -> Tensor:
        return next(iter(self.tensors.values()))

    @property
    def device(self) -> torch.device:
        return self.first.device

    def named(self, *kinds: type[Kind]) -> dict[str, Any]:
        """The arguments of these kinds."""
        return {
            name: value
            for name, value in self.arguments.items()
            if isinstance(self.op.kind(self.case, name), kinds)
        }

    @property
    def differentiable(self) -> dict[str, Tensor]:
        return {
            name: x
            for name, x in self.tensors.items()
            if (kind := self.op.kind(self.case, name)) and getattr(kind, "differentiable", False)
        }

    @property
    def buffers(self) -> dict[str, Tensor]:
        """What the call changes in place."""
        return {
            name: x
            for name, x in self.tensors.items()
            if getattr(self.op.kind(self.case, name), "buffer", False)
        }

    def generator(self) -> dict[str, torch.Generator]:
        """A fresh one in the same state, where the call draws."""
        if not self.op.draws or self.device.type == "meta":
            return {}
        return {"generator": torch.Generator(self.device).manual_seed(7)}

    def outputs(self, backend: str | None = None, **arguments: Any) -> dict[str, Tensor]:
        """What the function returns, by name, and the buffers after the call."""
        given = {**self.arguments, **{name: x.clone() for name, x in self.buffers.items()}}
        if "generator" not in arguments:
            given |= self.generator()
        given |= {"backend": backend, **arguments}
        found = named_outputs(self.function(**given))
        return {**found, **{name: given[name] for name in self.buffers}}

    def results(
        self, backend: str | None = None, alone: str | None = None, **arguments: Any
    ) -> dict[str, Tensor]:
        """The outputs, and the gradients of a weighted sum of each of them and of all: in every
        differentiable argument, or in one alone.
        """
        names = self.differentiable if alone is None else (alone,)
        leaves = {name: self.arguments[name].detach().requires_grad_() for name in names}
        outputs = self.outputs(backend, **leaves, **arguments)
        found = {name: x.detach() for name, x in outputs.items()}
        learned = {name: x for name, x in outputs.items() if x.requires_grad}
        groups = {"": learned} | {
            f" by {n}": {n: x} for n, x in learned.items() if len(learned) > 1
        }
        for title, group in groups.items():
            if group:
                gradients = torch.autograd.grad(
                    list(group.values()),
                    list(leaves.values()),
                    [cotangent(x) for x in group.values()],
                    retain_graph=len(groups) > 1,
                )
                titles = (f"gradient in {name}{title}" for name in leaves)
                found |= dict(zip(titles, gradients, strict=True))
        return found


def named_outputs(result: Any) -> dict[str, Tensor]:
    """The tensors that a function returns: by the fields of a named tuple, or numbered."""
    if isinstance(result, (Tensor, np.ndarray)):
        return {"value": torch.as_tensor(result)}
    names = getattr(result, "_fields", None) or [f"output {i}" for i in range(len(result))]
    return {name: torch.as_tensor(x) for name, x in zip(names, result, strict=True)}


def cotangent(x: Tensor) -> Tensor:
    """A weight for every element that tells it from its neighbours."""
    weights = torch.linspace(-1, 2, x.numel(), dtype=torch.float64, device=x.device)
    return weights.to(x.dtype).view(x.shape)
