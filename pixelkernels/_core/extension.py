"""Loads each compiled library separately, and keeps the reason if it fails."""

from __future__ import annotations

import functools
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
    path = Path(__file__).parents[1] / "_cuda.so"
    if not path.exists():
        return "not built: there is no pixelkernels/_cuda.so in this installation"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        # torch only names the file; the loader gave the reason
        why = error.__cause__ or error
        return f"{path.name} did not load under torch {torch.__version__}: {why}"
    return ""


def _find_triton() -> str:
    # not imported: only the first Triton call needs it
    return "" if importlib.util.find_spec("triton") else "the package triton is not installed"


_C, _cpu_reason = _load_cpu()

# backend -> why this installation cannot use it on any machine; "" if it can
REASONS = {"cpu": _cpu_reason, "cuda": _load_cuda(), "triton": _find_triton(), "eager": ""}

# recorded by the build: compiler, torch, instruction sets, CUDA version and architectures
BUILD: dict[str, str] = dict(_C.build_info()) if _C is not None else {}

CUDA_ARCHITECTURES = BUILD.get("cuda_architectures", "").split()

# Triton's interpreter runs its kernels in Python, on CPU tensors
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def driver_cuda() -> str:
    """The newest CUDA version that the driver runs, such as "12.8"; "" without a driver."""
    try:
        version = torch._C._cuda_getDriverVersion()  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # torch without CUDA; a broken driver
        return ""
    return f"{version // 1000}.{version % 1000 // 10}" if version else ""


def cuda_driver_reason() -> str:
    """Why the driver cannot run the CUDA library, or "".

    The library contains the runtime of the CUDA version that built it, whichever torch uses. A
    driver runs runtimes up to its own major version.
    """
    built, driver = BUILD.get("cuda", ""), driver_cuda()
    if not built or not driver or _major(built) <= _major(driver):
        return ""
    return (
        f"the CUDA library was built with CUDA {built} (torch with {torch.version.cuda}), the "
        f"driver runs CUDA up to {driver}: a newer driver is needed, or pixelkernels built with "
        f"CUDA {_major(driver)}"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def cuda_device_reason(index: int) -> str:
    """Why the CUDA library, if it loaded, cannot run on this device, or "".

    Machine code runs on devices of its own major version and of its minor version or a later one;
    PTX runs on anything newer.
    """
    if REASONS["cuda"]:
        return ""
    # torch.compile cannot trace a query to the driver
    if not torch.compiler.is_compiling() and (reason := cuda_driver_reason()):
        return reason
    # torch.compile folds this query into a constant, unlike get_device_capability
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    for architecture in CUDA_ARCHITECTURES:
        number, _, ptx = architecture.partition("+")
        major, minor = (int(part) for part in number.split("."))
        if major == capability[0] and minor <= capability[1]:
            return ""
        if ptx and (major, minor) <= capability:
            return ""
    if not CUDA_ARCHITECTURES:
        return f"the architectures of the CUDA library are unknown: {REASONS['cpu']}"
    built = " ".join(CUDA_ARCHITECTURES)
    return f"the CUDA library was built for {built}, the device is {capability[0]}.{capability[1]}"
