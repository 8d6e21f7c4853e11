"""Growth of time and extra memory with the number of pixels, channels, regions, points or clicks.

    python -m benchmarks.growth [--device cuda] [--only NAME]

Each series calls one function at five values of one variable. Exponents are fitted to the
measurements and compared with their theoretical bounds; the exit status is 1 if one is exceeded. A
complete run writes benchmarks/results/<machine>/scaling/scaling.json; --only runs and prints the
series whose name contains NAME.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

import pixelkernels as pk
from benchmarks import environment, measure
from benchmarks.compare import aligned
from benchmarks.inputs import SEED, Inputs, embeddings, label_map, mask
from benchmarks.ops.similarity_peers import SCALE, SHIFT
from benchmarks.run import RESULTS
from benchmarks.workload import BOTH, FORWARD

Row = dict[str, Any]
# Allowed excess of a fitted exponent: five medians are noisy on a shared machine, and the small
# sizes of a series fit in the caches.
TOLERANCE = 0.1
# MiB; the fit raises smaller memory to this: the system counts pages, including thread stacks.
RESOLUTION = 1.0
EFFORT = {
    "cpu": measure.Effort(rounds=9, seconds=2, least=3, limit=5),
    "cuda": measure.Effort(rounds=30, seconds=2),
}
# Factor on the number of images on a GPU, so that launch overhead does not dominate.
MORE_ON_CUDA = 8
SIDES = (240, 340, 480, 680, 960)
FEWER_SIDES = (120, 170, 240, 340, 480)
POINTS = (200, 400, 800, 1600, 3200)
CANVAS = (480, 480)
REGIONS, CLASSES, OBJECTS = 20, 2, 12
DEPTH = 128  # channels of matched features
SIGMOID: dict[str, Any] = {
    "transform": "sigmoid",
    "scale": SCALE,
    "shift": SHIFT,
    "reduce": "mean",
}


def _squares(sides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side**2 for side in sides)


@dataclass(frozen=True, eq=False)
class Series:
    """One function at several values of one variable.

    `draw(generator, images, value)` makes the inputs of `call(value, *tensors)`. `fixed` describes
    the other sizes. `theory` and `memory_theory` bound the exponents of time and extra memory.
    """

    name: str
    op: str
    variable: str
    fixed: str
    values: tuple[int, ...]
    draw: Callable[[Generator, int, int], Inputs]
    call: Callable[..., tuple[Tensor, ...]]
    images: int = 1
    mode: str = BOTH
    theory: float = 1
    memory_theory: float = 1

    def images_on(self, device: str) -> int:
        return self.images * (MORE_ON_CUDA if device == "cuda" else 1)

    def bind(self, value: int, device: str) -> Callable[[], object]:
        """Make the inputs for a value and return the call to time, which takes no arguments."""
        generator = Generator().manual_seed(SEED)
        drawn = self.draw(generator, self.images_on(device), value)
        inputs = drawn.to(device, torch.float32).leaves()

        def forward() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return self.call(value, *inputs.tensors)

        if self.mode == FORWARD:
            return forward
        cotangents = [torch.ones_like(output) for output in forward()]

        def both() -> tuple[Tensor, ...]:
            outputs = self.call(value, *inputs.tensors)
            return torch.autograd.grad(outputs, inputs.differentiated(), cotangents)

        return both


def _labelled(generator: Generator, images: int, side: int, channels: int, regions: int) -> Inputs:
    labels = label_map("random", generator, images, side, side, regions)
    return Inputs((embeddings(generator, labels, regions, channels), labels))


def _masks(generator: Generator, images: int, pixels: int) -> Inputs:
    side = math.isqrt(pixels)
    return Inputs((mask("coherent", generator, images, side, side, OBJECTS),), ())


def _errors(generator: Generator, images: int, pixels: int) -> Inputs:
    """Predictions that are shifted copies of their targets."""
    side = math.isqrt(pixels)
    target = label_map("coherent", generator, images, side, side, OBJECTS) < OBJECTS // 2
    return Inputs((target.roll((side // 16, side // 24), (1, 2)), target.int()), ())


def _clicks(generator: Generator, images: int, clicks: int) -> Inputs:
    """Clicks at random pixels, with alternating labels."""
    points = (torch.rand(images, clicks, 2, generator=generator) * torch.tensor(CANVAS)).floor()
    return Inputs((points, (torch.arange(clicks) % 2).repeat(images, 1)), ())


def _matched(generator: Generator, images: int, side: int, points: int) -> Inputs:
    """Frames, and the same number of reference points of each class, sorted by class."""
    frame = label_map("random", generator, images, 1, side**2, CLASSES)
    labels = torch.arange(CLASSES).repeat_interleave(points // CLASSES).repeat(images, 1)
    drawn = embeddings(generator, torch.cat((frame, labels[:, None]), 2), CLASSES, DEPTH)
    query, reference = drawn.flatten(2).split((side**2, points), 2)
    query = query.unflatten(2, (side, side)).contiguous()
    return Inputs((query, reference.contiguous(), labels), (0, 1))


def _pairs(generator: Generator, images: int, pixels: int) -> Inputs:
    labels = label_map("random", generator, images, 2, pixels, 5)
    features = embeddings(generator, labels, 5, DEPTH)
    x, y = (side.contiguous() for side in features.unbind(2))
    return Inputs((x, y, *(side.contiguous() for side in labels.unbind(1))), (0, 1))


def _stats(regions: int, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found = pk.region_stats(features, labels, regions)
    return found.mean, found.variance


def _transfer(_: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(pk.label_transfer(*tensors, CLASSES, **SIGMOID))


def _scores(_: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    return (pk.matching_scores(*tensors, CLASSES, **SIGMOID),)


SERIES: tuple[Series, ...] = (
    Series(
        name="region-stats-pixels",
        op="region_stats",
        variable="HW",
        fixed="C 16, R 20",
        values=_squares(SIDES),
        draw=lambda g, images, pixels: _labelled(g, images, math.isqrt(pixels), 16, REGIONS),
        call=lambda _, *tensors: _stats(REGIONS, *tensors),
        images=4,
    ),
    Series(
        name="region-stats-channels",
        op="region_stats",
        variable="C",
        fixed="240x240, R 20",
        values=(8, 16, 32, 64, 128),
        draw=lambda g, images, channels: _labelled(g, images, 240, channels, REGIONS),
        call=lambda _, *tensors: _stats(REGIONS, *tensors),
        images=8,
    ),
    Series(
        name="region-stats-regions",
        op="region_stats",
        variable="R",
        fixed="240x240, C 16",
        values=(8, 32, 128, 512, 2048),
        draw=lambda g, images, regions: _labelled(g, images, 240, 16, regions),
        call=_stats,
        images=4,
    ),
    Series(
        name="distance-transform-pixels",
        op="distance_transform",
        variable="HW",
        fixed="one object",
        values=_squares(SIDES),
        draw=_masks,
        call=lambda _, inside: (pk.distance_transform(inside),),
        images=8,
        mode=FORWARD,
    ),
    Series(
        name="next-click-pixels",
        op="next_click",
        variable="HW",
        fixed="shifted objects",
        values=_squares(SIDES),
        draw=_errors,
        call=lambda _, *tensors: tuple(pk.next_click(*tensors)),
        images=8,
        mode=FORWARD,
    ),
    Series(
        name="click-maps-clicks",
        op="click_maps",
        variable="n",
        fixed="480x480",
        values=(16, 64, 256, 1024, 4096),
        draw=_clicks,
        call=lambda _, *tensors: (pk.click_maps(*tensors, CANVAS),),
        images=8,
        mode=FORWARD,
    ),
    Series(
        name="label-transfer-points",
        op="label_transfer",
        variable="K",
        fixed="240x240, D 128",
        values=POINTS,
        draw=lambda g, images, points: _matched(g, images, 240, points),
        call=_transfer,
        mode=FORWARD,
    ),
    Series(
        name="label-transfer-pixels",
        op="label_transfer",
        variable="HW",
        fixed="K 400, D 128",
        values=_squares(FEWER_SIDES),
        draw=lambda g, images, pixels: _matched(g, images, math.isqrt(pixels), 400),
        call=_transfer,
        mode=FORWARD,
    ),
    Series(
        name="matching-scores-points",
        op="matching_scores",
        variable="K",
        fixed="120x120, D 128",
        values=POINTS,
        draw=lambda g, images, points: _matched(g, images, 120, points),
        call=_scores,
    ),
    Series(
        name="matching-scores-pixels",
        op="matching_scores",
        variable="HW",
        fixed="K 200, D 128",
        values=_squares(FEWER_SIDES),
        draw=lambda g, images, pixels: _matched(g, images, math.isqrt(pixels), 200),
        call=_scores,
    ),
    Series(
        name="is-triplet-loss-samples",
        op="is_triplet_loss",
        variable="K",
        fixed="448x448, C 64",
        values=(1250, 2500, 5000, 10000, 20000),
        draw=lambda g, images, _: _labelled(g, images, 448, 64, 2),
        call=lambda samples, *tensors: (pk.is_triplet_loss(*tensors, num_samples=samples),),
    ),
    Series(
        name="pair-loss-pixels",
        op="pair_similarity_loss",
        variable="HW",
        fixed="D 128",
        values=(2048, 4096, 8192, 16384, 32768),
        draw=_pairs,
        call=lambda _, *tensors: (pk.pair_similarity_loss(*tensors),),
        theory=2,
    ),
)


def measured(series: Series, device: str, advance: Callable[[], object] = lambda: None) -> Row:
    """The result of a series: a row per value, and the fitted exponents."""
    clock, rows = measure.Clock(device), []
    for value in series.values:
        call = series.bind(value, device)
        measure.warm_up(call)
        extra = measure.extra_memory(call, device)
        spread = measure.in_turn({"call": call}, clock, EFFORT[device])["call"]
        times = {"ms": spread.p50, "p20": spread.p20, "p80": spread.p80}
        rows.append({"value": value, **times, "extra_mib": extra})
        advance()
    return {
        "name": series.name,
        "op": series.op,
        "mode": series.mode,
        "variable": series.variable,
        "fixed": f"B {series.images_on(device)}, {series.fixed}",
        "theory": series.theory,
        "memory_theory": series.memory_theory,
        "rows": rows,
        **fits(rows),
    }


def fits(rows: list[Row]) -> Row:
    return {
        "exponent": exponent(rows, "ms"),
        "memory_exponent": exponent(rows, "extra_mib", least=RESOLUTION),
    }


def exponent(rows: list[Row], key: str, least: float = 0.0) -> float | None:
    """The exponent b of row[key] = a value^b, by least squares on logarithms.

    Smaller values are raised to `least`; the result is None if one is unknown.
    """
    if any(row[key] is None for row in rows):
        return None
    x = [math.log(row["value"]) for row in rows]
    y = [math.log(max(row[key], least)) for row in rows]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    square = sum((a - x_mean) ** 2 for a in x)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / square


def above(found: Row) -> list[str]:
    """A sentence for each exponent of a series above its bound."""
    pairs = {"time": ("exponent", "theory"), "extra memory": ("memory_exponent", "memory_theory")}
    return [
        f"{found['name']}: {what} grows as {found['variable']}^{found[fit]:.2f}, "
        f"in theory at most {found[theory]}"
        for what, (fit, theory) in pairs.items()
        if found[fit] is not None and found[fit] > found[theory] + TOLERANCE
    ]


def table(series: list[Row]) -> str:
    header = ["", "time ^", "theory", "memory ^", "theory", "ms", "extra MiB"]
    lines = []
    for found in series:
        memory = found["memory_exponent"]
        slopes = f"{found['exponent']:.2f}", "-" if memory is None else f"{memory:.2f}"
        theories = str(found["theory"]), str(found["memory_theory"])
        cells = [cell for pair in zip(slopes, theories, strict=True) for cell in pair]
        times = " ".join(f"{row['ms']:.3g}" for row in found["rows"])
        extra = " ".join(
            "-" if row["extra_mib"] is None else f"{row['extra_mib']:.3g}" for row in found["rows"]
        )
        lines.append([found["name"], *cells, times, extra])
    return aligned(header, lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", metavar="NAME", help="series whose name contains NAME")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    chosen = [series for series in SERIES if (options.only or "") in series.name]
    if not chosen:
        parser.error(f"--only: expected part of {', '.join(s.name for s in SERIES)}")
    facts, found = environment.describe(options.device), []
    with tqdm(total=sum(len(s.values) for s in chosen), unit="size", disable=None) as bar:
        for series in chosen:
            bar.set_postfix_str(series.name)
            found.append(measured(series, options.device, bar.update))
    print(table(found))
    if not options.only:
        path = RESULTS / environment.slug(str(facts["machine"])) / "scaling" / "scaling.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": facts, "series": found}, indent=1) + "\n")
        print(f"{path}: written; plot it with python -m benchmarks.plots")
    problems = [problem for series in found for problem in above(series)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
