"""Named tuples in saved programs."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch.utils import _pytree

T = TypeVar("T")


def serializable(cls: type[T]) -> type[T]:
    """Let torch.export.save write a named tuple, and load restore it."""
    # torch's public way also registers the class with optree, which warns of named tuples; a torch
    # without this one exports them all the same, and only refuses to save
    register = getattr(_pytree, "_register_namedtuple", None)
    if register is not None:
        register(cls, serialized_type_name=f"pixelkernels.{cls.__name__}")
    # a file also holds the example inputs, which are loaded as weights are
    torch.serialization.add_safe_globals([cls])
    return cls
