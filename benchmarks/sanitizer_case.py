"""Every kernel of one backend on tiny inputs, for compute-sanitizer: one line per operation.

    compute-sanitizer --tool memcheck python benchmarks/sanitizer_case.py [BACKEND]

Sizes are odd, so that every kernel has partial tiles; labels lie outside the range too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pixelkernels as pk

SHAPES = ((2, 3, 7, 9), (1, 17, 13, 31), (1, 70, 5, 67))
REGIONS = 5
Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


def operations() -> dict[str, Operation]:
    """From features, labels and weights to something with a gradient."""

    def stats(spread: float) -> Operation:
        def call(f: Tensor, labels: Tensor, _: Tensor) -> Tensor:
            _, mean, variance = pk.region_stats(f, labels, REGIONS)
            return mean.square().sum() + spread * variance.sum()

        return call

    return {
        "region_stats, mean alone": stats(0),
        "region_stats": stats(1),
        "cas_loss": lambda f, y, _: pk.cas_loss(f, y, REGIONS),
        "cas_loss, released": lambda f, y, _: pk.cas_loss(f, y, 2, variant="released"),
        "metric_expression_loss": lambda f, y, _: pk.metric_expression_loss(f, y),
        "metric_expression_loss, pairwise, normalised": lambda f, y, _: pk.metric_expression_loss(
            f, y, form="pairwise", normalize=True
        ),
        "metric_expression_loss, mined": lambda f, y, _: pk.metric_expression_loss(
            f, y, mining="hard"
        ),
        "metric_expression_loss, released, normalised": lambda f, y, _: pk.metric_expression_loss(
            f, y, grad="released", normalize=True
        ),
        "discriminative_loss": lambda f, y, _: pk.discriminative_loss(f, y, REGIONS),
        "discriminative_loss, norm 1, by pixel": lambda f, y, _: pk.discriminative_loss(
            f, y, REGIONS, norm=1, reduction="pixel", background=0
        ),
        "background_distance": lambda f, _, w: pk.background_distance(f, w).sum(),
        "background_distance, squared, minmax": lambda f, _, w: pk.background_distance(
            f, w, squared=True, normalize="minmax"
        ).sum(),
        "masked_average_pool": lambda f, _, w: pk.masked_average_pool(f, w).square().sum(),
    }


def inputs(device: str) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            for layout in (torch.contiguous_format, torch.channels_last):
                features = torch.randn(shape, device=device).to(dtype, memory_format=layout)
                labels = torch.randint(-1, REGIONS + 1, (shape[0], *shape[2:]), device=device)
                weights = torch.rand(labels.shape, device=device).requires_grad_()
                text = f"{list(shape)} {dtype} {layout}".replace("torch.", "")
                yield text, features.requires_grad_(), labels, weights


def main() -> int:
    backend = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    device = "cpu" if backend in ("cpu", "eager") else "cuda"
    torch.manual_seed(0)
    failed = False
    for name, operation in operations().items():
        done = 0
        for text, features, labels, weights in inputs(device):
            try:
                with pk.use_backend(backend):
                    operation(features, labels, weights).backward()
                if device == "cuda":
                    torch.cuda.synchronize()
                done += 1
            except Exception as error:  # the other operations are to be looked at all the same
                failed = True
                print(f"{name}: FAILED on {text}: {type(error).__name__}: {error}", flush=True)
        print(f"{name}: {done} cases forward and backward", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
