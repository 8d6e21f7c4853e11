"""The base class of modules without state."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


class OptionsModule(nn.Module):
    """Holds the keyword arguments of a function and prints those that are not the default."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def with_count(self, name: str, given: int | None) -> dict[str, Any]:
        """The options, with the number of that name from the constructor or from the call."""
        own = self.options[name]
        if own is None and given is None:
            raise TypeError(f"{name}: expected it in the constructor or in the call, got None")
        if own is not None and given is not None and own != given:
            raise ValueError(f"{name}: expected {own} as in the constructor, got {given}")
        return {**self.options, name: own if given is None else given}

    def extra_repr(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        return ", ".join(
            f"{name}={value!r}"
            for name, value in self.options.items()
            if not _same(value, parameters[name].default)
        )


def _same(value: Any, default: Any) -> bool:
    # comparing with a tensor gives a tensor
    return type(value) is type(default) and bool(value == default)
