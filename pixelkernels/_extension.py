"""Loads the compiled libraries, each on its own, and keeps the reason when one does not load."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import torch


def _load_cpu() -> tuple[Any, str]:
    try:
        return importlib.import_module("pixelkernels._C"), ""
    except ModuleNotFoundError:
        return None, "not built: there is no compiled pixelkernels._C in this installation"
    except ImportError as error:
        return None, f"pixelkernels._C did not load under torch {torch.__version__}: {error}"


def _load_cuda() -> str:
    path = Path(__file__).parent / "_cuda.so"
    if not path.exists():
        return "not built: there is no pixelkernels/_cuda.so in this installation"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path.name} did not load under torch {torch.__version__}: {error}"
    return ""


def _find_triton() -> str:
    # found, not imported: only the first Triton call needs it
    return "" if importlib.util.find_spec("triton") else "the package triton is not installed"


_C, _cpu_reason = _load_cpu()

# backend -> why this installation cannot use it on any machine, or ""
REASONS = {"cpu": _cpu_reason, "cuda": _load_cuda(), "triton": _find_triton(), "eager": ""}

# what the build recorded: compiler, torch, instruction sets, CUDA version and architectures
BUILD: dict[str, str] = dict(_C.build_info()) if _C is not None else {}

CUDA_ARCHITECTURES = BUILD.get("cuda_architectures", "").split()

# Triton's interpreter runs its kernels in Python, on CPU tensors
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def cuda_device_reason(index: int) -> str:
    """Why the CUDA library holds no code for this device, or "".

    Machine code runs on its own major version from its minor version up; PTX on anything newer.
    """
    # of the functions that tell, this is the one that torch.compile folds into a constant
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    for architecture in CUDA_ARCHITECTURES:
        number, _, ptx = architecture.partition("+")
        major, minor = (int(part) for part in number.split("."))
        if major == capability[0] and minor <= capability[1]:
            return ""
        if ptx and (major, minor) <= capability:
            return ""
    built = " ".join(CUDA_ARCHITECTURES) or "nothing"
    return f"the CUDA library was built for {built}, the device is {capability[0]}.{capability[1]}"
