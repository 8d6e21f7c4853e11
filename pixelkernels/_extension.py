"""Loads the compiled libraries, each on its own, and keeps the reason when one does not load."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).parent


@functools.cache
def cpu_library() -> tuple[Any, str]:
    """The `_C` module, or None and the reason why it did not load."""
    try:
        return importlib.import_module("pixelkernels._C"), ""
    except ModuleNotFoundError:
        return None, "not built: no compiled pixelkernels._C in this installation"
    except ImportError as error:
        return None, f"pixelkernels._C did not load under torch {torch.__version__}: {error}"


@functools.cache
def cuda_library() -> tuple[Path | None, str]:
    """The path of the loaded CUDA library, or None and the reason why it did not load."""
    path = _PACKAGE / "_cuda.so"
    if not path.exists():
        return None, "not built: no pixelkernels/_cuda.so in this installation"
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is a build without CUDA"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return None, f"{path.name} did not load under torch {torch.__version__}: {error}"
    return path, ""


@functools.cache
def triton_module() -> tuple[bool, str]:
    """Whether Triton can be imported, found out without importing it."""
    if importlib.util.find_spec("triton") is None:
        return False, "the package triton is not installed"
    return True, ""


def triton_interpreted() -> bool:
    """True where Triton runs its kernels in the Python interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def build_info() -> dict[str, str]:
    """What the build recorded: compiler, torch target, instruction sets, CUDA version and architectures."""
    library, _ = cpu_library()
    return dict(library.build_info()) if library is not None else {}


def cuda_architectures() -> list[str]:
    """The architectures that the CUDA library holds machine code (8.0) or PTX (12.0+PTX) for."""
    return build_info().get("cuda_architectures", "").split()


def cuda_runs_on(capability: tuple[int, int]) -> bool:
    """Machine code runs on its own major version from its minor version up; PTX on anything newer."""
    for architecture in cuda_architectures():
        number, _, ptx = architecture.partition("+")
        major, minor = (int(part) for part in number.split("."))
        if (major == capability[0] and minor <= capability[1]) or (
            ptx and (major, minor) <= capability
        ):
            return True
    return False
