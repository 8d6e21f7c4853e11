// Kernels of distances between pixels and a centre: the discriminative pull, MEnet's contrast,
// weighted means.
#pragma once

#include "regions/simd/chunk.h"

namespace pixelkernels::regions::PK_ISA {

template <class A>
PK_INLINE const A* table_of(const void* tables, const Input& in, int64_t index) {
  return static_cast<const A*>(tables) + index * in.table();
}

inline int64_t group_offset(const Input& in, int64_t group) {
  return group * (in.regions + 1) * kLanes;
}

// The pixels of a chunk without labels, if they are adjacent in each channel: plain loops over them
// take half the instructions of a loop over tiles.
template <class T>
struct Adjacent {
  using V = Vec<Accumulate<T>>;
  const Chunk& chunk;
  const Plane<T>& plane;

  static bool is(const Input& in, const Plane<T>& plane) {
    return in.label == Label::kNone && plane.pixel_stride == 1 && plane.row_length >= in.pixels;
  }

  // body(tile, x) for every tile, with eight channels from `channel` on; a tile that is not whole
  // is padded with 0
  template <class Body>
  PK_INLINE void for_tiles(int64_t channel, Body body) const {
    const T* from[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i)
      from[i] = plane.data + (channel + i) * plane.channel_stride + chunk.begin;
    const int whole = chunk.pixels / kLanes;
    V x[kLanes];
    for (int t = 0; t < whole; ++t) {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) x[i] = load(from[i] + t * kLanes);
      body(t, x);
    }
    if (whole == chunk.tiles) return;
    for (int i = 0; i < kLanes; ++i)
      x[i] = load_some(from[i] + whole * kLanes, chunk.pixels - whole * kLanes);
    body(whole, x);
  }
};

// out_i = sum_c |f_ic - centre_c| (norm 1) or the square of the Euclidean distance (norm 2)
template <class T>
void distances(const Chunk& chunk, const Plane<T>& plane, const Input& in,
               const Accumulate<T>* centre, int64_t norm, Accumulate<T>* out) {
  using V = Vec<Accumulate<T>>;
  for (int i = 0; i < chunk.tiles * kLanes; ++i) out[i] = 0;
  for (int64_t group = 0; group < in.groups(); ++group) {
    const Accumulate<T>* table = centre + group_offset(in, group);
    if (norm == 2 && Adjacent<T>::is(in, plane) && (group + 1) * kLanes <= in.channels) {
      Adjacent<T>{chunk, plane}.for_tiles(group * kLanes, [&](int t, const V* x) {
        V squares[kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) squares[i] = (x[i] - table[i]) * (x[i] - table[i]);
        store(out + t * kLanes, load(out + t * kLanes) + sum_rows(squares));
      });
      continue;
    }
    add_over_channels(chunk, plane, group, in.channels, out, [&](auto at, V x, int i) {
      const V d = x - at.region(table, i);
      return norm == 1 ? magnitude(d) : d * d;
    });
  }
}

// Turns distances into h_i = [d_i - delta]_+ and h_i / d_i (norm 1: h_i), the factor on the
// difference (its sign).
template <class A>
PK_INLINE void hinge(int n, double delta, int64_t norm, A* distance, A* factor) {
  for (int i = 0; i < n; ++i) {
    const A d = norm == 1 ? distance[i] : std::sqrt(distance[i]);
    const A h = d - static_cast<A>(delta) <= 0 ? 0 : d - static_cast<A>(delta);
    distance[i] = h;
    factor[i] = norm == 1 ? h : d == 0 ? 0 : h / d;
  }
}

template <class T>
void pull_block(const PullArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  const int64_t index = image * in.blocks + block;
  const A* mean = table_of<A>(s.mean, in, image);
  double* sums = static_cast<double*>(s.sums) + index * in.table();
  double* pull = static_cast<double*>(s.pull) + index * (in.regions + 1);
  clear(sums, in.table());
  clear(pull, in.regions + 1);
  Chunk chunk;
  A h[kChunkPixels], factor[kChunkPixels];
  for_chunks(chunk, in, plane, image, block, twice_visited(in), [&] {
    distances(chunk, plane, in, mean, s.norm, h);
    hinge(chunk.pixels, s.delta, s.norm, h, factor);
    for (int i = chunk.pixels; i < chunk.tiles * kLanes; ++i) factor[i] = 0;
    for (int i = 0; i < chunk.pixels; ++i)
      pull[chunk.label[i]] += static_cast<double>(h[i]) * static_cast<double>(h[i]);
    for (int64_t group = 0; group < in.groups(); ++group) {
      const int64_t table = group_offset(in, group);
      for_tiles(chunk, plane, group, in.channels, [&](auto at, V* x, int) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) {
          const V d = x[i] - at.region(mean + table, i);
          x[i] = guarded(at.pixel(factor, i), s.norm == 1 ? sign(d) : d);
        }
        at.add_to_regions(sums + table, x);
      });
    }
  });
}

template <class T>
void pull_backward(const PullArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  GradientTiles<T> gradient(s.gradient, image);
  const A* mean = table_of<A>(s.mean, in, image);
  const A* offset = table_of<A>(s.offset, in, image);
  const A* scale = static_cast<const A*>(s.scale) + image * (in.regions + 1);
  Chunk chunk;
  A h[kChunkPixels], factor[kChunkPixels];
  for_chunks(chunk, in, plane, image, block, twice_visited(in), [&] {
    gradient.begin(chunk);
    distances(chunk, plane, in, mean, s.norm, h);
    hinge(chunk.tiles * kLanes, s.delta, s.norm, h, factor);
    for (int i = 0; i < chunk.tiles * kLanes; ++i) {
      const A weight = scale[chunk.label[i]];
      factor[i] = weight == 0 ? 0 : weight * factor[i];
    }
    for (int64_t group = 0; group < in.groups(); ++group) {
      const int64_t table = group_offset(in, group);
      for_tiles(chunk, plane, group, in.channels, [&](auto at, V* x, int channels) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) {
          const V d = x[i] - at.region(mean + table, i);
          x[i] = guarded(at.pixel(factor, i), s.norm == 1 ? sign(d) : d) +
                 at.region(offset + table, i);
        }
        gradient.store(at, group, channels, x);
      });
    }
  });
}

template <class T>
void contrast(const ContrastArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  const A* mean = table_of<A>(s.mean, in, image);
  Chunk chunk;
  A inverse[kChunkPixels], gap[kChunkPixels];
  for_chunks(chunk, in, plane, image, block, twice_visited(in), [&] {
    if (s.normalize)
      inverse_norms(chunk, plane, in, inverse);
    else
      for (int i = 0; i < chunk.tiles * kLanes; ++i) inverse[i] = 1;
    for (int i = 0; i < chunk.tiles * kLanes; ++i) gap[i] = 0;
    for (int64_t group = 0; group < in.groups(); ++group) {
      const A* table = mean + group_offset(in, group);
      add_over_channels(chunk, plane, group, in.channels, gap, [&](auto at, V x, int i) {
        const V y = x * at.pixel(inverse, i);
        const V to_0 = y - at.fixed(table, 0, i), to_1 = y - at.fixed(table, 1, i);
        return to_1 * to_1 - to_0 * to_0;
      });
    }
    A* scores = static_cast<A*>(s.scores) + image * in.pixels + chunk.begin;
    for (int i = 0; i < chunk.pixels; ++i)
      scores[i] = chunk.label[i] == 1 ? gap[i] : chunk.label[i] == 0 ? -gap[i] : 0;
  });
}

// The values of a chunk's pixels, padded with 0 to whole tiles.
template <class A>
PK_INLINE void read_pixels(const void* values, const Input& in, int64_t image, const Chunk& chunk,
                           A* out) {
  const A* from = static_cast<const A*>(values) + image * in.pixels + chunk.begin;
  std::memcpy(out, from, sizeof(A) * chunk.pixels);
  for (int i = chunk.pixels; i < chunk.tiles * kLanes; ++i) out[i] = 0;
}

template <class T>
void weighted_block(const WeightedArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  const int64_t index = image * in.blocks + block;
  const A* centre = table_of<A>(s.centre, in, image);
  double* sums = static_cast<double*>(s.sums) + index * in.table();
  clear(sums, in.table());
  double total[kLanes] = {};
  V least = {};
  Chunk chunk;
  A weights[kChunkPixels];
  for_chunks(chunk, in, plane, image, block, once_visited(in, plane), [&] {
    read_pixels(s.weights, in, image, chunk, weights);
    for (int t = 0; t < chunk.tiles;) {
      V run = {};
      for (const int end = t + kRunTiles; t < end && t < chunk.tiles; ++t) {
        const V weight = load(weights + t * kLanes);
        run += weight;
        least = weight < least ? weight : least;
      }
      add(total, run);
    }
    for (int64_t group = 0; group < in.groups(); ++group) {
      const int64_t table = group_offset(in, group);
      V run[kLanes] = {};
      const auto end_run = [&] {
        transpose(run);
        add(sums + table, sum_rows(run));
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) run[i] = V{};
      };
      if (Adjacent<T>::is(in, plane) && (group + 1) * kLanes <= in.channels) {
        Adjacent<T>{chunk, plane}.for_tiles(group * kLanes, [&](int t, const V* x) {
          const V weight = load(weights + t * kLanes);
#pragma GCC unroll 8
          for (int i = 0; i < kLanes; ++i) run[i] += guarded(weight, x[i] - centre[table + i]);
          if (t % kRunTiles == kRunTiles - 1) end_run();
        });
        end_run();
        continue;
      }
      for_tiles(chunk, plane, group, in.channels, [&](auto at, V* x, int) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i)
          x[i] = guarded(at.pixel(weights, i), x[i] - at.region(centre + table, i));
        if (at.kLayout == TileRows::kPixels) {
          add(sums + table, sum_rows(x));
          return;
        }
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) run[i] += x[i];
        if (at.tile % kRunTiles == kRunTiles - 1) end_run();
      });
      end_run();
    }
  });
  s.totals[index] = sum_lanes(load(total));
  s.least[index] = 0;
  for (int i = 0; i < kLanes; ++i)
    s.least[index] = least[i] < s.least[index] ? static_cast<double>(least[i]) : s.least[index];
}

template <class T>
void distance(const WeightedArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  const bool defined = static_cast<const A*>(s.total)[image] != 0;
  Chunk chunk;
  A squares[kChunkPixels];
  for_chunks(chunk, in, plane, image, block, once_visited(in, plane), [&] {
    A* out = static_cast<A*>(s.distance) + image * in.pixels + chunk.begin;
    const int pixels = chunk.pixels;
    if (!defined) {
      for (int i = 0; i < pixels; ++i) out[i] = 0;
      return;
    }
    distances(chunk, plane, in, table_of<A>(s.centre, in, image), 2, squares);
    if (!s.squared)
      for (int i = 0; i < pixels; ++i) squares[i] = std::sqrt(squares[i]);
    std::memcpy(out, squares, sizeof(A) * pixels);
  });
}

template <class T>
void weighted_backward(const WeightedArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  const Plane<T> plane(in.features, image);
  GradientTiles<T> gradient(s.gradient, image);
  const A* centre = table_of<A>(s.centre, in, image);
  const A* direction = table_of<A>(s.direction, in, image);
  Chunk chunk;
  A weights[kChunkPixels], coefficient[kChunkPixels], along[kChunkPixels];
  for_chunks(chunk, in, plane, image, block, once_visited(in, gradient.plane), [&] {
    gradient.begin(chunk);
    read_pixels(s.weights, in, image, chunk, weights);
    if (s.coefficient)
      read_pixels(s.coefficient, in, image, chunk, coefficient);
    else
      for (int i = 0; i < chunk.tiles * kLanes; ++i) coefficient[i] = 0;
    for (int i = 0; i < chunk.tiles * kLanes; ++i) along[i] = 0;
    for (int64_t group = 0; group < in.groups(); ++group) {
      const int64_t table = group_offset(in, group);
      for_tiles(chunk, plane, group, in.channels, [&](auto at, V* x, int channels) {
        V terms[kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) {
          const V d = x[i] - at.region(centre + table, i), t = at.region(direction + table, i);
          terms[i] = t * d;
          x[i] = guarded(at.pixel(coefficient, i), d) + guarded(at.pixel(weights, i), t);
        }
        A* sum = along + at.tile * kLanes;
        store(sum, load(sum) + at.over_channels(terms));
        gradient.store(at, group, channels, x);
      });
    }
    A* out = static_cast<A*>(s.weight_gradient) + image * in.pixels + chunk.begin;
    for (int i = 0; i < chunk.pixels; ++i)
      out[i] = weights[i] != 0 || std::isfinite(along[i]) ? along[i] : 0;
  });
}

// The gradient in the features alone, which are not read.
template <class T>
void weighted_share(const WeightedArgs& s, int64_t image, int64_t block) {
  using A = Accumulate<T>;
  using V = Vec<A>;
  const Input& in = s.input;
  GradientTiles<T> gradient(s.gradient, image);
  const A* direction = table_of<A>(s.direction, in, image);
  Chunk chunk;
  A weights[kChunkPixels];
  for_chunks(chunk, in, gradient.plane, image, block, once_visited(in, gradient.plane), [&] {
    gradient.begin(chunk);
    read_pixels(s.weights, in, image, chunk, weights);
    for (int64_t group = 0; group < in.groups(); ++group) {
      const A* table = direction + group_offset(in, group);
      const auto write = [&](auto at, V* x, int channels) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; ++i) x[i] = guarded(at.pixel(weights, i), at.region(table, i));
        gradient.store(at, group, channels, x);
      };
      for_tiles<false>(chunk, gradient.plane, group, in.channels, write);
    }
  });
}

}  // namespace pixelkernels::regions::PK_ISA
