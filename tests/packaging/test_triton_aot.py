"""Every Triton kernel compiled for three generations of NVIDIA GPUs, on a machine that needs none.

The launchers run on CPU tensors, and each launch becomes a compilation of what it would have run:
same signature, specialisation and constants. The machine code must fit the GPU.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from pixelkernels import testing
from tests.helpers import ROOT

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ahead of time")]
PACKAGE = ROOT / "pixelkernels"
ARCHITECTURES = (80, 90, 100)
# what a block may use without opting in to more, the same on all of them
SHARED_LIMIT = 48 * 1024
# what it may use, on the smallest of their relatives (8.6, 8.9, 12.0: 99 KiB), where it pays: two
# stages of the operands of matrix products, which tensor cores read from there
PRODUCT_LIMIT = 96 * 1024
# bytes per thread: ptxas moves a few registers to the stack to fit one more block on a processor;
# a tile that does not fit the registers needs hundreds
STACK_LIMIT = 32
# regions: every class of tile shapes (by channels), of addressing (by layout), and every dtype
INPUTS = (
    (1, torch.float32, "contiguous", torch.int64),
    (3, torch.float16, "cropped", torch.int32),
    (16, torch.bfloat16, "contiguous", torch.bool),
    (21, torch.float32, "channels_last", torch.uint8),
    (64, torch.float32, "contiguous", torch.int64),
    (70, torch.float16, "transposed", torch.int16),
    (150, torch.bfloat16, "channels_last", torch.int8),
)
# distance: multiples of 16, which loads are vectorised for, other sizes, 1, which Triton makes a
# constant, and a side too long for exact squares; in volumes also for short sites, and slices with
# more pixels than are counted in int32
SIZES = ((512, 512), (150, 333), (1, 1), (32768, 7))
VOLUMES = ((64, 64, 64), (150, 30, 31), (1, 1, 1), (3, 32768, 32768))
# similarity: channels that fit one tile and that do not, query pixels enough for tall tiles or not,
# every dtype and way of multiplying
FEATURES = (
    (128, (160, 256), torch.bfloat16, "contiguous", "highest"),
    (200, (45, 60), torch.float16, "channels_last", "highest"),
    (16, (45, 60), torch.float32, "cropped", "highest"),
    (128, (45, 60), torch.float32, "contiguous", "high"),
)
# what the similarity kernels tell apart, with metrics taking turns: (reduce, transform, k)
MODES = ((1, 0, 0), (0, 1, 0), (4, 2, 20), (2, 2, 0), (3, 1, 0), (4, 0, 100), (5, 0, 0))

# whose instructions are looked at, and which of them multiply the products again
MULTIPLY = (
    *("_scores_kernel", "_prior_kernel", "_log_sums_kernel", "_mutual_best_kernel"),
    *("_pairs_kernel", "_query_gradient_kernel", "_log_sums_gradient_kernel"),
    *("_contrast_pass_kernel", "_contrast_bank_kernel"),
)
CHAINED = MULTIPLY[4:]


class Compiled(NamedTuple):
    name: str
    constants: dict[str, Any]
    shared: int
    registers: int
    stack: int
    local: int
    # matrix instructions of those that multiply, with shapes, and how often each occurs
    instructions: Counter[str]


def launch_everything(turn):
    """Every launcher with every option that reaches a kernel.

    The architectures take turns at the inputs of regions, triplets and distances: those kernels
    multiply no matrices and differ little between them. All multiply in 16 bits and in float32; one
    of them tries every option, dtype and precision.
    """
    for channels, dtype, layout, label_dtype in INPUTS[turn :: len(ARCHITECTURES)]:
        features = testing.LAYOUTS[layout](torch.empty(2, channels, 64, 48, dtype=dtype))
        launch_regions(features, torch.zeros(2, 64, 48, dtype=label_dtype))
        launch_triplet(features)
    for spaces in (SIZES, VOLUMES):
        for space in {spaces[0], *spaces[turn :: len(ARCHITECTURES)]}:
            launch_distance(*space)
    every_option = turn == ARCHITECTURES.index(90)
    launch_similarity(*FEATURES[1], modes=MODES[:3])
    launch_similarity(*FEATURES[2], modes=MODES[:3] if every_option else MODES[:1])
    if every_option:
        launch_similarity(*FEATURES[3], modes=MODES[:3])
        launch_similarity(*FEATURES[0], modes=MODES)


def launch_regions(features, labels):
    import pixelkernels.regions.triton as regions

    count, mean, variance = regions.region_stats(features, labels, 20, False)
    for normalize in (False, True):
        regions.region_stats(features, labels, 20, normalize)
        regions.region_contrast(features, labels, mean[:, :2].contiguous(), normalize)
        for grad_mean, grad_variance in ((mean, variance), (mean, None), (None, variance)):
            regions.region_stats_backward(
                grad_mean, grad_variance, features, labels, count, mean, normalize
            )
    for norm in (1, 2):
        _, _, pull, direction = regions.region_pull(features, labels, 20, 0.5, norm)
        for grad_mean in (mean, None):
            regions.region_pull_backward(
                grad_mean, pull, features, labels, count, mean, direction, 0.5, norm
            )
        regions.region_push(mean, count > 0, 1.5, norm)
    weights = torch.empty(labels.shape)
    pooled, total = regions.weighted_mean(features, weights, 1e-5)
    regions.weighted_mean_backward(pooled, features, weights, pooled, total, 1e-5)
    regions.weighted_mean_share(pooled, features, weights, total, 1e-5)
    for squared in (False, True):
        distance, mean, total = regions.background_distance(features, weights, squared)
        regions.background_distance_backward(
            distance, features, weights, distance, mean, total, squared
        )


def launch_triplet(features):
    import pixelkernels.triplet.triton as triplet

    index = torch.zeros(2, 100, dtype=torch.int64)
    for fourth in (None, index):
        for squared in (False, True):
            sets, options = (index, index, index, fourth), (3.0, squared, 1e-6)
            hinges, distances, _ = triplet.triplet_hinges(features, *sets, *options)
            triplet.triplet_hinges_backward(hinges, features, *sets, distances, *options)


def launch_distance(*space):
    from pixelkernels.distance import ops
    from pixelkernels.distance import triton as distance

    device = "meta"  # a mask of any size takes no memory
    points = torch.empty(2, 20, len(space), device=device)
    labels = torch.zeros(2, 20, dtype=torch.int64, device=device)
    for encoding in range(len(ops.ENCODINGS)):
        distance.click_maps(points, labels, *(1, *space)[-3:], encoding, 5.0, 255.0)
    mask = torch.zeros(2, *space, dtype=torch.bool, device=device)
    for squared, row_spacing in ((True, 1.0), (False, 1.0), (False, 2.0)):
        for border in (False, True):
            distance.distance_transform(mask, squared, 1.0, row_spacing, 1.0, border)
        distance.nearest_true(mask, squared, 1.0, row_spacing, 1.0)
        # a dtype for each kind of spacing: labels are loaded and compared alone
        labels = mask.to(torch.uint8 if squared else torch.int64)
        distance.label_distance(labels, squared, 1.0, row_spacing, 1.0, squared, squared)
        distance.expand_labels(labels, 4.0, squared, 1.0, row_spacing, 1.0)


def launch_similarity(channels, size, dtype, layout, precision, modes):
    from pixelkernels.similarity import triton as similarity

    torch.set_float32_matmul_precision(precision)
    query = testing.LAYOUTS[layout](torch.empty(2, channels, *size, dtype=dtype))
    reference = testing.LAYOUTS[layout](torch.empty(2, channels, 30, 40, dtype=dtype))
    order = torch.arange(1200).expand(2, -1).contiguous()
    offsets = torch.tensor([[0, 500, 1000]] * 2)
    one, zero = torch.ones(()), torch.zeros(())
    for turn, (reduce, transform, k) in enumerate(modes):
        codes = ((turn + channels) % 3, transform, reduce, k)
        inputs = (query, reference, order, offsets, None, one, zero)
        scores, _, edge, place = similarity.matching_scores(*inputs, *codes)
        similarity.matching_scores_backward(scores, *inputs, scores, edge, place, *codes)
    # as the prior calls it
    whole, values = offsets[:, ::2].contiguous(), torch.empty(2, 1200)
    inputs = (query, reference, order, whole, values, one, zero)
    scores, _, edge, place = similarity.matching_scores(*inputs, 1, 0, 5, 0)
    similarity.matching_scores_backward(scores, *inputs, scores, edge, place, 1, 0, 5, 0)
    similarity.prior_scores(query, reference, torch.empty(2, 30, 40), 1e-7)
    x_labels, y_labels = (torch.zeros(2, n, dtype=torch.int64) for n in (query[0, 0].numel(), 1200))
    affine = torch.empty(4)
    for gradient in (False, True):
        similarity.pair_terms(query, reference, x_labels, y_labels, affine, gradient)
    sides = (query.flatten(2), reference.flatten(2))
    sums = [x.float() for x in similarity.log_sums(*sides, None, None, 0.5)]
    similarity.log_sums_backward(*sides, None, None, *sums, *sums, 0.5)
    for given in (sums, (None, None)):
        similarity.mutual_best(*sides, None, None, *given, 0.5)
    similarity.sample_ranks(offsets.diff(), offsets[0, :1], 50)
    launch_contrast(*(side[0].mT for side in sides))


def launch_contrast(anchors, bank):
    from pixelkernels.similarity import triton as similarity

    number, entries = len(anchors), len(bank)
    log_sum, weights = torch.empty(number), torch.empty(2, number)
    ranges, valid = torch.zeros(3, number, dtype=torch.int64), torch.tensor([number, entries])
    sides = (anchors.contiguous(), bank, torch.arange(entries), ranges, valid)
    for negatives in (True, False):
        for sums in (None, log_sum):
            similarity.contrast_pass(*sides, sums, 10.0, negatives, True, 384)
        similarity.contrast_bank_gradient(*sides, log_sum, weights, 10.0, negatives)
    similarity.contrast_pass(*sides, None, 10.0, True, False, 384)


def replace_launch(architecture: int, record: Callable[[Any, dict[str, Any]], None]) -> None:
    """Launches compile from now on, in this process, and `record` gets the kernel and options."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Device:
        """As much of a driver as compiling asks for."""

        def get_current_target(self):
            return GPUTarget("cuda", architecture, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        record(run(self, *args, grid=grid, warmup=True, **options), options)

    JITFunction.run = compile_only
    driver.set_active(Device())


def compile_everything(architecture: int) -> list[Compiled]:
    import triton

    kernels = {}
    replace_launch(
        architecture, lambda kernel, options: kernels.update({kernel.hash: (kernel, options)})
    )
    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        triton.knobs.cache.dir = folder
        launch_everything(ARCHITECTURES.index(architecture))
        compiled = []
        for kernel, constants in kernels.values():
            cubin = Path(folder) / "kernel.cubin"
            cubin.write_bytes(kernel.asm["cubin"])
            command = [str(dump), "--dump-resource-usage", str(cubin)]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
            numbers = map(int, usage.groups())
            instructions: Counter[str] = Counter()
            if kernel.metadata.name in MULTIPLY:
                command = [str(dump), "--dump-sass", str(cubin)]
                code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                instructions.update(re.findall(r"\b[A-Z]+MMA\b[.\w]*", code))
            about = (kernel.metadata.name, constants, kernel.metadata.shared)
            compiled.append(Compiled(*about, *numbers, instructions))
    return compiled


def sums(ttgir: str) -> tuple[str, ...]:
    """The sums over float32 tensors: axis, shape, and the distribution over threads."""
    named = dict(re.findall(r"^(#\w+) = (.*)$", ttgir, re.M))
    reduced = re.findall(r'"tt.reduce".*?axis = (\d+).*?\}\) : \(tensor<(.*?)>\) ->', ttgir, re.S)
    return tuple(
        re.sub(r"#\w+", lambda name: named.get(name[0], name[0]), f"{axis}, {operand}")
        for axis, operand in reduced
        if "xf32" in operand
    )


def sums_of_layouts() -> dict[tuple[str, str], dict[tuple[str, ...], set[str]]]:
    """Kernel and constants -> its sums -> the layouts of features that have these."""
    import triton

    def as_far_as_threads(backend, stages, options, language, capability):
        stages["llir"] = stages["ptx"] = lambda source, metadata: source

        def nothing(source, metadata):
            metadata.update(name="", shared=0, tmem_size=0)
            return b""

        stages["cubin"] = nothing

    found: dict[Any, dict[Any, set[str]]] = {}

    def record(kernel, options):
        constants = str({name: value for name, value in options.items() if name != "FLAT"})
        name = re.search(r"tt.func public @(\w+)", kernel.asm["ttgir"])[1]
        orders = found.setdefault((name, constants), {})
        orders.setdefault(sums(kernel.asm["ttgir"]), set()).add(layout)

    triton.knobs.runtime.add_stages_inspection_hook = as_far_as_threads
    replace_launch(90, record)
    with tempfile.TemporaryDirectory() as folder:
        triton.knobs.cache.dir = folder
        for layout in testing.LAYOUTS:
            launch_similarity(70, (45, 60), torch.float32, layout, "highest", modes=MODES[::5])
    return found


@pytest.fixture(scope="module")
def compilations():
    """A process per job, because each replaces Triton's launch for good."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(os.cpu_count() or 1, 3), maxtasksperchild=1) as pool:
        jobs = {a: pool.apply_async(compile_everything, (a,)) for a in ARCHITECTURES}
        yield {**jobs, "layouts": pool.apply_async(sums_of_layouts)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_and_fits(architecture, compilations):
    compiled = compilations[architecture].get(timeout=900)
    files = [path for path in PACKAGE.rglob("*.py") if "triton" in str(path.relative_to(PACKAGE))]
    source = "".join(path.read_text() for path in files)
    assert {kernel.name for kernel in compiled} == set(re.findall(r"def (_\w+_kernel)\(", source))
    for kernel in compiled:
        multiplies = "PRECISION" in kernel.constants
        assert kernel.shared <= (PRODUCT_LIMIT if multiplies else SHARED_LIMIT), kernel
        assert kernel.stack <= STACK_LIMIT, kernel
        assert kernel.local == 0, kernel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_similarities_use_the_tensor_cores(architecture, compilations):
    wanted = {80: {"HMMA"}, 90: {"HGMMA"}, 100: {"UTCHMMA"}}[architecture]
    compiled = compilations[architecture].get(timeout=900)
    kernels = [kernel for kernel in compiled if kernel.name in MULTIPLY]
    # float32 in full is no work for them
    precisions = [
        {kernel.constants.get(name, "ieee") for name in ("PRECISION", "SECOND")}
        for kernel in kernels
    ]
    assert {"ieee"} in precisions
    for kernel, precision in zip(kernels, precisions, strict=True):
        names = {instruction.split(".")[0] for instruction in kernel.instructions}
        assert names == (set() if precision == {"ieee"} else wanted), kernel


def test_no_product_is_computed_twice(compilations):
    """The multiplications of one step of the loop are those of its tiles."""
    compiled = compilations[90].get(timeout=900)
    chained = [
        kernel for kernel in compiled if kernel.name in CHAINED and kernel.constants["WHOLE"]
    ]
    counted = [kernel for kernel in chained if kernel.constants["PRECISION"] != "ieee"]
    assert {kernel.name for kernel in counted} == set(CHAINED)
    for kernel in counted:
        tile = kernel.constants
        per_warp_group = sum(
            math.prod(map(int, re.search(r"(\d+)x(\d+)x(\d+)", instruction).groups())) * times
            for instruction, times in kernel.instructions.items()
        )
        width = tile["BLOCK_D"] + (tile["CB"] if tile.get("GRADIENT", True) else 0)
        products = tile["BLOCK_Q"] * tile["BLOCK_K"] * width
        assert per_warp_group * tile["num_warps"] // 4 == products, kernel


def test_layouts_of_features_leave_the_order_of_sums(compilations):
    """So test_every_layout_gives_the_same_bits holds on a GPU."""
    compiled = compilations["layouts"].get(timeout=900)
    assert any(order for orders in compiled.values() for order in orders)
    for kernel, orders in compiled.items():
        assert len(orders) == 1, kernel
