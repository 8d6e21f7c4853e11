// Shared by the regions kernels: the labels of a chunk of pixels, rows of tables by label, and
// per-pixel sums over the channels.
#pragma once

#include <cmath>

#include "common/tiles.h"
#include "regions/kernels.h"

namespace pixelkernels::regions::PK_ISA {

using namespace pixelkernels::PK_ISA;

struct Chunk {
  int64_t begin;
  int pixels, tiles;
  int32_t label[kChunkPixels];   // the region, or R where ignored or past the end
  int32_t uniform[kChunkTiles];  // the common label of the eight pixels of a tile, else -1
  Offsets offsets;
};

template <class L>
PK_INLINE void read_labels(const void* labels, int64_t begin, int pixels, int64_t regions,
                           int32_t* out) {
  const L* in = static_cast<const L*>(labels) + begin;
  for (int i = 0; i < pixels; ++i) {
    const uint64_t label = static_cast<uint64_t>(static_cast<int64_t>(in[i]));
    out[i] = static_cast<int32_t>(label < static_cast<uint64_t>(regions) ? label : regions);
  }
}

template <class T>
void prepare(Chunk& chunk, const Input& in, const Plane<T>& plane, int64_t image, int64_t begin,
             int pixels) {
  const int64_t first = image * in.pixels + begin;
  chunk.begin = begin;
  chunk.pixels = pixels;
  chunk.tiles = (pixels + kLanes - 1) / kLanes;
  switch (in.label) {
    case Label::kUInt8:
      read_labels<uint8_t>(in.labels, first, pixels, in.regions, chunk.label);
      break;
    case Label::kInt8:
      read_labels<int8_t>(in.labels, first, pixels, in.regions, chunk.label);
      break;
    case Label::kInt16:
      read_labels<int16_t>(in.labels, first, pixels, in.regions, chunk.label);
      break;
    case Label::kInt32:
      read_labels<int32_t>(in.labels, first, pixels, in.regions, chunk.label);
      break;
    case Label::kInt64:
      read_labels<int64_t>(in.labels, first, pixels, in.regions, chunk.label);
      break;
    case Label::kNone:
      std::memset(chunk.label, 0, sizeof(int32_t) * pixels);
      break;
  }
  for (int i = pixels; i < chunk.tiles * kLanes; ++i)
    chunk.label[i] = static_cast<int32_t>(in.regions);
  chunk.offsets.fill(plane, begin, pixels);
  for (int t = 0; t < chunk.tiles; ++t) {
    const int32_t* label = chunk.label + t * kLanes;
    uint32_t differ = 0;
    for (int i = 1; i < kLanes; ++i) differ |= static_cast<uint32_t>(label[i] ^ label[0]);
    chunk.uniform[t] = differ == 0 ? label[0] : -1;
  }
}

// the labels of a tile as floats, for comparisons
template <class A>
PK_INLINE Vec<A> labels_of(const Chunk& chunk, int tile) {
  I32 label;
  std::memcpy(&label, chunk.label + tile * kLanes, sizeof label);
  return __builtin_convertvector(label, Vec<A>);
}

// Kernels that read the features of a chunk twice keep it within the L2 cache.
inline int twice_visited(const Input& in) {
  const int64_t pixels = 65536 / (in.channels + 1) / kLanes * kLanes;
  return static_cast<int>(pixels < 256 ? 256 : pixels > kChunkPixels ? kChunkPixels : pixels);
}
// So do those that read it once, if channels are interleaved: the groups share cache lines.
template <class T>
int once_visited(const Input& in, const Plane<T>& plane) {
  return plane.pixel_stride == 1 ? kChunkPixels : twice_visited(in);
}

template <class T, class Visit>
PK_INLINE void for_chunks(Chunk& chunk, const Input& in, const Plane<T>& plane, int64_t image,
                          int64_t block, int chunk_pixels, Visit visit) {
  const int64_t end = block + 1 == in.blocks ? in.pixels : (block + 1) * in.block_pixels;
  for (int64_t begin = block * in.block_pixels; begin < end; begin += chunk_pixels) {
    const int64_t left = end - begin;
    prepare(chunk, in, plane, image, begin,
            static_cast<int>(left < chunk_pixels ? left : chunk_pixels));
    visit();
  }
}

// Tiles whose sums may stay in registers: few enough for sums in float.
constexpr int kRunTiles = 16;

// Sums over many pixels are in double: float sums would lose digits of the means.
template <class V>
PK_INLINE void add(double* row, V v) {
  store(row, load(row) + __builtin_convertvector(v, Vec<double>));
}

// Gives the rows of a tile their values, in either layout of the tile.
template <TileRows rows>
struct Cursor {
  static constexpr TileRows kLayout = rows;
  const Chunk& chunk;
  int tile;

  template <class A>
  PK_INLINE Vec<A> region(const A* group_table, int i) const {
    if (rows == TileRows::kPixels)
      return load(group_table + int64_t{chunk.label[tile * kLanes + i]} * kLanes);
    return splat(group_table[int64_t{chunk.uniform[tile]} * kLanes + i]);
  }
  template <class A>
  PK_INLINE Vec<A> pixel(const A* values, int i) const {
    if (rows == TileRows::kPixels) return splat(values[tile * kLanes + i]);
    return load(values + tile * kLanes);
  }
  // the same row of the table for every pixel
  template <class A>
  PK_INLINE Vec<A> fixed(const A* group_table, int region, int i) const {
    const A* row = group_table + region * kLanes;
    return rows == TileRows::kPixels ? load(row) : splat(row[i]);
  }
  // adds each pixel's channels to its region's row
  template <class V>
  PK_INLINE void add_to_regions(double* group_table, V terms[kLanes]) const {
    if (rows == TileRows::kPixels) {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i)
        add(group_table + int64_t{chunk.label[tile * kLanes + i]} * kLanes, terms[i]);
      return;
    }
    transpose(terms);
    add(group_table + int64_t{chunk.uniform[tile]} * kLanes, sum_rows(terms));
  }
  // the sums over the tile's channels, one for each pixel
  template <class V>
  PK_INLINE V over_channels(V values[kLanes]) const {
    if (rows == TileRows::kPixels) transpose(values);
    return sum_rows(values);
  }
};

// So few regions that comparing each pixel with all of them is cheaper than scattering.
constexpr int kFewRegions = 4;

// The cursor of a tile with several regions: rows are channels, and each pixel selects its region's
// value. The row of ignored pixels is 0.
template <class A>
struct FewCursor {
  static constexpr TileRows kLayout = TileRows::kChannels;
  const Chunk& chunk;
  int tile, regions;
  Vec<A> label;

  PK_INLINE Vec<A> region(const A* group_table, int i) const {
    Vec<A> value = {};
#pragma GCC unroll 4
    for (int region = 0; region < kFewRegions; ++region) {
      if (region >= regions) continue;
      value = label == splat<A>(region) ? splat(group_table[region * kLanes + i]) : value;
    }
    return value;
  }
  PK_INLINE Vec<A> pixel(const A* values, int) const { return load(values + tile * kLanes); }
};

// The cursor of a tile with several regions and so few channels that transposing costs more than
// taking each pixel's value alone: rows are channels.
constexpr int kFewChannels = 2;
struct LaneCursor {
  static constexpr TileRows kLayout = TileRows::kChannels;
  const Chunk& chunk;
  int tile, channels;

  PK_INLINE int64_t row(int lane) const {
    return int64_t{chunk.label[tile * kLanes + lane]} * kLanes;
  }
  template <class A>
  PK_INLINE Vec<A> region(const A* group_table, int i) const {
    Vec<A> value = {};
    if (i >= channels) return value;
#pragma GCC unroll 8
    for (int lane = 0; lane < kLanes; ++lane) value[lane] = group_table[row(lane) + i];
    return value;
  }
  template <class A>
  PK_INLINE Vec<A> pixel(const A* values, int) const {
    return load(values + tile * kLanes);
  }
  template <class A>
  PK_INLINE Vec<A> fixed(const A* group_table, int region, int i) const {
    return splat(group_table[region * kLanes + i]);
  }
  template <class V>
  PK_INLINE void add_to_regions(double* group_table, V terms[kLanes]) const {
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) {
      if (i >= channels) continue;
      for (int lane = 0; lane < kLanes; ++lane) group_table[row(lane) + i] += terms[i][lane];
    }
  }
  template <class V>
  PK_INLINE V over_channels(V values[kLanes]) const {
    return sum_rows(values);
  }
};

// body(cursor, x, channels) for every tile of one channel group; x is unset unless kRead
template <bool kRead = true, bool kPickRegions = false, class T, class Body>
PK_INLINE void for_tiles(const Chunk& chunk, const Plane<T>& plane, int64_t group,
                         int64_t all_channels, Body body, int regions = 0) {
  const int64_t channel = group * kLanes;
  const int channels =
      static_cast<int>(all_channels - channel < kLanes ? all_channels - channel : kLanes);
  for (int t = 0; t < chunk.tiles; ++t) {
    Vec<Accumulate<T>> x[kLanes];
    const int64_t start = chunk.offsets.start[t], pixel = chunk.begin + t * kLanes;
    const int pixels = chunk.pixels - t * kLanes;
    const auto load_channels = [&]() __attribute__((always_inline)) {
      if (kRead) load_tile<TileRows::kChannels>(plane, start, pixel, pixels, channel, channels, x);
    };
    if (chunk.uniform[t] >= 0 && plane.pixel_stride == 1) {
      load_channels();
      body(Cursor<TileRows::kChannels>{chunk, t}, x, channels);
      continue;
    }
    if constexpr (kPickRegions) {
      if (regions <= kFewRegions && start >= 0 && plane.pixel_stride == 1) {
        using A = Accumulate<T>;
        load_channels();
        body(FewCursor<A>{chunk, t, regions, labels_of<A>(chunk, t)}, x, channels);
        continue;
      }
    }
    if (channels <= kFewChannels && start >= 0 && plane.pixel_stride == 1) {
      load_channels();
      body(LaneCursor{chunk, t, channels}, x, channels);
      continue;
    }
    if (kRead) load_tile<TileRows::kPixels>(plane, start, pixel, pixels, channel, channels, x);
    body(Cursor<TileRows::kPixels>{chunk, t}, x, channels);
  }
}

// The tiles of a gradient.
template <class T>
struct GradientTiles {
  const Plane<T> plane;
  Offsets offsets;

  GradientTiles(const View& gradient, int64_t image) : plane(gradient, image) {}

  void begin(const Chunk& chunk) { offsets.fill(plane, chunk.begin, chunk.pixels); }

  template <class At>
  PK_INLINE void store(const At& at, int64_t group, int channels,
                       Vec<Accumulate<T>> tile[kLanes]) const {
    store_tile<At::kLayout>(plane, offsets.start[at.tile], at.chunk.begin + at.tile * kLanes,
                            at.chunk.pixels - at.tile * kLanes, group * kLanes, channels, tile);
  }
};

// sums[i] += sum_c term(cursor, x, row), for the pixels i of the chunk and the channels c of one
// group
template <class T, class Term>
PK_INLINE void add_over_channels(const Chunk& chunk, const Plane<T>& plane, int64_t group,
                                 int64_t channels, Accumulate<T>* sums, Term term) {
  using A = Accumulate<T>;
  for_tiles(chunk, plane, group, channels, [&](auto at, Vec<A>* x, int) {
    Vec<A> terms[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) terms[i] = term(at, x[i], i);
    A* sum = sums + at.tile * kLanes;
    store(sum, load(sum) + at.over_channels(terms));
  });
}

// 1 / |f_i|, and 1 for a zero vector
template <class T>
void inverse_norms(const Chunk& chunk, const Plane<T>& plane, const Input& in, Accumulate<T>* out) {
  using A = Accumulate<T>;
  for (int i = 0; i < chunk.tiles * kLanes; ++i) out[i] = 0;
  for (int64_t group = 0; group < in.groups(); ++group)
    add_over_channels(chunk, plane, group, in.channels, out,
                      [](auto, Vec<A> x, int) { return x * x; });
  for (int i = 0; i < chunk.tiles * kLanes; ++i)
    out[i] = out[i] == 0 ? A{1} : A{1} / std::sqrt(out[i]);
}

template <class V>
PK_INLINE V magnitude(V v) {
  return v < 0 ? -v : v;
}

template <class V>
PK_INLINE V sign(V v) {
  const V zero = {}, one = zero + 1;
  return v > 0 ? one : v < 0 ? -one : v == v ? zero : v;
}

// factor * v, and 0 for a factor of exactly 0, even if v is NaN
template <class V>
PK_INLINE V guarded(V factor, V v) {
  return factor == 0 ? V{} : factor * v;
}

}  // namespace pixelkernels::regions::PK_ISA
