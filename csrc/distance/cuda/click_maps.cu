// Maps of the distance to the nearest click. The cost should be that of the writes: a block drops
// the clicks that are too far away to be nearest to any pixel of its tile, then each warp those too
// far from its part of the tile, so few are left per pixel. A tile lies in one slice: one depth of
// one map.
#include <algorithm>
#include <cfloat>

#include "distance/cuda/kernels.cuh"

namespace pixelkernels::distance::cuda {
namespace {

// A lane computes 4 x 4 pixels; a warp is 8 lanes wide and 4 lanes high.
constexpr int kClickWarps = 8, kClickThreads = kClickWarps * kWarp;
constexpr int kLaneSide = 4, kLanesAcross = 8, kLanesDown = kWarp / kLanesAcross;
constexpr int kWarpRows = kLanesDown * kLaneSide, kWarpColumns = kLanesAcross * kLaneSide;
constexpr int kWarpsAcross = 4;
constexpr int kTileRows = kWarpRows * (kClickWarps / kWarpsAcross),
              kTileColumns = kWarpColumns * kWarpsAcross;

// Without fused multiply-add, so that the squares have the bits of the other backends.
__device__ inline float square(float x) { return __fmul_rn(x, x); }

// A click as a slice sees it: its place, and its squared distance along the depth. Padded to 16
// bytes, that of volumes would take more than the 64 registers with which four blocks fit.
template <int kAxes>
struct Click;
template <>
struct alignas(8) Click<2> {
  float row, column;
};
template <>
struct Click<3> {
  float row, column, across;
};

template <int kAxes>
__device__ inline Click<kAxes> click_at(const float* points, int64_t i, float depth) {
  if constexpr (kAxes == 2) {
    const float2 point = reinterpret_cast<const float2*>(points)[i];
    return {point.x, point.y};
  } else {
    const float* point = points + 3 * i;
    return {point[1], point[2], square(depth - point[0])};
  }
}

// The squared distance along all axes but the columns.
__device__ inline float squared_to_row(float row, Click<2> click) {
  return square(row - click.row);
}
__device__ inline float squared_to_row(float row, Click<3> click) {
  return __fadd_rn(click.across, square(row - click.row));
}

// A rectangle of pixels: its centre and half its diagonal.
struct Area {
  float row, column, half_diagonal;

  __device__ Area(int first_row, int first_column, int rows, int columns)
      : row(first_row + 0.5f * (rows - 1)),
        column(first_column + 0.5f * (columns - 1)),
        half_diagonal(0.5f * sqrtf(square(rows - 1) + square(columns - 1))) {}

  // NaN for a click with a NaN coordinate: minima and comparisons drop it.
  template <int kAxes>
  __device__ float to(Click<kAxes> click) const {
    return __fadd_rn(squared_to_row(row, click), square(column - click.column));
  }

  // The largest squared distance from the centre at which a click can be nearest to a pixel: by the
  // triangle inequality, the distance of the nearest click plus the whole diagonal. The 1e-5
  // exceeds the rounding of both sides. An infinitely far click is dropped: it is as far as no
  // click.
  __device__ float reach(float nearest) const {
    const float distance = (sqrtf(nearest) + 2.0f * half_diagonal) * (1.0f + 1e-5f);
    return fminf(distance * distance, FLT_MAX);
  }
};

// For values >= 0, whose order is that of their bits.
__device__ inline float warp_min(float value) {
  return __uint_as_float(__reduce_min_sync(kWholeWarp, __float_as_uint(value)));
}

template <int N>
__device__ inline void encode(Encoding encoding, float parameter, float (&values)[N]) {
  switch (encoding) {
    case Encoding::kEuclidean:
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = fminf(sqrtf(values[i]), parameter);
      return;
    case Encoding::kDisk:
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = values[i] <= parameter ? 1.0f : 0.0f;
      return;
    case Encoding::kTanh:
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = tanhf(sqrtf(values[i]) * parameter);
      return;
    case Encoding::kGaussian:
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = expf(values[i] * parameter);
  }
}

template <int V>
using Floats = std::conditional_t<V == 4, float4, std::conditional_t<V == 2, float2, float>>;

// A lane's columns are those of kLaneSide / V stores of V values, so that the stores of a warp are
// adjacent; V divides the width.
template <int kAxes, int V>
__global__ void __launch_bounds__(kClickThreads)
    click_maps_kernel(const ClickMaps maps, const unsigned tiles, const unsigned tiles_across,
                      float* out) {
  using Site = Click<kAxes>;
  __shared__ Site kept[kClickThreads];
  __shared__ float nearest_of[kClickWarps];
  __shared__ int kept_by[kClickWarps];
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const unsigned slice = blockIdx.x / tiles, tile_index = blockIdx.x % tiles;
  const int tile_row = tile_index / tiles_across * kTileRows,
            tile_column = tile_index % tiles_across * kTileColumns;
  const int warp_row = tile_row + warp / kWarpsAcross * kWarpRows,
            warp_column = tile_column + warp % kWarpsAcross * kWarpColumns;
  const Area tile(tile_row, tile_column, kTileRows, kTileColumns);
  const Area own(warp_row, warp_column, kWarpRows, kWarpColumns);

  unsigned map = slice;
  float depth = 0.0f;
  if constexpr (kAxes == 3) {
    map = slice / static_cast<unsigned>(maps.depth);
    depth = static_cast<float>(slice % static_cast<unsigned>(maps.depth));
  }
  const int64_t first = int64_t{map / 2} * maps.clicks;
  const int64_t label = map % 2 == 0;
  const auto click = [&](int64_t i) {
    Site s = {INFINITY, INFINITY};
    if (i < maps.clicks) {
      s = click_at<kAxes>(maps.points, first + i, depth);  // in flight with the label
      if (maps.labels[first + i] != label) s.row = INFINITY;
    }
    return s;
  };
  float nearest = INFINITY;
  for (int64_t i = thread; i < maps.clicks; i += kClickThreads)
    nearest = fminf(nearest, tile.to(click(i)));
  nearest = warp_min(nearest);
  if (lane == 0) nearest_of[warp] = nearest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kClickWarps; ++w) nearest = fminf(nearest, nearest_of[w]);
  const float tile_reach = tile.reach(nearest);

  const int lane_row = warp_row + lane / kLanesAcross,
            lane_column = warp_column + lane % kLanesAcross * V;
  const auto row_of = [&](int i) { return lane_row + i * kLanesDown; };
  const auto column_of = [&](int j) { return lane_column + j / V * (kLanesAcross * V) + j % V; };
  const bool inside = warp_row < maps.height && warp_column < maps.width;
  float squares[kLaneSide * kLaneSide];
#pragma unroll
  for (float& value : squares) value = INFINITY;
  float own_nearest = INFINITY;
  for (int64_t base = 0; base < maps.clicks; base += kClickThreads) {
    const Site candidate = click(base + thread);
    const bool keep = tile.to(candidate) <= tile_reach;
    const unsigned keeping = __ballot_sync(kWholeWarp, keep);
    if (lane == 0) kept_by[warp] = __popc(keeping);
    __syncthreads();
    int count = 0, slot = __popc(keeping & ((1u << lane) - 1));
#pragma unroll
    for (int w = 0; w < kClickWarps; ++w) {
      slot += w < warp ? kept_by[w] : 0;
      count += kept_by[w];
    }
    if (keep) kept[slot] = candidate;
    __syncthreads();
    if (!inside) continue;

    for (int i = lane; i < count; i += kWarp) own_nearest = fminf(own_nearest, own.to(kept[i]));
    own_nearest = warp_min(own_nearest);
    const float own_reach = own.reach(own_nearest);
    for (int group = 0; group < count; group += kWarp) {
      const bool near = group + lane < count && own.to(kept[group + lane]) <= own_reach;
      for (unsigned left = __ballot_sync(kWholeWarp, near); left != 0; left &= left - 1) {
        const Site s = kept[group + __ffs(left) - 1];
        float aside[kLaneSide];
#pragma unroll
        for (int j = 0; j < kLaneSide; ++j) aside[j] = square(column_of(j) - s.column);
#pragma unroll
        for (int i = 0; i < kLaneSide; ++i) {
          const float down = squared_to_row(row_of(i), s);
#pragma unroll
          for (int j = 0; j < kLaneSide; ++j)
            squares[i * kLaneSide + j] =
                fminf(squares[i * kLaneSide + j], __fadd_rn(down, aside[j]));
        }
      }
    }
  }

  encode(maps.encoding, maps.parameter, squares);
#pragma unroll
  for (int i = 0; i < kLaneSide; ++i) {
    if (row_of(i) >= maps.height) return;
    float* row = out + (int64_t{slice} * maps.height + row_of(i)) * maps.width;
#pragma unroll
    for (int j = 0; j < kLaneSide; j += V) {
      Floats<V> values;
      memcpy(&values, squares + i * kLaneSide + j, sizeof values);
      if (column_of(j) < maps.width) *reinterpret_cast<Floats<V>*>(row + column_of(j)) = values;
    }
  }
}

}  // namespace

float click_parameter(Encoding encoding, double radius, double truncate) {
  const auto finite = [](double x) {
    return static_cast<float>(std::min(std::max(x, double{FLT_MIN}), double{FLT_MAX}));
  };
  switch (encoding) {
    case Encoding::kEuclidean:
      return static_cast<float>(truncate);
    case Encoding::kDisk:
      return static_cast<float>(std::min(radius * radius, double{FLT_MAX}));
    case Encoding::kTanh:
      return finite(2.0 / radius);
    case Encoding::kGaussian:
      return -finite(0.5 / (radius * radius));
  }
  throw std::runtime_error("pixelkernels: unexpected encoding of clicks");
}

void click_maps(const Device& device, const ClickMaps& maps, float* out) {
  const int64_t tiles_wide = ceil_div(maps.width, kTileColumns);
  const int64_t tiles = tiles_wide * ceil_div(maps.height, kTileRows);
  const auto run = [&](auto kernel) {
    launch(device, kernel, maps.batch * 2 * maps.depth * tiles, dim3(kClickThreads), 0, maps,
           static_cast<unsigned>(tiles), static_cast<unsigned>(tiles_wide), out);
  };
  const auto run_axes = [&](auto axes) {
    constexpr int kAxes = axes;
    if (maps.width % 4 == 0)
      run(click_maps_kernel<kAxes, 4>);
    else if (maps.width % 2 == 0)
      run(click_maps_kernel<kAxes, 2>);
    else
      run(click_maps_kernel<kAxes, 1>);
  };
  if (maps.volumes)
    run_axes(std::integral_constant<int, 3>());
  else
    run_axes(std::integral_constant<int, 2>());
}

}  // namespace pixelkernels::distance::cuda
