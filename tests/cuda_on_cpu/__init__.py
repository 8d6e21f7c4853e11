"""The CUDA kernels and their host code on CPU tensors, executed by an emulator of a GPU.

The variable CUDA_ON_CPU names a variant of `build.VARIANTS`: the process then runs the tests of
backend "cuda", and no others. `python -m tests.cuda_on_cpu` builds and runs all variants.
"""

from __future__ import annotations

import ctypes
import os
import zlib

import torch

from pixelkernels._core import dispatch, extension

from .build import library

VARIANT = os.environ.get("CUDA_ON_CPU", "")


class Emulator:
    """The operators of backend "cuda" for CPU tensors."""

    def __init__(self) -> None:
        path = str(library(VARIANT))
        torch.ops.load_library(path)
        self._library = ctypes.CDLL(path)
        served = dispatch._device_type
        dispatch._device_type = lambda backend, device: (
            "cpu" if backend == "cuda" else served(backend, device)
        )
        extension.cuda_device_reason = lambda index: ""

    def seed(self, name: str) -> None:
        """Order blocks, warps and lanes as always in the test of this name."""
        self._library.emulator_seed(ctypes.c_uint64(zlib.crc32(name.encode())))
