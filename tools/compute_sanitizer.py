"""Call every kernel of a GPU backend on small inputs, for NVIDIA's compute-sanitizer.

    compute-sanitizer --tool memcheck python -m tools.compute_sanitizer [BACKEND]

The samples of the registry at their small sizes have partial tiles, labels outside the range and
ignored pixels. Empty tensors, full and empty masks are added. A failed call does not stop the
others; the exit status is then 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product

import torch

from pixelkernels._core import dispatch
from pixelkernels.testing.arguments import How, Mask
from pixelkernels.testing.op import Op
from pixelkernels.testing.samples import OPS

DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last")


def samples(op: Op, device: str) -> Iterator[How]:
    first = op.sizes.small[0]
    chosen = [How(dims, device=device) for dims in op.sizes.small]
    chosen += [How({**first, **empty}, device=device) for empty in op.sizes.empty]
    chosen += [How(first, device=device, nothing=True)]
    if any(isinstance(kind, Mask) for kind in op.arguments.values()):
        chosen += [How(first, device=device, density=density) for density in (0.02, 0.5, 1.0)]
    dtypes = DTYPES if op.differentiable else DTYPES[:1]
    for how, dtype, layout in product(chosen, dtypes, LAYOUTS):
        yield How(**{**vars(how), "dtype": dtype, "layout": layout})


def main(backend: str = "cuda") -> int:
    device = "cpu" if backend in ("cpu", "eager") else "cuda"
    failed = False
    for op in OPS.values():
        if backend not in dispatch.IMPLEMENTED[op.name]:
            continue
        for case in op.quick_cases:
            done = 0
            for how in samples(op, device):
                try:
                    op.call(case, how).results(backend)
                    if device == "cuda":
                        torch.cuda.synchronize()
                    done += 1
                except Exception as error:
                    failed = True
                    print(f"FAILED {op.name}, {case}, {how}: {type(error).__name__}: {error}")
            print(f"{op.name}, {case}: {done} calls", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
