"""Random calls of the public API, as plain data: what a crash leaves behind can be called again.

A call is {"name", "args", "kwargs", "valid", "module"}; tests/fuzz_values.py makes its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz_mistakes import spoil
from tests.fuzz_values import WILD

SIDES = (0, 1, 1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 40)
LONG_SIDES = (300, 700, 1500, 2049, 4097)
CHANNELS = (0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 21, 33, 70)
BATCH = (0, 1, 1, 2, 3)
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32", "uint64")
LAYOUTS = (
    *("contiguous", "contiguous", "channels_last", "transposed", "first last", "cropped"),
    *("strided", "expanded", "all expanded", "negated"),
)
ARRAYS = ("contiguous", "fortran", "reversed", "strided", "swapped", "unaligned", "broadcast")
# what numbers of regions, clicks and draws are small enough for
TINY, FEW, MANY = (1, 2, 2, 3, 5, 7), (1, 2, 3, 8, 20, 40), (1, 2, 5, 20, 100, 300, 1000)


class Drawing:
    """One call being drawn: sizes and dtypes that its arguments share."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.dtype = self.one_of("float32", "float32", "float64", "float16", "bfloat16")
        self.wild = self.one_of(False, False, False, True)
        self.batch, self.channels = self.one_of(*BATCH), self.one_of(*CHANNELS)
        self.size = [self.one_of(*SIDES), self.one_of(*SIDES)]
        if self.one_of(*[False] * 11, True):
            self.channels = min(self.channels, 9)
            self.size = [self.one_of(1, 2, 3), self.one_of(*LONG_SIDES)]

    def one_of(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def some(self, **options: tuple[Any, ...]) -> dict[str, Any]:
        """Each option or not, from its values."""
        return {
            name: self.one_of(*values)
            for name, values in options.items()
            if self.one_of(False, True)
        }

    def tensor(self, kind: str, shape: list[int], dtype: str, **facts: Any) -> dict[str, Any]:
        seed = self.draw(st.integers(0, 10**6))
        layout = self.one_of(*LAYOUTS)
        return {
            **{"kind": kind, "shape": list(shape), "dtype": dtype, "seed": seed},
            **{"layout": layout, **facts},
        }

    def features(self, *shape: int, **facts: Any) -> dict[str, Any]:
        calm = ("normal", "normal", "small", "large", "whole", "constant", "zeros", "shifted")
        facts = {"values": self.one_of(*(WILD if self.wild else calm)), **facts}
        facts["grad"] = self.one_of(False, True)
        return self.tensor("features", list(shape), self.dtype, **facts)

    def images(self, *leading: int) -> dict[str, Any]:
        return self.features(*(leading or (self.batch, self.channels)), *self.size)

    def labels(self, shape: list[int], low: int, high: int) -> dict[str, Any]:
        values = self.one_of("random", "random", "blocks", "extremes")
        dtype = self.one_of(*INTEGERS)
        return self.tensor("labels", shape, dtype, low=low, high=high, values=values)

    def mask(self, shape: list[int]) -> dict[str, Any]:
        density = self.one_of(0.0, 0.02, 0.3, 0.7, 1.0)
        values, dtype = self.one_of("plain", "odd"), self.one_of("bool", "bool", *INTEGERS)
        return self.tensor("mask", shape, dtype, density=density, values=values)

    def weights(self, shape: list[int]) -> dict[str, Any]:
        dtype = self.one_of(self.dtype, "float32", "float16", "float64")
        values, grad = self.one_of("random", "random", "zeros", "ones"), self.one_of(False, True)
        return self.tensor("weights", shape, dtype, values=values, grad=grad)

    def number(self, value: float, differentiable: bool = True) -> Any:
        """A number, or a tensor of it."""
        if self.one_of(False, True):
            return value
        grad = differentiable and self.one_of(False, True)
        return {"kind": "number", "value": value, "grad": grad}

    def generator(self) -> dict[str, Any]:
        return {"generator": self.draw(st.integers(0, 10**6))}

    @property
    def per_pixel(self) -> list[int]:
        return [self.batch, *self.size]


Parts = tuple[list[Any], dict[str, Any]]


def region_stats(d: Drawing) -> Parts:
    regions = d.one_of(*MANY)
    return [d.images(), d.labels(d.per_pixel, -2, regions + 1), regions], {}


def cas_loss(d: Drawing) -> Parts:
    regions, kwargs = d.one_of(*FEW), d.some(alpha=(0.0, 0.3, 1, -2.0))
    if d.one_of(False, False, True):
        regions = 2
        kwargs |= {"variant": "released", **d.some(divisor=(None, 40, 0.5))}
    return [d.images(), d.labels(d.per_pixel, -2, regions + 1), regions], kwargs


def metric_expression_loss(d: Drawing) -> Parts:
    kwargs = d.some(normalize=(False, True))
    kwargs |= d.one_of(
        *({}, {"form": "means"}, {"form": "pairwise"}),
        *({"mining": "hard"}, {"grad": "released"}, {"mining": "hard", "grad": "released"}),
    )
    return [d.images(), d.labels(d.per_pixel, -1, d.one_of(0, 1, 1, 1, 2))], kwargs


def discriminative_loss(d: Drawing) -> Parts:
    regions = d.one_of(*FEW)
    kwargs = d.some(
        delta_var=(0, 0.1, 2.0),
        delta_dist=(0.0, 1.5, 30.0),
        weights=([1.0, 1.0, 1e-3], {"tuple": [0.0, 1.0, 0.0]}, [2, -1, 0.5]),
        norm=(1, 2),
        reduction=("cluster", "pixel"),
        background=(None, 0, -1, 300, 2**63 - 1, -(2**63)),
    )
    return [d.images(), d.labels(d.per_pixel, -2, regions + 1), regions], kwargs


def background_distance(d: Drawing) -> Parts:
    kwargs = d.some(squared=(False, True), normalize=(None, "minmax"))
    return [d.images(), d.weights(d.per_pixel)], kwargs


def masked_average_pool(d: Drawing) -> Parts:
    kwargs = d.some(eps=(0, 1e-5, 1.0))
    if d.one_of(False, True):
        size = [d.one_of(*SIDES), d.one_of(*SIDES)]
        return [d.images(), d.weights([d.batch, *size])], {"upsample": "bilinear", **kwargs}
    return [d.images(), d.weights(d.per_pixel)], kwargs


def compact_labels(d: Drawing) -> Parts:
    kwargs = d.some(ignore=([], [0], {"tuple": [-1, 3, 2**63 - 1]}, [-(2**63)]))
    return [d.labels(d.per_pixel, -3, d.one_of(0, 5, 300))], kwargs


def clicks(d: Drawing) -> tuple[dict[str, Any], dict[str, Any], Any, dict[str, Any]]:
    count = d.one_of(0, 1, 2, 5, 9, 40)
    dtype = d.one_of("float32", "float64", "float16", "bfloat16", "int64", "uint8", "int16")
    values = d.one_of("random", "random", "far") if d.wild else "random"
    size = max(*d.size, 1)
    points = d.tensor("points", [d.batch, count, 2], dtype, size=size, values=values)
    kinds = d.tensor("labels", [d.batch, count], d.one_of(*INTEGERS), low=-1, high=1)
    encoding = d.one_of("euclidean", "disk", "tanh", "gaussian")
    kwargs = {"encoding": encoding, **d.some(truncate=(None, 0, 5, 255.0, float("inf"), 1e300))}
    if encoding != "euclidean":
        kwargs["radius"] = d.one_of(0.5, 1, 6.5, 260, 1e-30, 1e-300, 1e30, 1e300)
    return points, kinds, {"tuple": d.size}, kwargs


def click_maps(d: Drawing) -> Parts:
    points, kinds, size, kwargs = clicks(d)
    return [points, kinds, size], kwargs


TRANSFORMS = ({}, {"squared": True}, {"sampling": [0.5, 2]}, {"sampling": {"tuple": [1e-9, 3.7]}})


def distance_transform(d: Drawing) -> Parts:
    leading = d.one_of([], [d.batch], [2, d.batch], [1, 1, d.batch])
    return [d.mask([*leading, *d.size])], d.one_of(*TRANSFORMS)


def next_click(d: Drawing) -> Parts:
    kwargs = d.some(ignore_label=(-1, 0, 1, 2, 300, 2**63 - 1))
    if d.one_of(False, True):
        kwargs["not_clicked"] = d.mask(d.per_pixel)
    if d.one_of(False, True):
        kwargs |= {"random": True, "generator": d.generator()}
    return [d.mask(d.per_pixel), d.labels(d.per_pixel, -1, 2)], kwargs


def simulate_clicks(d: Drawing) -> Parts:
    kwargs = d.some(
        strategy=("background", "objects", "boundary", "mixed"),
        margin=(0, 1.5, 5, 1e300),
        spacing=(0.0, 3, 10, float("inf")),
        band=(0, 4.2, 40, float("inf")),
    )
    if d.one_of(False, True):
        kwargs["others"] = d.mask(d.per_pixel)
    counts = [d.one_of(0, 1, 3, 6), d.one_of(0, 1, 3, 6)]
    return [d.mask(d.per_pixel), *counts], {"generator": d.generator(), **kwargs}


def matching_scores(d: Drawing) -> Parts:
    classes, points = d.one_of(*FEW), d.one_of(0, 1, 2, 5, 6, 7, 13, 60, 200)
    query, reference = d.images(), d.features(d.batch, d.channels, points)
    labels = d.labels([d.batch, points], -2, classes)
    if d.one_of(False, True):
        query = d.features(d.batch, d.channels, d.one_of(0, 1, 9, 96, 97, 200))
    elif d.one_of(False, True):
        side = d.one_of(0, 1, 4, 9)
        reference = d.features(d.batch, d.channels, side, 5)
        labels = d.labels([d.batch, side, 5], -2, classes)
    reduce = d.one_of("sum", "mean", "max", "min", "topk", "softmax")
    kwargs = {
        "reduce": reduce,
        **d.some(metric=("dot", "cosine", "sqeuclidean"), transform=("identity", "sigmoid", "exp")),
        **({"k": d.one_of(1, 2, 3, 7, 64, 10**6, 2**62)} if reduce == "topk" else {}),
    }
    for name, values in (("scale", (1.0, 0.1, -0.3, 3, 0)), ("shift", (0.0, 0.5, -1))):
        if d.one_of(False, True):
            value = d.one_of(*values)
            # with a scale of 0 every point is the best, and the scale's gradient that of any
            any_point = name == "scale" and value == 0 and reduce in ("max", "min", "topk")
            kwargs[name] = d.number(value, not any_point)
    return [query, reference, labels, classes], kwargs


def sample_reference(d: Drawing) -> Parts:
    classes = d.one_of(*TINY)
    labels = d.labels(d.per_pixel, -2, classes + 1)
    return [d.images(), labels, classes, d.one_of(1, 2, 9, 200)], {"generator": d.generator()}


def prior_mask(d: Drawing) -> Parts:
    shots = d.one_of([], [1], [3])
    side = [d.one_of(0, 1, 3, 8), d.one_of(0, 1, 5, 9)]
    size = d.one_of(side, side, [d.one_of(1, 2, 7), d.one_of(1, 4, 10)])
    if size != side and 0 in side:  # nothing can be resized to nothing
        size = side
    support = d.features(d.batch, *shots, d.channels, *side)
    kwargs = d.some(
        eps=(0, 1e-7, 1.0), minmax_eps=(1e-7, 1), reduce=("max", "softmax"), normalize=(None,)
    )
    return [d.images(), support, d.weights([d.batch, *shots, *size])], kwargs


def pairs(d: Drawing) -> list[Any]:
    """Without values whose products are much larger than they differ: these lose their digits in
    float32 before there is a loss."""
    n, m = d.one_of(0, 1, 5, 64, 97, 130), d.one_of(0, 1, 2, 30, 200)
    classes, dtype = d.one_of(1, 3, 6), d.one_of("one row", "rows")
    sizes = [[n], [m]] if dtype == "one row" else [[n, 2], [1, m]]
    values = WILD if d.wild else ("normal", "small", "large", "whole", "zeros")
    features = [d.features(d.batch, d.channels, *size, values=d.one_of(*values)) for size in sizes]
    return [*features, *(d.labels([d.batch, *size], -2, classes) for size in sizes)]


def pair_similarity_loss(d: Drawing) -> Parts:
    kwargs = d.some(momentum=(0, 0.1, 1.0), eps=(1e-5, 1, 0.1))
    for name in d.one_of((), ("weight",), ("weight", "bias")):
        kwargs[name] = d.tensor("features", [1], "float32", values="normal", grad=True)
    if d.one_of(False, True):
        for name in ("running_mean", "running_var"):
            kwargs[name] = d.tensor("weights", [1], "float32", values="ones")
        kwargs["training"] = d.one_of(False, True)
    return pairs(d), kwargs


def siamese(d: Drawing) -> Parts:
    return pairs(d), d.some(affine=(False, True), track_running_stats=(False, True), eps=(1e-3,))


def sample_pixels(d: Drawing) -> Parts:
    return [d.mask(d.per_pixel), d.one_of(1, 2, 9, 100, 3000)], {"generator": d.generator()}


def hinge(d: Drawing) -> dict[str, Any]:
    return d.some(margin=(1e-3, 3, 50.0), squared=(False, True), eps=(0, 1e-6, 0.1))


def triplet_hinge(d: Drawing) -> Parts:
    rows, pixels = d.one_of(0, 1, 2, 20, 300), d.size[0] * d.size[1]
    shape, low = [d.batch, rows], d.one_of(0, -2) if pixels else -2
    dtype = d.one_of("int64", "int32", "int16")
    sets = [d.tensor("labels", shape, dtype, low=low, high=pixels - 1) for _ in range(3)]
    return [d.images(), *sets], {**hinge(d), **d.some(reduction=("mean", "sum", "none"))}


def is_triplet_loss(d: Drawing) -> Parts:
    kwargs = {**hinge(d), **d.some(num_samples=(1, 7, 300, 10**12)), "generator": d.generator()}
    return [d.images(), d.labels(d.per_pixel, -1, 2)], kwargs


def explain(d: Drawing) -> Parts:
    return ["region_stats", d.images(), d.labels(d.per_pixel, 0, 3), 3], {}


def arrays(d: Drawing, values: dict[str, Any], dtypes: tuple[str, ...]) -> dict[str, Any]:
    dtype = d.one_of(*dtypes)
    return {"array": {**values, "dtype": dtype}, "dtype": dtype, "layout": d.one_of(*ARRAYS)}


def numpy_click_maps(d: Drawing) -> Parts:
    points, kinds, size, kwargs = clicks(d)
    floats = ("float64", "float32", "float16", "int32", "uint8")
    return [arrays(d, points, floats), arrays(d, kinds, INTEGERS), size], kwargs


def numpy_distance_transform(d: Drawing) -> Parts:
    leading = d.one_of([], [d.batch], [2, d.batch])
    return [arrays(d, d.mask([*leading, *d.size]), INTEGERS)], d.one_of(*TRANSFORMS)


def numpy_next_click(d: Drawing) -> Parts:
    (prediction, target), drawn = next_click(d)
    kwargs = {name: x for name, x in drawn.items() if name not in ("random", "generator")}
    if "not_clicked" in kwargs:
        kwargs["not_clicked"] = arrays(d, kwargs["not_clicked"], INTEGERS)
    return [arrays(d, prediction, INTEGERS), arrays(d, target, INTEGERS)], kwargs


# by the names that tests/fuzz_run.py calls them by
CALLS: dict[str, Callable[[Drawing], Parts]] = {
    **{
        one.__name__: one
        for one in (
            *(region_stats, cas_loss, metric_expression_loss, discriminative_loss),
            *(background_distance, masked_average_pool, compact_labels, click_maps),
            *(distance_transform, next_click, simulate_clicks, matching_scores),
            *(sample_reference, prior_mask, pair_similarity_loss, siamese, sample_pixels),
            *(triplet_hinge, is_triplet_loss, explain),
        )
    },
    "label_transfer": matching_scores,
    "numpy.click_maps": numpy_click_maps,
    "numpy.distance_transform": numpy_distance_transform,
    "numpy.next_click": numpy_next_click,
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(CALLS)))
    drawing = Drawing(draw)
    args, kwargs = CALLS[name](drawing)
    kwargs = dict(kwargs)
    call = {"name": name, "args": args, "kwargs": kwargs, "valid": True}
    call["module"] = draw(st.sampled_from((False, False, True)))
    if not name.startswith("numpy") and name not in ("explain", "siamese"):
        kwargs |= drawing.some(backend=(None, None, "cpu", "eager"))
    return spoil(drawing, call) if draw(st.sampled_from((False, False, True))) else call
