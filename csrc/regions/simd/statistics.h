// Region counts, means and variances in one read of the features.
#pragma once

#include "regions/simd/chunk.h"

namespace pixelkernels::regions::PK_ISA {

// One block's partial results. Sums are relative to the region's first pixel in the block, so that
// nothing cancels.
template <class A>
struct StatsPartial {
  A* shift;
  double *sums, *squares;
  int32_t* counts;

  StatsPartial(const StatsArgs& s, int64_t image, int64_t block) {
    const Input& in = s.input;
    const int64_t index = image * in.blocks + block;
    shift = static_cast<A*>(s.shift) + index * in.table();
    sums = static_cast<double*>(s.sums) + index * in.table();
    squares = static_cast<double*>(s.squares) + index * (in.regions + 1) * kLanes;
    counts = s.counts + index * (in.regions + 1);
  }
};

// Counts the chunk's pixels and lists the regions that are new to the block, with their first
// pixel.
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

template <int n>
struct Together {
  static constexpr int count = n;
};

// A run of tiles from tile t on with at most kRegions regions; returns its length. Every channel
// reads the run once for all regions, whose sums stay in registers.
template <int kRegions, class T, bool kNormalize>
__attribute__((noinline)) int accumulate_few(const Chunk& chunk, int t, const Plane<T>& plane,
                                             int64_t channel, int channels,
                                             const Accumulate<T>* inverse,
                                             const Accumulate<T>* shift, double* sums,
                                             double* squares, const int32_t* counts,
                                             int64_t regions) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const int64_t start = chunk.offsets.start[t];
  V label[kRunTiles];
  int tiles = 0;
  for (; tiles < kRunTiles && t + tiles < chunk.tiles && chunk.uniform[t + tiles] < 0 &&
         chunk.offsets.start[t + tiles] == start + tiles * kLanes;
       ++tiles)
    label[tiles] = labels_of<A>(chunk, t + tiles);
  // enough independent sums to hide the latency of the addition
  constexpr int kChannelsAtOnce = 4 / kRegions;
  V sum[kRegions][kLanes] = {}, square[kChannelsAtOnce][kRegions] = {};
  const auto run = [&](int i, auto together) __attribute__((always_inline)) {
    constexpr int n = decltype(together)::count;
    const T* p = plane.data + start + (channel + i) * plane.channel_stride;
    V total[n][kRegions] = {};
    for (int j = 0; j < tiles; ++j) {
      const V scale = kNormalize ? load(inverse + (t + j) * kLanes) : V{};
#pragma GCC unroll 4
      for (int k = 0; k < n; ++k) {
        V x = load(p + j * kLanes + k * plane.channel_stride);
        if (kNormalize) x *= scale;
#pragma GCC unroll 4
        for (int region = 0; region < kRegions; ++region) {
          const V d =
              label[j] == splat<A>(region) ? x - splat(shift[region * kLanes + i + k]) : V{};
          total[k][region] += d;
          square[k][region] += d * d;
        }
      }
    }
    for (int k = 0; k < n; ++k)
      for (int region = 0; region < kRegions; ++region) sum[region][i + k] = total[k][region];
  };
  int i = 0;
  for (; i + kChannelsAtOnce <= channels; i += kChannelsAtOnce) run(i, Together<kChannelsAtOnce>());
  for (; i < channels; ++i) run(i, Together<1>());
#pragma GCC unroll 4
  for (int k = 1; k < kChannelsAtOnce; ++k)
    for (int region = 0; region < kRegions; ++region) square[0][region] += square[k][region];
  for (int region = 0; region < kRegions && region < regions; ++region) {
    if (counts[region] == 0) continue;  // its sums have not started
    transpose(sum[region]);
    add(sums + region * kLanes, sum_rows(sum[region]));
    add(squares + region * kLanes, square[0][region]);
  }
  return tiles;
}

// One tile of one or two channels with many regions: the sums and squares of a pixel are the four
// lanes of one row, until `unfold` separates them.
template <class T, bool kNormalize>
__attribute__((noinline)) void accumulate_pair(const Chunk& chunk, int t, const Plane<T>& plane,
                                               int channels, const Accumulate<T>* inverse,
                                               const Accumulate<T>* shift, double* sums) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  typedef A Four __attribute__((vector_size(4 * sizeof(A))));
  typedef double FourDoubles __attribute__((vector_size(4 * sizeof(double))));
  const T* p = plane.data + chunk.offsets.start[t];
  V first = load(p), second = channels == 2 ? load(p + plane.channel_stride) : V{};
  if (kNormalize) {
    const V scale = load(inverse + t * kLanes);
    first *= scale;
    second *= scale;
  }
  A pairs[2 * kLanes];
  store(pairs, __builtin_shufflevector(first, second, 0, 8, 1, 9, 2, 10, 3, 11));
  store(pairs + kLanes, __builtin_shufflevector(first, second, 4, 12, 5, 13, 6, 14, 7, 15));
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; ++i) {
    const int64_t row = int64_t{chunk.label[t * kLanes + i]} * kLanes;
    const A *x = pairs + 2 * i, *about = shift + row;
    const Four d = Four{x[0], x[1], x[0], x[1]} - Four{about[0], about[1], about[0], about[1]};
    const Four both = d * Four{1, 1, d[2], d[3]};
    FourDoubles total;
    std::memcpy(&total, sums + row, sizeof total);
    total += __builtin_convertvector(both, FourDoubles);
    std::memcpy(sums + row, &total, sizeof total);
  }
}

// Separates the squares from the rows of sums of a block's regions.
inline void unfold(double* sums, double* squares, const int32_t* counts, int64_t regions) {
  for (int64_t region = 0; region < regions; ++region) {
    if (counts[region] == 0) continue;
    double *sum = sums + region * kLanes, *square = squares + region * kLanes;
    for (int i = 0; i < 2; ++i) {
      square[i] += sum[2 + i];
      sum[2 + i] = 0;
    }
  }
}

template <class T, bool kNormalize>
PK_INLINE void accumulate(const Chunk& chunk, const Plane<T>& plane, int64_t group, int channels,
                          const Accumulate<T>* inverse, const Accumulate<T>* shift, double* sums,
                          double* squares, const int32_t* counts, int64_t ignored) {
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
      const int limit = t + kRunTiles < chunk.tiles ? t + kRunTiles : chunk.tiles;
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
    if (start >= 0 && plane.pixel_stride == 1 && ignored <= kFewRegions) {
      const auto run = ignored <= 2 ? accumulate_few<2, T, kNormalize>
                                    : accumulate_few<kFewRegions, T, kNormalize>;
      t += run(chunk, t, plane, channel, channels, inverse, shift, sums, squares, counts, ignored);
      continue;
    }
    if (start >= 0 && plane.pixel_stride == 1 && channel == 0 && channels <= 2) {
      accumulate_pair<T, kNormalize>(chunk, t++, plane, channels, inverse, shift, sums);
      continue;
    }
    V x[kLanes];
    load_tile<TileRows::kPixels>(plane, start, chunk.begin + t * kLanes, chunk.pixels - t * kLanes,
                                 channel, channels, x);
    if (region >= 0) {
      const V about = load(shift + int64_t{region} * kLanes);
      V square[kLanes];
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) {
        if (kNormalize) x[i] *= splat(inverse[t * kLanes + i]);
        x[i] -= about;
        square[i] = x[i] * x[i];
      }
      add(sums + int64_t{region} * kLanes, sum_rows(x));
      add(squares + int64_t{region} * kLanes, sum_rows(square));
      ++t;
      continue;
    }
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
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  const StatsPartial<A> out(s, image, block);
  clear(out.counts, in.regions + 1);
  Chunk chunk;
  A inverse[kNormalize ? kChunkPixels : 1];
  int32_t fresh_region[kChunkPixels];
  int fresh_pixel[kChunkPixels];
  const int most = kNormalize ? twice_visited(in) : once_visited(in, plane);
  for_chunks(chunk, in, plane, image, block, most, [&] {
    const int fresh = count_pixels(chunk, out.counts, fresh_region, fresh_pixel);
    if (kNormalize) inverse_norms(chunk, plane, in, inverse);
    for (int f = 0; f < fresh; ++f)
      store(out.squares + int64_t{fresh_region[f]} * kLanes, Vec<double>{});
    for (int64_t group = 0; group < in.groups(); ++group) {
      const int64_t table = group * (in.regions + 1) * kLanes;
      const int64_t left = in.channels - group * kLanes;
      const int channels = static_cast<int>(left < kLanes ? left : kLanes);
      for (int f = 0; f < fresh; ++f) {
        const int64_t row = table + int64_t{fresh_region[f]} * kLanes;
        A first[kLanes] = {};
        if (chunk.begin + fresh_pixel[f] < in.pixels) {
          const T* p = plane.data + plane.offset(chunk.begin + fresh_pixel[f]);
          for (int c = 0; c < channels; ++c) {
            A x = scalar(p[(group * kLanes + c) * plane.channel_stride]);
            if (kNormalize) x *= inverse[fresh_pixel[f]];
            first[c] = x - x == 0 ? x : 0;  // an infinite shift would make the whole region NaN
          }
        }
        store(out.shift + row, load(first));
        store(out.sums + row, Vec<double>{});
      }
      const auto run = [&](int n) __attribute__((always_inline)) {
        accumulate<T, kNormalize>(chunk, plane, group, n, inverse, out.shift + table,
                                  out.sums + table, out.squares, out.counts, in.regions);
      };
      channels == kLanes ? run(kLanes) : run(channels);
    }
  });
  if (in.channels > 0 && in.channels <= 2) unfold(out.sums, out.squares, out.counts, in.regions);
}

// Chan's merge of a region's blocks in block order, in double.
template <class A>
void stats_merge(const StatsArgs& s, int64_t image, int64_t region) {
  using D = Vec<double>;
  const Input& in = s.input;
  const auto partial = [&](int64_t block) { return StatsPartial<A>(s, image, block); };
  int64_t count = 0;
  double spread = 0;
  for (int64_t block = 0; block < in.blocks; ++block) {
    const StatsPartial<A> p = partial(block);
    if (p.counts[region] == 0) continue;
    count += p.counts[region];
    spread += sum_lanes(load(p.squares + region * kLanes));
  }
  const int64_t out = image * in.regions + region;
  s.count[out] = count;
  A* mean = static_cast<A*>(s.mean) + out * in.channels;
  D correction = {};
  for (int64_t group = 0; group < in.groups(); ++group) {
    const int64_t row = (group * (in.regions + 1) + region) * kLanes;
    const auto offset = [&](const StatsPartial<A>& p) {
      return load(p.sums + row) / splat<double>(p.counts[region]);
    };
    const auto shift = [&](const StatsPartial<A>& p) {
      return __builtin_convertvector(load(p.shift + row), D);
    };
    // relative to the first block's shift
    D origin = {}, total = {};
    bool first = true;
    for (int64_t block = 0; block < in.blocks; ++block) {
      const StatsPartial<A> p = partial(block);
      if (p.counts[region] == 0) continue;
      if (first) origin = shift(p);
      first = false;
      total += splat<double>(p.counts[region]) * (shift(p) - origin + offset(p));
    }
    const D centre = count ? total / splat<double>(count) : D{};
    for (int64_t block = 0; block < in.blocks; ++block) {
      const StatsPartial<A> p = partial(block);
      if (p.counts[region] == 0) continue;
      const D within = offset(p), away = shift(p) - origin + within - centre;
      correction += splat<double>(p.counts[region]) * (away * away - within * within);
    }
    const D value = origin + centre;
    const int64_t channel = group * kLanes;
    for (int c = 0; c < kLanes && channel + c < in.channels; ++c)
      mean[channel + c] = static_cast<A>(value[c]);
  }
  spread += sum_lanes(correction);
  if (spread < 0) spread = 0;
  static_cast<A*>(s.variance)[out] =
      count ? static_cast<A>(spread / static_cast<double>(count)) : 0;
}

}  // namespace pixelkernels::regions::PK_ISA
