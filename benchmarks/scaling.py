"""How time and memory of the loss over all pairs grow with the pixels of the images.

    python benchmarks/scaling.py [--device cuda] [--plot]

Measures and writes benchmarks/results/<machine>/scaling/pair-loss.json, and draws it beside;
--plot only draws what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pixelkernels as pk
from benchmarks import environment, measure
from benchmarks.inputs import SEED, embeddings, label_map
from benchmarks.run import RESULTS

CHANNELS = 128
# of an image: the last is the paper's 240 x 427
PIXELS = (8192, 16384, 32768, 65536, 102480)
# where a call takes seconds
FEW = measure.Effort(rounds=5, seconds=5, least=1, limit=5)


def points(device: str, dtype: torch.dtype) -> list[dict[str, float]]:
    """Milliseconds and extra MiB of one forward and backward pass, and the inputs' MiB."""
    clock, found = measure.Clock(device), []
    for pixels in tqdm(PIXELS, unit="size", disable=None):
        generator = torch.Generator().manual_seed(SEED)
        labels = label_map("random", generator, 1, 2, pixels, 5)
        drawn = embeddings(generator, labels, 5, CHANNELS).to(device, dtype)
        x, y = (side.contiguous().requires_grad_() for side in drawn.unbind(2))
        own, other = (side.contiguous().to(device) for side in labels.unbind(1))

        def call(x=x, y=y, own=own, other=other):
            return torch.autograd.grad(pk.pair_similarity_loss(x, y, own, other), (x, y))

        if pixels == PIXELS[0]:
            measure.warm_up(call)
        extra = measure.extra_memory(call, device)
        spread = measure.in_turn({"call": call}, clock, FEW)["call"]
        inputs = (x.nbytes + y.nbytes) / measure.MIB
        found.append({"pixels": pixels, "ms": spread.p50, "extra_mib": extra, "input_mib": inputs})
    return found


def exponent(rows: list[dict[str, float]], key: str) -> float:
    """b of key = a pixels^b, by least squares on logarithms."""
    x, y = ([math.log(row[name]) for row in rows] for name in ("pixels", key))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    square = sum((a - x_mean) ** 2 for a in x)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / square


def draw(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    content: dict[str, Any] = json.loads(path.read_text())
    rows = content["rows"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    pixels = [row["pixels"] for row in rows]
    left.loglog(pixels, [row["ms"] / 1e3 for row in rows], "o-")
    left.set(
        title=f"time ~ pixels^{exponent(rows, 'ms'):.2f}", ylabel="seconds, forward and backward"
    )
    right.loglog(pixels, [row["extra_mib"] for row in rows], "o-", label="extra memory")
    right.loglog(pixels, [row["input_mib"] for row in rows], "o--", label="inputs")
    right.set(title=f"extra memory ~ pixels^{exponent(rows, 'extra_mib'):.2f}", ylabel="MiB")
    right.legend()
    for axes in (left, right):
        axes.set_xlabel("pixels of each image")
        axes.grid(which="both", alpha=0.3)
    facts = content["environment"]
    figure.suptitle(f"loss over all pairs, D {CHANNELS}, {facts['machine']}")
    for form in (".png", ".svg"):
        figure.savefig(path.with_suffix(form), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--plot", action="store_true", help="measure nothing")
    options = parser.parse_args()
    facts = environment.describe(options.device)
    folder = RESULTS / environment.slug(str(facts["machine"])) / "scaling"
    path = folder / "pair-loss.json"
    if not options.plot:
        dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
        rows = points(options.device, dtype)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"environment": facts, "dtype": str(dtype), "rows": rows}
        path.write_text(json.dumps(content, indent=1) + "\n")
    draw(path)
    for row in json.loads(path.read_text())["rows"]:
        print(", ".join(f"{name} {value:.6g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
