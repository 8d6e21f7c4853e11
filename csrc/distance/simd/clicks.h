// The choice of click pixels: the deepest of an error, random ones, or farthest ones.
#pragma once

#include "common/hash.h"
#include "distance/simd/line.h"

namespace pixelkernels::distance::PK_ISA {

// Columns of a row and their counts; no side exceeds 32767.
constexpr int64_t kStepLanes = 16;
typedef int8_t Kinds __attribute__((vector_size(kStepLanes)));
typedef int16_t Steps __attribute__((vector_size(kStepLanes * sizeof(int16_t))));

// Along columns, the steps to the end of the run of one kind of error: upwards after the first
// pass, in the nearer direction after the second. The outside has no kind.
template <bool kDown>
PK_INLINE void leave_runs(const Errors& s, int64_t first, int64_t n) {
  constexpr int kVectors = kColumnBlock / kStepLanes;
  Steps last[kVectors] = {}, run[kVectors] = {};
  for (int64_t i = 0; i < s.height; ++i) {
    const int64_t at = first + (kDown ? s.height - 1 - i : i) * s.width;
    for (int v = 0; v < kVectors && v * kStepLanes < n; ++v) {
      const int64_t begin = at + v * kStepLanes,
                    lanes = n - v * kStepLanes < kStepLanes ? n - v * kStepLanes : kStepLanes;
      Kinds own = {};
      std::memcpy(&own, s.kinds + begin, lanes);
      const Steps kind = __builtin_convertvector(own, Steps);
      run[v] = ((run[v] & (kind == last[v])) + 1) & (kind != 0);
      last[v] = kind;
      Steps least = run[v];
      if (kDown) {
        Steps up = {};
        std::memcpy(&up, s.rows + begin, lanes * sizeof(int16_t));
        least = up < least ? up : least;
      }
      std::memcpy(s.rows + begin, &least, lanes * sizeof(int16_t));
    }
  }
}

inline void error_columns(const Errors& s, int64_t image, int64_t begin, int64_t end) {
  const int64_t first = image * s.height * s.width + begin, n = end - begin;
  // a constant trip count lets the compiler keep the vectors in registers
  if (n == kColumnBlock) {
    leave_runs<false>(s, first, kColumnBlock);
    leave_runs<true>(s, first, kColumnBlock);
  } else {
    leave_runs<false>(s, first, n);
    leave_runs<true>(s, first, n);
  }
}

// The end of the run of equal kinds that begins at `from`.
PK_INLINE int64_t end_of_run(const uint8_t* kind, int64_t from, int64_t width) {
  constexpr int64_t kBytes = 8;
  const uint64_t same = kind[from] * 0x0101010101010101u;
  int64_t to = from + 1;
  for (uint64_t some; to + kBytes <= width; to += kBytes) {
    std::memcpy(&some, kind + to, kBytes);
    if (some != same) return to + __builtin_ctzll(some ^ same) / kBytes;
  }
  while (to < width && kind[to] == kind[from]) ++to;
  return to;
}

// An upper bound on the depths of the n pixels of a run: a pixel is no deeper than the distances to
// the ends of its row and column. `rows` is padded by kStepLanes.
PK_INLINE uint32_t largest_bound(const int16_t* rows, int16_t n) {
  Steps at = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, most = {};
  for (int64_t i = 0; i < n; i += kStepLanes, at += kStepLanes) {
    const Steps left = at + 1, right = n - at, side = left < right ? left : right;
    Steps up_or_down;
    std::memcpy(&up_or_down, rows + i, sizeof up_or_down);
    const Steps bound = side < up_or_down ? side : up_or_down;
    most = bound > most ? bound : most;
  }
  int16_t largest = 0;
  for (int i = 0; i < kStepLanes; ++i) largest = most[i] > largest ? most[i] : largest;
  return static_cast<uint32_t>(largest) * static_cast<uint32_t>(largest);
}

// body(kind, depth, index) for the allowed pixels of rows [begin, end) deeper than least(kind),
// which may grow meanwhile.
template <class Least, class Body>
PK_INLINE void for_deeper(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                          const Least& least, const Body& body) {
  uint32_t *g = static_cast<uint32_t*>(scratch), *depth = g + padded(s.width);
  Line<uint32_t> row{g, s.distances, reinterpret_cast<int32_t*>(depth + padded(s.width)), 0};
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = (image * s.height + r) * s.width;
    const uint8_t* kind = s.kinds + first;
    const uint8_t* allowed = s.allowed ? s.allowed + first : nullptr;
    for (int64_t from = 0, to; from < s.width; from = to) {
      to = end_of_run(kind, from, s.width);
      if (kind[from] == 0) continue;
      const int16_t* rows = s.rows + first + from;
      if (largest_bound(rows, static_cast<int16_t>(to - from)) <= least(kind[from])) continue;
      // the neighbours of the run have another kind
      row.length = to - from + 2;
      for (int64_t i = 0; i < to - from; i += kLanes) {
        U16 some;
        std::memcpy(&some, rows + i, sizeof some);
        const U32 steps = __builtin_convertvector(some, U32);
        store(g + 1 + i, steps * steps);
      }
      g[0] = g[row.length - 1] = 0;
      for (int i = 0; i < kLanes; ++i) g[row.length + i] = kFarSquare;
      row.find_anchors();
      row.fill(depth);
      for (int64_t x = from; x < to; ++x)
        if (depth[x - from + 1] > least(kind[from]) && !(allowed && !allowed[x]))
          body(kind[from], depth[x - from + 1], r * s.width + x);
    }
  }
}

// The deepest allowed pixel of each kind in rows [begin, end). Tie-break: the first. It may be
// missing if `most` of the image is deeper.
inline void error_rows(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                       Deepest* deepest, uint32_t* most) {
  for_deeper(
      s, image, begin, end, scratch,
      [&](uint8_t kind) {
        const uint32_t own = deepest[kind - 1].depth;
        const uint32_t any = __atomic_load_n(most + kind - 1, __ATOMIC_RELAXED);
        return any > own ? any - 1 : own;  // ties are resolved at the end
      },
      [&](uint8_t kind, uint32_t depth, int64_t index) {
        deepest[kind - 1] = {depth, index};
        // benign race: a stale bound only prunes less
        if (depth > __atomic_load_n(most + kind - 1, __ATOMIC_RELAXED))
          __atomic_store_n(most + kind - 1, depth, __ATOMIC_RELAXED);
      });
}

inline int64_t inner_rows(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                          const Inner& inner, int64_t* index) {
  int64_t count = 0;
  for_deeper(
      s, image, begin, end, scratch,
      [&](uint8_t kind) { return kind == inner.kind ? inner.depth : ~0u; },
      [&](uint8_t, uint32_t, int64_t at) {
        if (count++ == inner.chosen) *index = at;
      });
  return count;
}

// The first allowed pixel of the largest rank, or -1.
inline int64_t first_largest(const uint8_t* allowed, const int32_t* rank, int64_t pixels) {
  constexpr int64_t kScanPixels = 4096;
  int32_t largest = -1;
  int64_t found = -1;
  for (int64_t begin = 0; begin < pixels; begin += kScanPixels) {
    const int64_t end = begin + kScanPixels < pixels ? begin + kScanPixels : pixels;
    int32_t most = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t here = allowed[i] ? rank[i] : -1;
      most = here > most ? here : most;
    }
    if (most <= largest) continue;
    largest = most;
    for (found = begin; !allowed[found] || rank[found] != most;) ++found;
  }
  return found;
}

// A random rank for every pixel, as reference.random_ranks.
inline void fill_ranks(uint64_t seed, int64_t pixels, int32_t* rank) {
  const uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  for (int64_t i = 0; i < pixels; ++i)
    rank[i] = static_cast<int32_t>(mix(high, mix(low, static_cast<uint32_t>(i))) >> 1);
}

inline void pick(const Picks& s, int64_t image) {
  const int64_t plane = s.height * s.width, pixels = s.depth * plane;
  uint8_t* allowed = s.allowed + image * pixels;
  int32_t* rank = s.ranks + image * pixels;
  const bool farthest = s.farthest[image];
  // The steps from x that are within reach, of a side of this length.
  const auto first = [&](int64_t x) { return x < s.reach ? 0 : x - s.reach; };
  const auto past = [&](int64_t x, int64_t side) {
    return side - x <= s.reach ? side : x + s.reach + 1;
  };
  const auto square = [](int64_t a, int64_t b) { return static_cast<int32_t>((a - b) * (a - b)); };
  fill_ranks(static_cast<uint64_t>(s.seeds[image]), pixels, rank);
  for (int64_t k = 0; k < s.count; ++k) {
    const int64_t found = first_largest(allowed, rank, pixels);
    int64_t at[3] = {-1, -1, -1};
    if (found >= 0) {
      at[0] = found / plane;
      at[1] = found % plane / s.width;
      at[2] = found % s.width;
    }
    int64_t* point = s.points + (image * s.count + k) * s.axes;
    for (int axis = 0; axis < s.axes; ++axis) point[axis] = at[3 - s.axes + axis];
    if (found < 0) continue;
    const int64_t left = first(at[2]), right = past(at[2], s.width);
    for (int64_t z = first(at[0]); z < past(at[0], s.depth); ++z)
      for (int64_t r = first(at[1]); r < past(at[1], s.height); ++r) {
        const int32_t across = square(z, at[0]) + square(r, at[1]);
        uint8_t* row = allowed + z * plane + r * s.width;
        for (int64_t c = left; c < right; ++c) {
          const int32_t aside = static_cast<int32_t>(c - at[2]);
          row[c] &= across + aside * aside >= s.squared_spacing;
        }
      }
    for (int64_t i = 0; farthest && i < s.depth * s.height; ++i) {
      const int32_t across = square(i / s.height, at[0]) + square(i % s.height, at[1]);
      int32_t* row = rank + i * s.width;
      for (int64_t c = 0; c < s.width; ++c) {
        const int32_t aside = static_cast<int32_t>(c - at[2]);
        const int32_t d2 = across + aside * aside;
        row[c] = k == 0 || d2 < row[c] ? d2 : row[c];
      }
    }
  }
}

}  // namespace pixelkernels::distance::PK_ISA
