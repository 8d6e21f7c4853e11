"""Run every operation once on every GPU backend and compare it with the float64 oracle.

    python -m tools.gpu_smoke

A failure does not stop the others, unless it breaks the CUDA context.
"""

from __future__ import annotations

import sys
import time

import torch

from pixelkernels.testing.arguments import How
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees


def main(backends: tuple[str, ...] = ("cuda", "triton"), device: str = "cuda") -> int:
    failed = 0
    for name, op in OPS.items():
        for backend in [x for x in backends if x in op.backends]:
            begin = time.perf_counter()
            try:
                call = op.call(op.quick_cases[0], How(op.sizes.small[0], device=device))
                assert_agrees(call, backend)
                if device == "cuda":
                    torch.cuda.synchronize()
                found = "ok"
            except Exception as error:
                failed += 1
                found = f"FAILED {type(error).__name__}: {error}".splitlines()[0]
            seconds = time.perf_counter() - begin
            print(f"{name:22} {backend:7} {seconds:6.1f} s  {found}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
