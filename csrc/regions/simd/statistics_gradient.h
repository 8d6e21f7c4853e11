// The gradient of region means and variances: one read of the features, one write.
#pragma once

#include "regions/simd/chunk.h"

namespace pixelkernels::regions::PK_ISA {

// The gradient in one or two channels: two pixels at a time, in vectors of four.
template <class T>
__attribute__((noinline)) void stats_backward_pair(const Chunk& chunk, const Plane<T>& plane,
                                                   const Plane<T>& gradient,
                                                   const Offsets& gradient_offsets, int channels,
                                                   const Accumulate<T>* mean,
                                                   const Accumulate<T>* offset,
                                                   const Accumulate<T>* region_scale) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  typedef A Four __attribute__((vector_size(4 * sizeof(A))));
  // the values of two pixels' regions
  const auto two = [](const A* table, int32_t one, int32_t other) __attribute__((always_inline)) {
    Four a, b;
    std::memcpy(&a, table + int64_t{one} * kLanes, sizeof a);
    std::memcpy(&b, table + int64_t{other} * kLanes, sizeof b);
    return __builtin_shufflevector(a, b, 0, 1, 4, 5);
  };
  for (int t = 0; t < chunk.tiles; ++t) {
    const int64_t from = chunk.offsets.start[t], to = gradient_offsets.start[t];
    const int32_t* label = chunk.label + t * kLanes;
    if (from < 0 || to < 0) {
      const int left = chunk.pixels - t * kLanes, pixels = left < kLanes ? left : kLanes;
      for (int i = 0; i < pixels; ++i) {
        const int64_t pixel = chunk.begin + t * kLanes + i, row = int64_t{label[i]} * kLanes;
        const A scale = region_scale[label[i]];
        for (int c = 0; c < channels; ++c) {
          const A x = scalar(plane.data[plane.offset(pixel) + c * plane.channel_stride]);
          const A part = scale == 0 ? 0 : scale * (x - mean[row + c]);
          store_scalar(gradient.data + gradient.offset(pixel) + c * gradient.channel_stride,
                       part + offset[row + c]);
        }
      }
      continue;
    }
    const T* p = plane.data + from;
    T* out = gradient.data + to;
    if (chunk.uniform[t] >= 0) {
      const int64_t row = int64_t{chunk.uniform[t]} * kLanes;
      const V scale = splat(region_scale[chunk.uniform[t]]);
      for (int c = 0; c < channels; ++c) {
        const V x = load(p + c * plane.channel_stride);
        store(out + c * gradient.channel_stride,
              guarded(scale, x - splat(mean[row + c])) + splat(offset[row + c]));
      }
      continue;
    }
    const V first = load(p), second = channels == 2 ? load(p + plane.channel_stride) : V{};
    const V pairs[2] = {__builtin_shufflevector(first, second, 0, 8, 1, 9, 2, 10, 3, 11),
                        __builtin_shufflevector(first, second, 4, 12, 5, 13, 6, 14, 7, 15)};
    Four result[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V& four_pixels = pairs[i / 2];
      const Four x = i % 2 ? __builtin_shufflevector(four_pixels, four_pixels, 4, 5, 6, 7)
                           : __builtin_shufflevector(four_pixels, four_pixels, 0, 1, 2, 3);
      const int32_t one = label[2 * i], other = label[2 * i + 1];
      const A s = region_scale[one], z = region_scale[other];
      result[i] = guarded(Four{s, s, z, z}, x - two(mean, one, other)) + two(offset, one, other);
    }
    const V low = __builtin_shufflevector(result[0], result[1], 0, 1, 2, 3, 4, 5, 6, 7),
            high = __builtin_shufflevector(result[2], result[3], 0, 1, 2, 3, 4, 5, 6, 7);
    store(out, __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14));
    if (channels == 2)
      store(out + gradient.channel_stride,
            __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15));
  }
}

template <class T, bool kRead, bool kNormalize>
void stats_backward(const StatsBackwardArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  GradientTiles<T> gradient(s.gradient, image);
  const A* mean = static_cast<const A*>(s.mean) + image * in.table();
  const A* offset = static_cast<const A*>(s.offset) + image * in.table();
  const A* region_scale = static_cast<const A*>(s.scale) + image * (in.regions + 1);
  Chunk chunk;
  A scale[kChunkPixels], inverse[kNormalize ? kChunkPixels : 1],
      along[kNormalize ? kChunkPixels : 1];
  // the gradient in y = f * inverse, before the normalisation's own Jacobian
  const auto direct = [&](auto at, V y, const A* mean_group, const A* offset_group, int i) {
    return guarded(at.pixel(scale, i), y - at.region(mean_group, i)) + at.region(offset_group, i);
  };
  const int most = kNormalize ? twice_visited(in) : once_visited(in, gradient.plane);
  for_chunks(chunk, in, plane, image, block, most, [&] {
    gradient.begin(chunk);
    if (kRead && !kNormalize && in.channels > 0 && in.channels <= 2 && in.regions > kFewRegions &&
        plane.pixel_stride == 1 && gradient.plane.pixel_stride == 1) {
      stats_backward_pair(chunk, plane, gradient.plane, gradient.offsets,
                          static_cast<int>(in.channels), mean, offset, region_scale);
      return;
    }
    if (kRead)
      for (int i = 0; i < chunk.tiles * kLanes; ++i) scale[i] = region_scale[chunk.label[i]];
    if (kNormalize) {
      inverse_norms(chunk, plane, in, inverse);
      for (int i = 0; i < chunk.tiles * kLanes; ++i) along[i] = 0;
      for (int64_t group = 0; group < in.groups(); ++group) {
        const int64_t table = group * (in.regions + 1) * kLanes;
        add_over_channels(chunk, plane, group, in.channels, along, [&](auto at, V x, int i) {
          const V y = x * at.pixel(inverse, i);
          return guarded(direct(at, y, mean + table, offset + table, i), y);
        });
      }
    }
    for (int64_t group = 0; group < in.groups(); ++group) {
      const int64_t table = group * (in.regions + 1) * kLanes;
      const auto write = [&](auto at, V* x, int channels) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) {
          if (!kRead) {
            x[i] = at.region(offset + table, i);
          } else if (!kNormalize) {
            x[i] = direct(at, x[i], mean + table, offset + table, i);
          } else {
            const V inv = at.pixel(inverse, i), y = x[i] * inv;
            const V g = direct(at, y, mean + table, offset + table, i);
            x[i] = guarded(g - guarded(at.pixel(along, i), y), inv);
          }
        }
        gradient.store(at, group, channels, x);
      };
      for_tiles<kRead, true>(chunk, kRead ? plane : gradient.plane, group, in.channels, write,
                             static_cast<int>(in.regions));
    }
  });
}

}  // namespace pixelkernels::regions::PK_ISA
