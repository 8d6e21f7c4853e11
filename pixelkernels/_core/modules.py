"""The base class of modules without state."""

from __future__ import annotations

from typing import Any

from torch import nn


class OptionsModule(nn.Module):
    """Holds the keyword arguments of a function and prints them."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
