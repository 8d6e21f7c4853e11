// Walking over all pixels and channels, for what is decided pixel by pixel: sums over the channels,
// dense gradients.
//
// An Op says what happens. It has
//   kReads, kWrites   whether it takes the features, whether it gives a gradient
//   kSums             how many sums over the channels each pixel wants
//   State             what it keeps for a pixel, with a member `region`, -1 for an ignored pixel
//   begin(image, first, states), for pixels first, first + 1, ... of the image, all of them or none
//   inside it step(state, x, entry, sums) -> gradient, for one channel; entry is the region's table
//   entry there finish(image, pixel, state, sums)
// Planar features have the lanes over pixels, interleaved ones over channels, with 16-byte accesses
// where all rows allow.
#pragma once

#include "regions/cuda/weights.cuh"

namespace pixelkernels::regions::cuda {

constexpr int kPixelThreads = 256;
constexpr int kAccessesAhead = 4;  // loads of a thread in flight

struct PixelWalk {
  View features, gradient;
  int64_t batch;
  int channels, pixels;
  int regions;
  const float2* table;  // [B, C, R] for planar walks, [B, R, C] for interleaved ones; null: zeros
  bool interleaved, vectors;
};

// The regions of pixels first, first + 1, ..., -1 outside the image.
template <int N>
__device__ inline void regions_of(const Pixels& p, int64_t image, int first, int (&out)[N]) {
  load_regions(p.labels, p.label, image * p.pixels + first, 1, (image + 1) * p.pixels, p.regions,
               out);
}

__device__ inline float2 table_entry(const float2* table, int64_t i) {
  return table ? __ldg(table + i) : make_float2(0.0f, 0.0f);
}

template <class T>
__device__ inline T* pixel_data(const View& view, int64_t image, int pixel, int pixels) {
  return image_data<T>(view, image) + pixel_offset(view, pixel, pixels);
}

template <class T, int V>
__device__ inline Raw<T, V> load_raw(const T* from) {
  if constexpr (V == 1)
    return *from;
  else
    return __ldcs(reinterpret_cast<const uint4*>(
        from));  // read once, so it should not displace the tables in the cache
}

template <class T, int V>
__device__ inline void store_values(T* to, const float (&values)[V]) {
  *reinterpret_cast<Raw<T, V>*>(to) = pack<T, V>(values);
}

// A block takes 32 * V pixels; its warps share the channels.
template <class Op, class T, int V>
__global__ void __launch_bounds__(kPixelThreads)
    planar_pixels_kernel(const PixelWalk walk, const Op op) {
  constexpr int kSums = Op::kSums > 0 ? Op::kSums : 1;
  const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
  const int64_t tiles = (walk.pixels + kWarp * V - 1) / (kWarp * V);
  const int64_t image = blockIdx.x / tiles;
  const int first = static_cast<int>(blockIdx.x % tiles) * kWarp * V + lane * V;
  const bool active = first < walk.pixels;

  typename Op::State state[V];
  op.begin(image, first, state);
  bool same = true;
#pragma unroll
  for (int v = 1; v < V; ++v) same = same && state[v].region == state[0].region;
  same = __all_sync(kWholeWarp, same);
  float sums[V][kSums] = {};
  const int at = active ? first : 0;
  const T* source =
      Op::kReads ? pixel_data<const T>(walk.features, image, at, walk.pixels) : nullptr;
  T* target = Op::kWrites ? pixel_data<T>(walk.gradient, image, at, walk.pixels) : nullptr;
  const float2* table = walk.table ? walk.table + image * walk.channels * walk.regions : nullptr;

  for (int base = warp; base < walk.channels; base += kAccessesAhead * warps) {
    Raw<T, V> raw[kAccessesAhead] = {};
#pragma unroll
    for (int k = 0; k < kAccessesAhead; ++k) {
      const int64_t c = base + k * warps;
      if (Op::kReads && active && c < walk.channels)
        raw[k] = load_raw<T, V>(source + c * walk.features.channel_stride);
    }
#pragma unroll
    for (int k = 0; k < kAccessesAhead; ++k) {
      const int64_t c = base + k * warps;
      if (c >= walk.channels) break;
      float x[V], gradient[V];
      unpack<T, V>(raw[k], x);
      if (same) {  // of the lane's pixels; the same in all lanes of the warp
        const float2 entry = table_entry(table, c * walk.regions + max(state[0].region, 0));
#pragma unroll
        for (int v = 0; v < V; ++v) gradient[v] = op.step(state[v], x[v], entry, sums[v]);
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const float2 entry = table_entry(table, c * walk.regions + max(state[v].region, 0));
          gradient[v] = op.step(state[v], x[v], entry, sums[v]);
        }
      }
      if (Op::kWrites && active)
        store_values<T, V>(target + c * walk.gradient.channel_stride, gradient);
    }
  }

  if constexpr (Op::kSums > 0) {
    // [warp][sum][v][lane]: adjacent lanes
    extern __shared__ uint4 shared[];
    float* parts = reinterpret_cast<float*>(shared);
    const auto offset = [&](int w, int s, int v) {
      return ((w * kSums + s) * V + v) * kWarp + lane;
    };
#pragma unroll
    for (int v = 0; v < V; ++v)
#pragma unroll
      for (int s = 0; s < kSums; ++s) parts[offset(warp, s, v)] = sums[v][s];
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (v % warps != warp || !active) continue;
      float total[kSums] = {};
      for (int w = 0; w < warps; ++w)
#pragma unroll
        for (int s = 0; s < kSums; ++s) total[s] += parts[offset(w, s, v)];
      op.finish(image, first + v, state[v], total);
    }
  }
}

// `lanes` lanes (a power of two) handle a pixel, V channels each at a time.
template <class Op, class T, int V>
__global__ void __launch_bounds__(kPixelThreads, 3)
    interleaved_pixels_kernel(const PixelWalk walk, const Op op, const int lanes) {
  constexpr int kSums = Op::kSums > 0 ? Op::kSums : 1;
  const int per_block = kPixelThreads / lanes, lane = threadIdx.x & (lanes - 1);
  const int64_t blocks = (walk.pixels + per_block - 1) / per_block;
  const int64_t image = blockIdx.x / blocks;
  const int64_t pixel = blockIdx.x % blocks * per_block + threadIdx.x / lanes;
  const bool active = pixel < walk.pixels;
  const int at = active ? static_cast<int>(pixel) : 0;

  typename Op::State states[1];
  op.begin(image, active ? at : walk.pixels, states);
  const typename Op::State state = states[0];
  float sums[kSums] = {};
  const T* source =
      Op::kReads ? pixel_data<const T>(walk.features, image, at, walk.pixels) : nullptr;
  T* target = Op::kWrites ? pixel_data<T>(walk.gradient, image, at, walk.pixels) : nullptr;
  const float2* table =
      walk.table ? walk.table + (image * walk.regions + max(state.region, 0)) * walk.channels
                 : nullptr;

  for (int base = lane * V; active && base < walk.channels; base += kAccessesAhead * lanes * V) {
    Raw<T, V> raw[kAccessesAhead] = {};
#pragma unroll
    for (int k = 0; k < kAccessesAhead; ++k) {
      const int64_t c = base + k * lanes * V;
      if (Op::kReads && c < walk.channels)
        raw[k] = load_raw<T, V>(source + c * walk.features.channel_stride);
    }
#pragma unroll
    for (int k = 0; k < kAccessesAhead; ++k) {
      const int64_t c = base + k * lanes * V;
      if (c >= walk.channels) break;
      float x[V], gradient[V];
      unpack<T, V>(raw[k], x);
#pragma unroll
      for (int v = 0; v < V; ++v)
        gradient[v] = op.step(state, x[v], table_entry(table, c + v), sums);
      if (Op::kWrites) store_values<T, V>(target + c * walk.gradient.channel_stride, gradient);
    }
  }

  if constexpr (Op::kSums > 0) {
    for (int apart = lanes / 2; apart > 0; apart /= 2)
#pragma unroll
      for (int s = 0; s < kSums; ++s) sums[s] += __shfl_xor_sync(kWholeWarp, sums[s], apart);
    if (lane == 0 && active) op.finish(image, at, state, sums);
  }
}

// Table entry (r, c) of every image, from Op's entry(image, region, channel).
template <class Op>
__global__ void __launch_bounds__(kPixelThreads)
    table_kernel(const Op op, const PixelWalk walk, float2* table) {
  const int64_t i = blockIdx.x * int64_t{kPixelThreads} + threadIdx.x;
  const int64_t size = int64_t{walk.regions} * walk.channels;
  if (i >= walk.batch * size) return;
  const int64_t image = i / size, within = i % size;
  const int64_t region = walk.interleaved ? within / walk.channels : within % walk.regions;
  const int64_t channel = walk.interleaved ? within % walk.channels : within / walk.regions;
  table[i] = op.entry(image, region, channel);
}

// ---- launching ----

// The order of the walk: that of the features if they are read, else that of the gradient.
// `gradient` may be null.
inline PixelWalk walk_of(const Pixels& p, const View* gradient, bool reads) {
  PixelWalk walk = {};
  const View none = {};
  walk.features = reads ? p.features : none;
  walk.gradient = gradient ? *gradient : none;
  walk.batch = p.batch;
  walk.channels = p.channels;
  walk.pixels = p.pixels;
  walk.regions = p.regions;
  const View& lead = reads ? p.features : *gradient;
  walk.interleaved = p.channels > 1 && lead.channel_stride < lead.pixel_stride;
  const int64_t bytes = p.element == Element::kFloat ? 4 : 2;
  walk.vectors = true;
  const auto require = [&](const View& view) {
    const Alignment aligned(view, bytes, p.channels, p.pixels);
    walk.vectors = walk.vectors && (walk.interleaved ? aligned.channels : aligned.pixels);
  };
  if (reads) require(p.features);
  if (gradient) require(*gradient);
  return walk;
}

template <class Op>
void make_table(const Device& device, PixelWalk& walk, const Op& op) {
  const int64_t size = walk.batch * walk.regions * walk.channels;
  float2* table = device.workspace<float2>(size);
  launch(device, table_kernel<Op>, ceil_div(size, kPixelThreads), dim3(kPixelThreads), 0, op, walk,
         table);
  walk.table = table;
}

template <class T, int V, class Op>
void launch_walk(const Device& device, const PixelWalk& walk, const Op& op) {
  if (walk.interleaved) {
    // at least 64 bytes of a pixel, then several accesses per lane
    int lanes = 1;
    while (lanes < kWarp && lanes * V < walk.channels &&
           (lanes < 4 || lanes * V * kAccessesAhead < walk.channels))
      lanes *= 2;
    const int64_t blocks = walk.batch * ceil_div(walk.pixels, kPixelThreads / lanes);
    launch(device, interleaved_pixels_kernel<Op, T, V>, blocks, dim3(kPixelThreads), 0, walk, op,
           lanes);
  } else {
    const int64_t blocks = walk.batch * ceil_div(walk.pixels, kWarp * V);
    // at least eight channels per warp, fewer where too few warps would fill the device
    int warps = 1;
    const auto worthwhile = [&] {
      return walk.channels >= 16 * warps || blocks * warps < 16 * device.multiprocessors();
    };
    while (warps < kPixelThreads / kWarp && warps < walk.channels && worthwhile()) warps *= 2;
    const int64_t shared = int64_t{warps} * Op::kSums * V * kWarp * sizeof(float);
    launch(device, planar_pixels_kernel<Op, T, V>, blocks, dim3(kWarp, warps), shared, walk, op);
  }
}

template <class Op>
void launch_pixels(const Device& device, Element element, const PixelWalk& walk, const Op& op) {
  with_element(element, [&](auto zero) {
    using T = decltype(zero);
    if (walk.vectors)
      launch_walk<T, kVector<T>>(device, walk, op);
    else
      launch_walk<T, 1>(device, walk, op);
  });
}

// Both kinds of table entries below have the region's mean and one more value.
struct MeanTable {
  const float* mean;  // [B, R, C]
  int64_t regions, channels;
  bool other_mean;  // the second value: the mean of the other of two regions, or 0

  __device__ float2 entry(int64_t image, int64_t region, int64_t channel) const {
    const float* row = mean + (image * regions + region) * channels + channel;
    return make_float2(*row, other_mean ? row[(1 - 2 * region) * channels] : 0.0f);
  }
};

}  // namespace pixelkernels::regions::cuda
