// The pixels that clicks go to: the deepest of an error, and random or farthest ones.
#pragma once

#include "distance_transform_simd.h"

namespace pixelkernels {
namespace PK_ISA {

// Squared distances along columns to where the kind of error changes; the outside is of none.
inline void error_columns(const Errors& s, int64_t image, int64_t begin, int64_t end) {
  const int64_t first = image * s.height * s.width + begin, n = end - begin;
  const uint8_t* kind = s.kinds + first;
  uint32_t* out = s.squares + first;
  uint32_t run[kColumns] = {};
  for (int64_t r = 0; r < s.height; ++r)
    for (int64_t c = 0; c < n; ++c) {
      const int64_t at = r * s.width + c;
      const bool goes_on = r > 0 && kind[at] == kind[at - s.width];
      run[c] = kind[at] == 0 ? 0 : goes_on ? run[c] + 1 : 1;
      out[at] = run[c];
    }
  for (int64_t r = s.height - 1; r >= 0; --r)
    for (int64_t c = 0; c < n; ++c) {
      const int64_t at = r * s.width + c;
      const bool goes_on = r + 1 < s.height && kind[at] == kind[at + s.width];
      run[c] = kind[at] == 0 ? 0 : goes_on ? run[c] + 1 : 1;
      const uint32_t rows = out[at] < run[c] ? out[at] : run[c];
      out[at] = rows * rows;
    }
}

// Where the run of equal kinds ends that begins at `from`.
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

// A pixel is no deeper than its distances to the ends of its row and column: the largest square of
// the less of both, of the n pixels of a run.
PK_INLINE uint32_t largest_bound(const uint32_t* squares, int32_t n) {
  uint32_t most = 0;
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t left = i + 1, right = n - i, side = left < right ? left : right;
    const uint32_t bound = side * side < squares[i] ? side * side : squares[i];
    most = bound > most ? bound : most;
  }
  return most;
}

// body(kind, depth, place) for the allowed pixels of rows [begin, end) that are deeper than
// least(kind), which may grow on the way.
template <class Least, class Body>
PK_INLINE void for_deeper(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                          const Least& least, const Body& body) {
  uint32_t *g = static_cast<uint32_t*>(scratch), *depth = g + s.width + 2 * kBlock;
  Row<uint32_t> row{g, s.distances, reinterpret_cast<int32_t*>(depth + s.width + 2 * kBlock), 0};
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = (image * s.height + r) * s.width;
    const uint8_t* kind = s.kinds + first;
    const uint8_t* allowed = s.allowed ? s.allowed + first : nullptr;
    for (int64_t from = 0, to; from < s.width; from = to) {
      to = end_of_run(kind, from, s.width);
      if (kind[from] == 0) continue;
      const uint32_t most =
          largest_bound(s.squares + first + from, static_cast<int32_t>(to - from));
      if (most <= least(kind[from])) continue;
      // the pixels beside the run belong to no error of its kind
      row.width = to - from + 2;
      g[0] = g[row.width - 1] = 0;
      std::memcpy(g + 1, s.squares + first + from, sizeof(uint32_t) * (to - from));
      for (int i = 0; i < kLanes; ++i) g[row.width + i] = kFar;
      row.find_anchors();
      row.fill(depth);
      for (int64_t x = from; x < to; ++x)
        if (depth[x - from + 1] > least(kind[from]) && !(allowed && !allowed[x]))
          body(kind[from], depth[x - from + 1], r * s.width + x);
    }
  }
}

// The deepest allowed pixel of each kind of error in rows [begin, end), the first among equals.
inline void error_rows(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                       Deepest* deepest) {
  for_deeper(
      s, image, begin, end, scratch, [&](uint8_t kind) { return deepest[kind - 1].depth; },
      [&](uint8_t kind, uint32_t depth, int64_t place) { deepest[kind - 1] = {depth, place}; });
}

inline int64_t inner_rows(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                          const Inner& inner, int64_t* place) {
  int64_t count = 0;
  for_deeper(
      s, image, begin, end, scratch,
      [&](uint8_t kind) { return kind == inner.kind ? inner.depth : ~0u; },
      [&](uint8_t, uint32_t, int64_t at) {
        if (count++ == inner.chosen) *place = at;
      });
  return count;
}

// The first pixel of the largest rank among those allowed, or -1.
inline int64_t first_largest(const uint8_t* allowed, const int32_t* rank, int64_t pixels) {
  constexpr int64_t kStride = 4096;
  int32_t largest = -1;
  int64_t found = -1;
  for (int64_t begin = 0; begin < pixels; begin += kStride) {
    const int64_t end = begin + kStride < pixels ? begin + kStride : pixels;
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

inline void pick(const Picks& s, int64_t image) {
  const int64_t pixels = s.height * s.width;
  uint8_t* allowed = s.allowed + image * pixels;
  int32_t* gap = s.gaps + image * pixels;
  const bool farthest = s.farthest[image];
  for (int64_t k = 0; k < s.count; ++k) {
    const int32_t* rank = farthest && k > 0 ? gap : s.order + image * pixels;
    const int64_t found = first_largest(allowed, rank, pixels);
    const int64_t row = found < 0 ? -1 : found / s.width, column = found < 0 ? -1 : found % s.width;
    int64_t* point = s.points + (image * s.count + k) * 2;
    point[0] = row;
    point[1] = column;
    if (found < 0) continue;
    const int64_t left = column < s.reach ? 0 : column - s.reach;
    const int64_t right = s.width - column <= s.reach ? s.width : column + s.reach + 1;
    for (int64_t r = row < s.reach ? 0 : row - s.reach; r < s.height && r <= row + s.reach; ++r) {
      const int32_t down = static_cast<int32_t>(r - row);
      uint8_t* at = allowed + r * s.width;
      for (int64_t c = left; c < right; ++c) {
        const int32_t aside = static_cast<int32_t>(c - column);
        at[c] &= down * down + aside * aside >= s.apart;
      }
    }
    for (int64_t r = 0; farthest && r < s.height; ++r) {
      const int32_t down = static_cast<int32_t>(r - row);
      int32_t* at = gap + r * s.width;
      for (int64_t c = 0; c < s.width; ++c) {
        const int32_t aside = static_cast<int32_t>(c - column);
        const int32_t d2 = down * down + aside * aside;
        at[c] = k == 0 || d2 < at[c] ? d2 : at[c];
      }
    }
  }
}

}  // namespace PK_ISA
}  // namespace pixelkernels
