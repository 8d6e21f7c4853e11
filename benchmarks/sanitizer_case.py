"""Every kernel of one backend on tiny inputs, for compute-sanitizer: one line per operation.

    compute-sanitizer --tool memcheck python benchmarks/sanitizer_case.py [BACKEND]

Sizes are odd, so that every kernel has partial tiles; labels lie outside the range too, and masks
are empty and full too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pixelkernels as pk
from pixelkernels._core.dispatch import IMPLEMENTED
from pixelkernels.distance.clicks import STRATEGIES
from pixelkernels.similarity.ops import METRICS, REDUCES, TRANSFORMS

SHAPES = ((2, 3, 7, 9), (1, 17, 13, 31), (1, 70, 5, 67))
REGIONS = 5
# images, height and width, and clicks per image
CLASSES = 3
# images, channels, query pixels, and height and width of the reference
MATCHES = ((2, 3, 63, 5, 7), (1, 17, 403, 9, 15), (1, 70, 335, 1, 129), (2, 5, 7, 0, 3))
IMAGES = ((2, 7, 9, 3), (1, 13, 131, 70), (3, 67, 5, 0), (1, 1, 1, 1))
Operation = Callable[..., Any]
# what the inputs are, and the inputs
Inputs = Iterator[tuple[str, tuple[Tensor, ...]]]


def regions() -> dict[str, Operation]:
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


def regions_inputs(device: str) -> Inputs:
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            for layout in (torch.contiguous_format, torch.channels_last):
                features = torch.randn(shape, device=device).to(dtype, memory_format=layout)
                labels = torch.randint(-1, REGIONS + 1, (shape[0], *shape[2:]), device=device)
                weights = torch.rand(labels.shape, device=device).requires_grad_()
                text = f"{list(shape)} {dtype} {layout}".replace("torch.", "")
                yield text, (features.requires_grad_(), labels, weights)


def distance() -> dict[str, Operation]:
    """From a mask, points and labels of clicks."""

    def maps(**options: Any) -> Operation:
        return lambda mask, points, y: pk.click_maps(points, y, mask.shape[1:], **options)

    def clicks(strategy: str) -> Operation:
        return lambda mask, *_: pk.simulate_clicks(
            mask, 3, 4, others=mask.flip(2), strategy=strategy, margin=1, spacing=2, band=9
        )

    return {
        "click_maps, euclidean": maps(),
        "click_maps, euclidean, not truncated": maps(truncate=None),
        "click_maps, disk": maps(encoding="disk", radius=2.5),
        "click_maps, tanh": maps(encoding="tanh", radius=5),
        "click_maps, gaussian": maps(encoding="gaussian", radius=3),
        "distance_transform": lambda mask, *_: pk.distance_transform(mask),
        "distance_transform, squared": lambda mask, *_: pk.distance_transform(mask, squared=True),
        "distance_transform, sampling": lambda mask, *_: pk.distance_transform(
            mask, sampling=(2, 0.7)
        ),
        "next_click": lambda mask, *_: pk.next_click(mask, mask.roll(2, 2)),
        "next_click, not clicked": lambda mask, *_: pk.next_click(
            mask, mask.int().roll(1, 1) - 1, not_clicked=mask.flip(1)
        ),
        **{f"simulate_clicks, {name}": clicks(name) for name in STRATEGIES},
    }


def distance_inputs(device: str) -> Inputs:
    """Clicks lie between pixels and outside the image too."""
    for *shape, clicks in IMAGES:
        sides = torch.tensor(shape[1:], device=device)
        points = (3 * torch.rand(shape[0], clicks, 2, device=device) - 1) * sides
        labels = torch.randint(-1, 2, points.shape[:2], device=device)
        for share in (0, 0.02, 0.5, 1):
            mask = torch.rand(shape, device=device) < share
            yield f"{shape} {clicks} clicks, {share:.0%} True", (mask, points, labels)


def similarity() -> dict[str, Operation]:
    """From queries, reference points, their labels and weights, a scale and a shift."""

    def match(**options: Any) -> Operation:
        if options["reduce"] == "topk":
            options["k"] = 5
        return lambda q, r, y, _, a, b: pk.matching_scores(
            q, r, y, CLASSES, scale=a, shift=b, **options
        ).sum()

    def transfer(q: Tensor, r: Tensor, y: Tensor, *_: Tensor) -> Tensor:
        return pk.label_transfer(q, r, y, CLASSES, reduce="max").scores.sum()

    def prior(**options: Any) -> Operation:
        return lambda q, r, _, w, *__: pk.prior_mask(q[..., None], r, w, **options).sum()

    def sample(q: Tensor, r: Tensor, y: Tensor, *_: Tensor) -> Tensor:
        return pk.sample_reference(r, y, CLASSES, 11)[0].square().sum()

    def pairs(q: Tensor, r: Tensor, y: Tensor, _: Tensor, a: Tensor, b: Tensor) -> Tensor:
        own = torch.arange(q.shape[2], device=q.device).expand(len(q), -1) % CLASSES - 1
        return pk.pair_similarity_loss(q, r, own, y, weight=a, bias=b)

    return {
        **{
            f"matching_scores, {metric}, {transform}, {reduce}": match(
                metric=metric, transform=transform, reduce=reduce
            )
            for metric in METRICS
            for transform in TRANSFORMS
            for reduce in REDUCES
        },
        "label_transfer": transfer,
        "prior_mask": prior(),
        "prior_mask, as it is": prior(normalize=None),
        "prior_mask, softmax": prior(reduce="softmax"),
        "sample_reference": sample,
        "pair_similarity_loss": pairs,
    }


def similarity_inputs(device: str) -> Inputs:
    """Of the weights some are 0, and of the labels one class is missing."""
    for dtype in (torch.float32, torch.bfloat16):
        for images, channels, pixels, *sides in MATCHES:
            query = torch.randn(images, channels, pixels, device=device).to(dtype)
            reference = torch.randn(images, channels, *sides, device=device).to(dtype)
            labels = torch.randint(-1, CLASSES - 1, (images, *sides), device=device)
            weights = torch.rand(labels.shape, device=device) * (labels != 0)
            numbers = (torch.tensor(value, device=device) for value in (0.3, -0.1))
            floats = (query, reference, weights, *numbers)
            query, reference, weights, scale, shift = (t.requires_grad_() for t in floats)
            text = f"{[images, channels, pixels]} {sides} {dtype}".replace("torch.", "")
            yield text, (query, reference, labels, weights, scale, shift)


def triplet() -> dict[str, Operation]:
    """From features, a mask and three sets of pixels."""

    def hinge(**options: Any) -> Operation:
        return lambda f, _, *sets: pk.triplet_hinge(f, *sets, reduction="sum", **options)

    return {
        "triplet_hinge": hinge(),
        "triplet_hinge, squared": hinge(squared=True),
        "is_triplet_loss": lambda f, mask, *_: pk.is_triplet_loss(f, mask, num_samples=37),
        "sample_pixels": lambda _, mask, *__: pk.sample_pixels(mask, 200),
    }


def triplet_inputs(device: str) -> Inputs:
    """Of the rows some are absent, and some pixels are in many."""
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            features = torch.randn(shape, device=device).to(dtype).requires_grad_()
            pixels = shape[2] * shape[3]
            sets = torch.randint(-3, pixels, (3, shape[0], 41), device=device)
            sets[0, :, :9] = 5
            for share in (0, 0.5, 1):
                mask = torch.rand(shape[0], *shape[2:], device=device) < share
                yield f"{shape} {dtype} {share:.0%} True", (features, mask, *sets)


def main() -> int:
    backend = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    device = "cpu" if backend in ("cpu", "eager") else "cuda"
    torch.manual_seed(0)
    failed = False
    families = [(regions(), regions_inputs), (distance(), distance_inputs)]
    if backend in IMPLEMENTED["matching_scores"]:
        families += [(similarity(), similarity_inputs), (triplet(), triplet_inputs)]
    for family, inputs in families:
        for name, operation in family.items():
            done = 0
            for text, tensors in inputs(device):
                try:
                    with pk.use_backend(backend):
                        result = operation(*tensors)
                        if isinstance(result, Tensor) and result.requires_grad:
                            result.backward()
                    if device == "cuda":
                        torch.cuda.synchronize()
                    done += 1
                except Exception as error:  # the other operations are to be looked at all the same
                    failed = True
                    print(f"{name}: FAILED on {text}: {type(error).__name__}: {error}", flush=True)
            print(f"{name}: {done} cases", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
