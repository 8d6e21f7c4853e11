// Region counts, means and variances in one read of the features, and their gradient in one read
// and one write.
#pragma once

#include "regions_simd.h"

namespace pixelkernels {
namespace PK_ISA {

// One block's partial results. Sums are taken about the region's first pixel in the block, so that
// they stay small beside the spread they measure and nothing cancels.
template <class A>
struct StatsPartial {
  A* shift;
  double *sums, *squares;
  int32_t* counts;

  StatsPartial(const StatsArgs& s, int64_t image, int64_t block) {
    const Regions& r = s.regions;
    const int64_t index = image * r.blocks + block;
    shift = static_cast<A*>(s.shift) + index * r.table();
    sums = static_cast<double*>(s.sums) + index * r.table();
    squares = static_cast<double*>(s.squares) + index * (r.regions + 1) * kLanes;
    counts = s.counts + index * (r.regions + 1);
  }
};

// Counts the chunk's pixels and lists the regions that the block had not met before, with their
// first pixel.
inline int count_pixels(const Chunk& chunk, int32_t* counts, int32_t* fresh_region,
                        int* fresh_pixel) {
  int fresh = 0;
  const auto count = [&](int32_t region, int pixel, int n) {
    if (counts[region] == 0) {
      fresh_region[fresh] = region;
      fresh_pixel[fresh++] = pixel;
    }
    counts[region] += n;
  };
  for (int t = 0; t < chunk.tiles; ++t) {
    const int first = t * kLanes;
    if (chunk.uniform[t] >= 0) {
      count(chunk.uniform[t], first, kLanes);
      continue;
    }
    for (int i = first; i < first + kLanes; ++i) count(chunk.label[i], i, 1);
  }
  return fresh;
}

template <class T, bool kNormalize>
PK_INLINE void accumulate(const Chunk& chunk, const Plane<T>& plane, int64_t group, int channels,
                          const Accumulate<T>* inverse, const Accumulate<T>* shift, double* sums,
                          double* squares, int64_t ignored) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const int64_t channel = group * kLanes;
  for (int t = 0; t < chunk.tiles;) {
    const int64_t start = chunk.offsets.start[t];
    const int32_t region = chunk.uniform[t];
    if (region == ignored) {
      ++t;
      continue;
    }
    if (region >= 0 && start >= 0 && plane.pixel_stride == 1) {
      // a run of tiles in one region
      const int limit = t + kRun < chunk.tiles ? t + kRun : chunk.tiles;
      V sum[kLanes] = {}, square[4] = {};
      const A* about = shift + int64_t{region} * kLanes;
      const T* p = plane.data + start + channel * plane.channel_stride;
      for (int64_t next = start;
           t < limit && chunk.uniform[t] == region && chunk.offsets.start[t] == next;
           ++t, next += kLanes, p += kLanes) {
        const V scale = kNormalize ? load(inverse + t * kLanes) : V{};
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) {
          if (i >= channels) continue;
          V x = load(p + i * plane.channel_stride);
          if (kNormalize) x *= scale;
          const V d = x - splat(about[i]);
          sum[i] += d;
          square[i & 3] += d * d;
        }
      }
      transpose(sum);
      add(sums + int64_t{region} * kLanes, sum_rows(sum));
      add(squares + int64_t{region} * kLanes, (square[0] + square[1]) + (square[2] + square[3]));
      continue;
    }
    V x[kLanes];
    load_tile<Rows::kPixels>(plane, start, chunk.begin + t * kLanes, chunk.pixels - t * kLanes,
                             channel, channels, x);
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) {
      const int pixel = t * kLanes + i;
      const int64_t row = int64_t{chunk.label[pixel]} * kLanes;
      if (kNormalize) x[i] *= splat(inverse[pixel]);
      const Vec<double> d = __builtin_convertvector(x[i] - load(shift + row), Vec<double>);
      store(sums + row, load(sums + row) + d);
      store(squares + row, load(squares + row) + d * d);
    }
    ++t;
  }
}

template <class T, bool kNormalize>
void stats_block(const StatsArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  const Regions& r = s.regions;
  const Plane<T> plane(r.features, image);
  const StatsPartial<A> out(s, image, block);
  std::memset(out.counts, 0, sizeof(int32_t) * (r.regions + 1));
  Chunk chunk;
  A inverse[kNormalize ? kChunk : 1];
  int32_t fresh_region[kChunk];
  int fresh_pixel[kChunk];
  for_chunks(chunk, r, plane, image, block, kNormalize ? twice_visited(r) : kChunk, [&] {
    const int fresh = count_pixels(chunk, out.counts, fresh_region, fresh_pixel);
    if (kNormalize) inverse_norms(chunk, plane, r, inverse);
    for (int f = 0; f < fresh; ++f)
      store(out.squares + int64_t{fresh_region[f]} * kLanes, Vec<double>{});
    for (int64_t group = 0; group < r.groups(); ++group) {
      const int64_t table = group * (r.regions + 1) * kLanes;
      const int64_t left = r.channels - group * kLanes;
      const int channels = static_cast<int>(left < kLanes ? left : kLanes);
      for (int f = 0; f < fresh; ++f) {
        const int64_t row = table + int64_t{fresh_region[f]} * kLanes;
        A first[kLanes] = {};
        if (chunk.begin + fresh_pixel[f] < r.pixels) {
          const T* p = plane.data + plane.offset(chunk.begin + fresh_pixel[f]);
          for (int c = 0; c < channels; ++c) {
            A x = scalar(p[(group * kLanes + c) * plane.channel_stride]);
            if (kNormalize) x *= inverse[fresh_pixel[f]];
            first[c] = x - x == 0 ? x : 0;  // an infinite shift would turn the whole region to NaN
          }
        }
        store(out.shift + row, load(first));
        store(out.sums + row, Vec<double>{});
      }
      const auto run = [&](int n) __attribute__((always_inline)) {
        accumulate<T, kNormalize>(chunk, plane, group, n, inverse, out.shift + table,
                                  out.sums + table, out.squares, r.regions);
      };
      channels == kLanes ? run(kLanes) : run(channels);
    }
  });
}

// Chan's merge of a region's blocks in block order, in double.
template <class A>
void stats_merge(const StatsArgs& s, int64_t image, int64_t region) {
  using D = Vec<double>;
  const Regions& r = s.regions;
  const auto partial = [&](int64_t block) { return StatsPartial<A>(s, image, block); };
  int64_t count = 0;
  double spread = 0;
  for (int64_t block = 0; block < r.blocks; ++block) {
    const StatsPartial<A> p = partial(block);
    if (p.counts[region] == 0) continue;
    count += p.counts[region];
    spread += sum_lanes(load(p.squares + region * kLanes));
  }
  const int64_t out = image * r.regions + region;
  s.count[out] = count;
  A* mean = static_cast<A*>(s.mean) + out * r.channels;
  D correction = {};
  for (int64_t group = 0; group < r.groups(); ++group) {
    const int64_t row = (group * (r.regions + 1) + region) * kLanes;
    const auto offset = [&](const StatsPartial<A>& p) {
      return load(p.sums + row) / splat<double>(p.counts[region]);
    };
    const auto shift = [&](const StatsPartial<A>& p) {
      return __builtin_convertvector(load(p.shift + row), D);
    };
    // everything is taken relative to the first block's shift
    D origin = {}, total = {};
    bool first = true;
    for (int64_t block = 0; block < r.blocks; ++block) {
      const StatsPartial<A> p = partial(block);
      if (p.counts[region] == 0) continue;
      if (first) origin = shift(p);
      first = false;
      total += splat<double>(p.counts[region]) * (shift(p) - origin + offset(p));
    }
    const D centre = count ? total / splat<double>(count) : D{};
    for (int64_t block = 0; block < r.blocks; ++block) {
      const StatsPartial<A> p = partial(block);
      if (p.counts[region] == 0) continue;
      const D within = offset(p), away = shift(p) - origin + within - centre;
      correction += splat<double>(p.counts[region]) * (away * away - within * within);
    }
    const D value = origin + centre;
    const int64_t channel = group * kLanes;
    for (int c = 0; c < kLanes && channel + c < r.channels; ++c)
      mean[channel + c] = static_cast<A>(value[c]);
  }
  spread += sum_lanes(correction);
  if (spread < 0) spread = 0;
  static_cast<A*>(s.variance)[out] =
      count ? static_cast<A>(spread / static_cast<double>(count)) : 0;
}

template <class T, bool kRead, bool kNormalize>
void stats_backward(const StatsBackwardArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Regions& r = s.regions;
  const Plane<T> plane(r.features, image), gradient(s.gradient, image);
  const A* mean = static_cast<const A*>(s.mean) + image * r.table();
  const A* offset = static_cast<const A*>(s.offset) + image * r.table();
  const A* region_scale = static_cast<const A*>(s.scale) + image * (r.regions + 1);
  Chunk chunk;
  Offsets gradient_offsets;
  A scale[kChunk], inverse[kNormalize ? kChunk : 1], along[kNormalize ? kChunk : 1];
  // the gradient in y = f * inverse, before the normalisation's own Jacobian
  const auto direct = [&](auto at, V y, const A* mean_group, const A* offset_group, int i) {
    return guarded(at.pixel(scale, i), y - at.region(mean_group, i)) + at.region(offset_group, i);
  };
  for_chunks(chunk, r, plane, image, block, kNormalize ? twice_visited(r) : kChunk, [&] {
    gradient_offsets.fill(gradient, chunk.begin, chunk.pixels);
    if (kRead)
      for (int i = 0; i < chunk.tiles * kLanes; ++i) scale[i] = region_scale[chunk.label[i]];
    if (kNormalize) {
      inverse_norms(chunk, plane, r, inverse);
      for (int i = 0; i < chunk.tiles * kLanes; ++i) along[i] = 0;
      for (int64_t group = 0; group < r.groups(); ++group) {
        const int64_t table = group * (r.regions + 1) * kLanes;
        add_over_channels(chunk, plane, group, r.channels, along, [&](auto at, V x, int i) {
          const V y = x * at.pixel(inverse, i);
          return guarded(direct(at, y, mean + table, offset + table, i), y);
        });
      }
    }
    for (int64_t group = 0; group < r.groups(); ++group) {
      const int64_t table = group * (r.regions + 1) * kLanes;
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
        store_rows(at, gradient, gradient_offsets, group, channels, x);
      };
      for_tiles<kRead>(chunk, kRead ? plane : gradient, group, r.channels, write);
    }
  });
}

}  // namespace PK_ISA
}  // namespace pixelkernels
