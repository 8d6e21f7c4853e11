"""What the sweep varies: sizes, dtypes, layouts and values of each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.workload import BOTH, FORWARD
from pixelkernels.testing.arguments import Features, How, Weights
from pixelkernels.testing.inputs import LAYOUTS
from pixelkernels.testing.op import Call, Op, dims
from pixelkernels.testing.samples import OPS

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
# below the smallest normal number of each dtype, at which arithmetic would leave the fast path
SUBNORMAL = {
    torch.float32: 1e-40,
    torch.float16: 1e-6,
    torch.bfloat16: 1e-40,
    torch.float64: 1e-310,
}
Change = Callable[[Call], Call]


def changed_features(change: Callable[[Tensor], Tensor]) -> Change:
    def changed(call: Call) -> Call:
        return call.replaced(**{name: change(x) for name, x in call.named(Features).items()})

    return changed


def sprinkled(value: float) -> Callable[[Tensor], Tensor]:
    """One value in 97 replaced."""

    def change(x: Tensor) -> Tensor:
        flat = x.flatten().clone()
        flat[::97] = value
        return flat.view(x.shape)

    return change


def with_subnormal_weights(call: Call) -> Call:
    return call.replaced(**{n: x * SUBNORMAL[x.dtype] for n, x in call.named(Weights).items()})


def with_radius(radius: float) -> Change:
    def changed(call: Call) -> Call:
        return call.replaced(radius=radius) if "radius" in call.arguments else call

    return changed


VALUES: dict[str, Change] = {
    "subnormal": changed_features(lambda x: x * SUBNORMAL[x.dtype]),
    "infinite": changed_features(sprinkled(torch.inf)),
    "NaN": changed_features(sprinkled(torch.nan)),
}
WEIGHT_VALUES = VALUES | {"subnormal weights": with_subnormal_weights}
# exponentials of the scores underflow
SCORE_VALUES = VALUES | {"underflow": changed_features(lambda x: 8 * x)}


@dataclass(frozen=True)
class Plan:
    """How an operation is called: the first size in every way, the others in fewer."""

    sizes: tuple[str, ...]
    # the multiply-adds or pixels of a call, which its time should follow
    elements: Callable[[Call], int]
    values: dict[str, Change]
    layouts: tuple[str, ...] = tuple(LAYOUTS)
    dtypes: tuple[str, ...] = tuple(DTYPES)


@dataclass(frozen=True)
class Point:
    """One case of the sweep."""

    op: str
    case: str
    mode: str
    size: str
    dtype: str = "float32"
    layout: str = "contiguous"
    value: str = ""

    def call(self) -> Call:
        op = OPS[self.op]
        how = How(dims(self.size), DTYPES[self.dtype], layout=self.layout)
        call = op.call(self.case, how)
        return PLANS[self.op].values[self.value](call) if self.value else call


def first_numel(call: Call) -> int:
    return call.first.numel()


def multiply_adds(call: Call) -> int:
    """Of all pairs of positions of the two sides."""
    names = ("query", "reference"), ("query", "support"), ("x", "y"), ("a", "b")
    (one, other), *_ = (pair for pair in names if call.arguments.keys() >= set(pair))
    x, y = call.arguments[one], call.arguments[other]
    return int(x.numel() * (y.numel() // max(x.shape[0] * x.shape[1], 1)))


def contrast_multiply_adds(call: Call) -> int:
    anchors = call.arguments["anchors"]
    return int(anchors.shape[0] * call.arguments.get("bank", anchors).numel())


def map_pixels(call: Call) -> int:
    height, width = call.arguments["size"]
    return 2 * len(call.arguments["points"]) * height * width


REGION_SIZES = (
    "B2 C64 H96 W128 R20 X192 Y256",
    "B2 C1 H256 W384 R20 X128 Y192",
    "B2 C3 H256 W256 R20 X512 Y512",
    "B2 C3 H256 W256 R2 X512 Y512",
    "B2 C19 H128 W128 R300 X64 Y64",
    "B2 C256 H48 W64 R2 X96 Y128",
    "B32 C32 H37 W53 R5 X74 Y106",
    "B2 C16 H8 W4096 R20 X16 Y2048",
)
TRIPLET_SIZES = (
    "B2 C64 H96 W128 K3000 n1000",
    "B2 C1 H256 W384 K3000 n1000",
    "B2 C3 H256 W256 K3000 n1000",
    "B2 C19 H128 W128 K3000 n1000",
    "B2 C256 H48 W64 K1000 n300",
    "B32 C32 H37 W53 K300 n100",
    "B2 C16 H8 W4096 K3000 n1000",
)
PAIR_SIZES = (
    "B1 D64 H30 W40 P30 Q40 X60 Y80 L4 S1 n50",
    "B1 D1 H40 W50 P30 Q40 X60 Y80 L4 S1 n50",
    "B1 D3 H40 W50 P30 Q40 X60 Y80 L4 S1 n50",
    "B1 D384 H24 W32 P24 W32 Q32 X48 Y64 L4 S2 n50",
    "B8 D32 H13 W17 P13 Q17 X26 Y34 L4 S2 n9",
    "B1 D128 H40 W50 P1 Q5 X1 Y5 L5 S1 n1",
    "B1 D128 H40 W50 P10 Q20 X10 Y20 L70 S1 n1",
)
CONTRAST_SIZES = (
    "N1024 M4096 D64 L19",
    "N1024 M4096 D1 L19",
    "N1024 M4096 D3 L19",
    "N512 M2048 D256 L5",
    "N64 M20000 D128 L19",
    "N4096 M1024 D32 L500",
)
MATCH_SIZES = (
    "B1 D64 H30 W40 P30 Q40 K500",
    "B1 D1 H40 W50 P30 Q40 K500",
    "B1 D3 H40 W50 P30 Q40 K500",
    "B1 D384 H24 W32 P24 Q32 K300",
    "B8 D32 H13 W17 P13 Q17 K900",
    "B1 D128 H40 W50 P1 Q5 K5",
)
SAMPLE_SIZES = (
    "B2 D64 H96 W128 L5 n1000",
    "B2 D1 H256 W384 L5 n1000",
    "B2 D3 H256 W256 L5 n1000",
    "B2 D256 H48 W64 L5 n300",
    "B32 D32 H37 W53 L5 n100",
)
MASK_SIZES = (
    "B2 H320 W480 N10 P3 Q3",
    "B1 H1080 W1920 N10 P3 Q3",
    "B1 H32 W8192 N1 P3 Q3",
    "B1 H8192 W32 N1 P3 Q3",
    "B1 H320 W480 N1 P3 Q3",
    "B32 H37 W53 N10 P3 Q3",
    "B1 H512 W512 N300 P3 Q3",
    "B64 H64 W64 N2 P3 Q3",
)
# the transform of eager takes the square of a side for each line
BOUNDARY_SIZES = ("B2 C3 H128 W128", "B1 C2 H32 W1024", "B16 C2 H37 W53")
TRANSFORM_SIZES = (
    "B2 H320 W480 N10 P3 Q3",
    "B1 H32 W2048 N10 P3 Q3",
    "B1 H2048 W32 N10 P3 Q3",
    "B32 H37 W53 N10 P3 Q3",
    "B1 H512 W512 N10 P3 Q3",
    "B64 H64 W64 N10 P3 Q3",
)

PLANS: dict[str, Plan] = {
    **{
        name: Plan(REGION_SIZES, first_numel, VALUES)
        for name in ("region_stats", "cas_loss", "metric_expression_loss", "discriminative_loss")
    },
    **{
        name: Plan(REGION_SIZES, first_numel, WEIGHT_VALUES)
        for name in ("background_distance", "masked_average_pool")
    },
    "compact_labels": Plan(REGION_SIZES[:1], first_numel, {}, layouts=(), dtypes=()),
    **{
        name: Plan(TRIPLET_SIZES, first_numel, VALUES)
        for name in ("triplet_hinge", "is_triplet_loss")
    },
    "sample_pixels": Plan(TRIPLET_SIZES, first_numel, {}, layouts=(), dtypes=()),
    "matching_scores": Plan(PAIR_SIZES, multiply_adds, SCORE_VALUES),
    "label_transfer": Plan(PAIR_SIZES, multiply_adds, VALUES),
    "sample_reference": Plan(SAMPLE_SIZES, first_numel, VALUES),
    "sample_anchors": Plan(SAMPLE_SIZES, first_numel, VALUES),
    "prior_mask": Plan(PAIR_SIZES, multiply_adds, WEIGHT_VALUES),
    "pair_similarity_loss": Plan(PAIR_SIZES, multiply_adds, VALUES),
    "pixel_contrast_loss": Plan(CONTRAST_SIZES, contrast_multiply_adds, VALUES),
    "mutual_matches": Plan(MATCH_SIZES, multiply_adds, SCORE_VALUES),
    "dual_softmax_loss": Plan(MATCH_SIZES, multiply_adds, SCORE_VALUES),
    "click_maps": Plan(
        MASK_SIZES, map_pixels, {"small radius": with_radius(5.0)}, layouts=(), dtypes=()
    ),
    **{
        name: Plan(TRANSFORM_SIZES, first_numel, {}, layouts=(), dtypes=())
        for name in ("distance_transform", "expand_labels", "next_click", "simulate_clicks")
    },
    "signed_distance": Plan(BOUNDARY_SIZES, first_numel, {}, layouts=(), dtypes=()),
    **{
        name: Plan(BOUNDARY_SIZES, first_numel, VALUES)
        for name in ("boundary_loss", "hausdorff_loss")
    },
}


def points() -> Iterator[Point]:
    """All cases, without repetition."""
    return iter(dict.fromkeys(p for name, plan in PLANS.items() for p in of_op(OPS[name], plan)))


def of_op(op: Op, plan: Plan) -> Iterator[Point]:
    first = Point(op.name, op.quick_cases[0], BOTH if op.differentiable else FORWARD, plan.sizes[0])
    modes = (FORWARD, BOTH) if op.differentiable else (FORWARD,)
    for mode in modes:
        for case in op.quick_cases:
            yield replace(first, case=case, mode=mode)
        for size in plan.sizes:
            yield replace(first, size=size, mode=mode)
            if plan.layouts:
                yield replace(first, size=size, mode=mode, layout="channels_last")
    if not plan.layouts:
        for case in op.quick_cases[1:]:
            for size in plan.sizes[1:]:
                yield replace(first, case=case, size=size)
    for size in plan.sizes[::2]:
        for layout in plan.layouts[2:]:
            yield replace(first, size=size, layout=layout)
    for size in plan.sizes[:3]:
        for dtype in plan.dtypes[1:]:
            for layout in plan.layouts[:2]:
                yield replace(first, size=size, dtype=dtype, layout=layout)
    for value in plan.values:
        finite = value not in ("infinite", "NaN")
        for case in op.quick_cases if finite else op.quick_cases[:1]:
            yield replace(first, case=case, value=value)
        if plan.dtypes:
            yield replace(first, value=value, dtype="float16")
            yield replace(first, value=value, dtype="float64")
            yield replace(first, value=value, mode=FORWARD)
            yield replace(first, value=value, size=plan.sizes[2], layout="channels_last")
