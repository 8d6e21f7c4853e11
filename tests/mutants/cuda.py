"""Errors in the CUDA kernels."""

from __future__ import annotations

from . import Mutant

CLICKS = "csrc/distance/cuda/click_maps.cu"
COLUMNS = "csrc/distance/cuda/columns.cuh"
LINES = "csrc/distance/cuda/lines.cuh"
METRICS = "csrc/distance/cuda/metrics.cuh"
NEAREST = "csrc/distance/cuda/nearest.cu"
PUSH = "csrc/regions/cuda/push.cu"
MERGE = "csrc/regions/cuda/sums.cu"
SUMS = "csrc/regions/cuda/sums.cuh"
PIXELS = "csrc/regions/cuda/pixels.cuh"
GRADIENT = "csrc/regions/cuda/gradient.cu"
COMMON = "csrc/common/cuda.cuh"


def without_barriers(path: str, count: int, barrier: str = "__syncthreads();") -> list[Mutant]:
    return [Mutant("barrier dropped", path, barrier, ";", i) for i in range(count)]


MUTANTS = [
    *without_barriers(CLICKS, 3),
    *without_barriers(COLUMNS, 1),
    *without_barriers(LINES, 2),
    *without_barriers(LINES, 1, "__syncwarp();"),
    *without_barriers(PUSH, 2),
    *without_barriers(MERGE, 6),
    *without_barriers(PIXELS, 1),
    *without_barriers(SUMS, 4, "__syncwarp();"),
    *without_barriers(SUMS, 1),
    Mutant("weight of 0", GRADIENT, "state.weight != 0.0f || isfinite(sums[0])", "state.weight != 0.0f"),
    Mutant("weight of 0", GRADIENT, "state.weight != 0.0f || isfinite(sums[0])", "true"),
    Mutant("bound off by one", CLICKS, "row_of(i) >= maps.height", "row_of(i) > maps.height"),
    Mutant("bound off by one", CLICKS, "column_of(j) < maps.width", "column_of(j) <= maps.width"),
    Mutant("bound off by one", CLICKS, "group + lane < count", "group + lane <= count"),
    Mutant("bound off by one", CLICKS, "if (i < maps.clicks)", "if (i <= maps.clicks)"),
    Mutant("wrong stride", CLICKS, "(1u << lane) - 1", "(2u << lane) - 1"),
    Mutant("bound off by one", COLUMNS, "word + 1 < end && inside", "word < end && inside", 0),
    Mutant("bound off by one", COLUMNS, "r < height - row && inside", "r <= height - row && inside"),
    Mutant("bound off by one", LINES, "sites[anchor + apart] : length - 1", "sites[anchor + apart] : length - 2"),
    Mutant("tail unmasked", LINES, ": Pass::Metric::kNone;", ": 0u;"),
    Mutant("wrong stride", LINES, "sites[part + 2]", "sites[part + 1]"),
    Mutant("tail unmasked", LINES, "if (x < length) pass.write", "pass.write"),
    Mutant("tail unmasked", LINES, "if (x < length && inside)", "if (x < length)"),
    Mutant("one copy less", LINES, "turn ^= 1", "turn ^= 0"),
    Mutant("wrong tie-break", LINES, "if (cost < least) least = cost, group = q;", "if (cost <= least) least = cost, group = q;"),
    Mutant("wrong tie-break", LINES, "k = 3; k >= 0; --k", "k = 0; k < 4; ++k"),
    Mutant("wrong tie-break", METRICS, "wins ? site : ~0u", "wins ? ~site : ~0u", 0),
    Mutant("wrong tie-break", METRICS, "wins ? site : ~0u", "wins ? ~site : ~0u", 1),
    Mutant("wrong tie-break", NEAREST, "above <= below", "above < below"),
    Mutant("wrong stride", NEAREST, "(kVolumes ? 2 : 1)", "1"),
    Mutant("wrong stride", NEAREST, "int64_t{found.depth} * this->height", "int64_t{found.depth}"),
    Mutant("bound off by one", LINES, "min(x - first + 1, end - x)", "min(x - first, end - x)"),
    Mutant("tail unmasked", LINES, "q < length && changes[q] != 0", "changes[q] != 0"),
    Mutant("bound off by one", COLUMNS, "if (here >> r & 1) distance = kUp;", "if (here >> r & 1) distance = 0;"),
    Mutant("bound off by one", PUSH, "b == own || ", ""),
    Mutant("uninitialised table", PUSH, "sum[c] = 0.0f;", ";"),
    Mutant("launch", COMMON, "47 * 1024", "48 * 1024"),
    Mutant("tail unmasked", MERGE, "if (counts[k] == 0) continue;", ""),
    Mutant("wrong stride", MERGE, "row * plan.group_channels + c %", "row * a.channels + c %"),
    Mutant("tail unmasked", PIXELS, "if (Op::kWrites && active)", "if (Op::kWrites)"),
    Mutant("bound off by one", PIXELS, "if (Op::kReads && c < walk", "if (Op::kReads && c <= walk"),
    Mutant("bound off by one", PIXELS, "i >= walk.batch * size", "i > walk.batch * size"),
    Mutant("one copy less", SUMS, "__pipeline_wait_prior(ahead);", "__pipeline_wait_prior(ahead + 1);"),
    Mutant("one copy less", SUMS, "__pipeline_commit();  // an empty group", ";  // an empty group"),
    Mutant("bound off by one", SUMS, "if (pixel >= end) continue;", "if (pixel > end) continue;"),
    Mutant("bound off by one", SUMS, "channel < lanes.channels; channel +=", "channel <= lanes.channels; channel +="),
    Mutant("tail unmasked", SUMS, "if (start + i >= end) continue;", ""),
    Mutant("tail unmasked", SUMS, "if (lanes.channel >= lanes.channels) return;", ""),
    Mutant("uninitialised table", SUMS, "*(table_count(0, 0) + i) = 0;", ";"),
    Mutant("uninitialised table", SUMS, "*table_sums(r) = make_float2(0.0f, 0.0f);", ""),
    Mutant("wrong stride", SUMS, "target += (kWarp / kUnits) * kSegmentPitchBytes;", "target += (kWarp / kUnits) * kSegmentBytes;"),
    Mutant("int32 offsets", COMMON, "image * view.batch_stride", "static_cast<int>(image * view.batch_stride)"),
    Mutant("int32 offsets", SUMS, "channel * a.p.features.channel_stride;", "int(channel * a.p.features.channel_stride);"),
    # not seen: it takes a dense gradient of 2^31 numbers, each of which a fiber would write
    Mutant("int32 offsets", PIXELS, "c * walk.gradient.channel_stride", "int(c * walk.gradient.channel_stride)"),
]  # fmt: skip
