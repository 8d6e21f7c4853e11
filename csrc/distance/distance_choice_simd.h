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

// The deepest allowed pixel of each kind of error in rows [begin, end), the first among equals.
inline void error_rows(const Errors& s, int64_t image, int64_t begin, int64_t end, void* scratch,
                       Deepest* deepest) {
  uint32_t *g = static_cast<uint32_t*>(scratch), *depth = g + s.width + 2 * kBlock;
  Row<uint32_t> row{g, s.distances, reinterpret_cast<int32_t*>(depth + s.width + 2 * kBlock), 0};
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = (image * s.height + r) * s.width;
    const uint8_t* kind = s.kinds + first;
    const uint8_t* allowed = s.allowed ? s.allowed + first : nullptr;
    for (int64_t from = 0, to; from < s.width; from = to) {
      for (to = from + 1; to < s.width && kind[to] == kind[from];) ++to;
      if (kind[from] == 0) continue;
      Deepest& best = deepest[kind[from] - 1];
      // a pixel is no deeper than its distances to the ends of its row and column
      uint32_t most = 0;
      for (int64_t x = from; x < to; ++x) {
        const uint32_t left = static_cast<uint32_t>(x + 1 - from);
        const uint32_t right = static_cast<uint32_t>(to - x);
        const uint32_t side = left < right ? left : right, down = s.squares[first + x];
        const uint32_t bound = side * side < down ? side * side : down;
        most = bound > most ? bound : most;
      }
      if (most <= best.depth) continue;
      // the pixels beside the run belong to no error of its kind
      row.width = to - from + 2;
      g[0] = g[row.width - 1] = 0;
      std::memcpy(g + 1, s.squares + first + from, sizeof(uint32_t) * (to - from));
      for (int i = 0; i < kLanes; ++i) g[row.width + i] = kFar;
      row.find_anchors();
      row.fill(depth);
      for (int64_t x = from; x < to; ++x) {
        if (depth[x - from + 1] <= best.depth || (allowed && !allowed[x])) continue;
        best = {depth[x - from + 1], r * s.width + x};
      }
    }
  }
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
