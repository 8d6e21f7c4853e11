// The nearest True pixels. Between the passes the coordinates are those within the axes so far.
#pragma once

#include "distance/simd/transform.h"

namespace pixelkernels::distance::PK_ISA {

// The True pixel before the first and after the last: so far that no distance to them is least.
constexpr int32_t kBefore = -(1 << 30), kAfter = 3 << 29;

PK_INLINE void nearest_of_some_lines(const Nearest& s, int64_t mask, int64_t begin, int64_t n) {
  constexpr int kVectors = kColumnBlock / kLanes;
  const int64_t length = s.length(), lines = s.lines();
  const int64_t first = mask * length * lines + begin;
  const uint8_t* from = s.mask + first;
  int32_t* out = s.indices + s.planes * mask * length * lines + begin;
  I32 site[kVectors];
  for (int v = 0; v < kVectors; ++v) site[v] = I32{} + kBefore;
  for (int64_t r = 0; r < length; ++r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      const U32 is_true = load_bytes(from + r * lines + v * kLanes, some);
      site[v] = is_true != 0 ? I32{} + static_cast<int32_t>(r) : site[v];
      std::memcpy(out + r * lines + v * kLanes, &site[v], some * sizeof(int32_t));
    }
  }
  for (int v = 0; v < kVectors; ++v) site[v] = I32{} + kAfter;
  for (int64_t r = length - 1; r >= 0; --r) {
    const I32 here = I32{} + static_cast<int32_t>(r);
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      int32_t* at = out + r * lines + v * kLanes;
      I32 before = {};
      std::memcpy(&before, at, some * sizeof(int32_t));
      site[v] = before == here ? here : site[v];
      I32 nearest = here - before <= site[v] - here ? before : site[v];
      nearest = nearest < 0 ? I32{} - 1 : nearest;
      std::memcpy(at, &nearest, some * sizeof(int32_t));
    }
  }
}

inline void nearest_of_first_axis(const Nearest& s, int64_t mask, int64_t begin, int64_t end) {
  // a constant trip count lets the compiler keep the vectors in registers
  end - begin == kColumnBlock ? nearest_of_some_lines(s, mask, begin, kColumnBlock)
                              : nearest_of_some_lines(s, mask, begin, end - begin);
}

// g[q] = the squared distances to the pixels of the coordinates `sites` from the position `here`,
// or kNone for the coordinate -1; added to g if `adds`.
PK_INLINE void add_squares(const int32_t* sites, int64_t here, int64_t length, const uint32_t*,
                           bool adds, uint32_t* g) {
  for (int64_t q = 0; q < length; ++q) {
    const uint32_t steps = static_cast<uint32_t>(sites[q]) - static_cast<uint32_t>(here);
    const uint32_t square = sites[q] < 0 ? kFarSquare : steps * steps + (adds ? g[q] : 0);
    g[q] = square;
  }
}
PK_INLINE void add_squares(const int32_t* sites, int64_t here, int64_t length,
                           const double* squares, bool adds, double* g) {
  for (int64_t q = 0; q < length; ++q)
    g[q] = sites[q] < 0 ? Squares<double>::kNone : squares[sites[q] - here] + (adds ? g[q] : 0);
}

PK_INLINE void write(const double* squares, int64_t width, bool, void* out) {
  for (int64_t i = 0; i < width; ++i)
    static_cast<float*>(out)[i] = static_cast<float>(__builtin_sqrt(squares[i]));
}

// from[-1], the coordinate where there is none, is overwritten.
PK_INLINE void gather(int32_t* from, const int32_t* nearest, int64_t length, int32_t* to) {
  from[-1] = -1;
  for (int64_t x = 0; x < length; ++x) to[x] = from[nearest[x]];
}

template <class A>
void nearest_of_columns(const Nearest& s, int64_t slice, int64_t begin, int64_t end,
                        void* scratch) {
  const int64_t pitch = padded(s.height), n = end - begin, plane = s.depth * s.height * s.width;
  A *g = static_cast<A*>(scratch), *best = g + pitch;
  int32_t* sites = reinterpret_cast<int32_t*>(best + pitch);
  int32_t *depths = sites + pitch, *new_depths = depths + kTileColumns * pitch;
  int32_t* new_rows = new_depths + kTileColumns * pitch;
  Line<A> line{g, static_cast<const A*>(s.row_squares), sites, s.height};
  int32_t* tile =
      s.indices + slice / s.depth * s.planes * plane + slice % s.depth * s.height * s.width + begin;
  read_tile(tile, s.width, s.height, n, depths);
  for (int64_t c = 0; c < n; ++c) {
    int32_t* depth = depths + c * pitch;
    int32_t* row = new_rows + c * pitch;
    add_squares(depth, slice % s.depth, s.height, static_cast<const A*>(s.first_squares), false, g);
    line.solve(best, row);
    gather(depth, row, s.height, new_depths + c * pitch);
  }
  write_tile(new_depths, s.width, s.height, n, tile);
  write_tile(new_rows, s.width, s.height, n, tile + plane);
}

// body(r, coordinates on the earlier axes, nearest columns, squares) for the rows of a slice.
template <class A, class Body>
PK_INLINE void for_rows(const Nearest& s, int64_t slice, int64_t begin, int64_t end, void* scratch,
                        const Body& body) {
  const int64_t pitch = padded(s.width), plane = s.depth * s.height * s.width;
  A *g = static_cast<A*>(scratch), *best = g + pitch;
  int32_t* sites = reinterpret_cast<int32_t*>(best + pitch);
  int32_t *before = sites + pitch, *nearest = before + 2 * pitch;
  Line<A> line{g, static_cast<const A*>(s.column_squares), sites, s.width};
  for (int64_t r = begin; r < end; ++r) {
    const int32_t* from =
        s.indices + slice / s.depth * s.planes * plane + (slice % s.depth * s.height + r) * s.width;
    for (int axis = 0; axis < (s.volume ? 2 : 1); ++axis)
      std::memcpy(before + axis * pitch, from + axis * plane, sizeof(int32_t) * s.width);
    add_squares(before, s.volume ? slice % s.depth : r, s.width,
                static_cast<const A*>(s.first_squares), false, g);
    if (s.volume)
      add_squares(before + pitch, r, s.width, static_cast<const A*>(s.row_squares), true, g);
    line.solve(best, nearest);
    body(r, before, nearest, best);
  }
}

template <class A>
void nearest_of_rows(const Nearest& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  const int64_t pitch = padded(s.width), plane = s.depth * s.height * s.width;
  const int axes = s.volume ? 3 : 2;
  for_rows<A>(s, slice, begin, end, scratch,
              [&](int64_t r, int32_t* before, int32_t* nearest, A* best) {
                const int64_t first = (slice % s.depth * s.height + r) * s.width;
                int32_t* out = s.indices + slice / s.depth * axes * plane + first;
                for (int axis = 0; axis < axes - 1; ++axis)
                  gather(before + axis * pitch, nearest, s.width, out + axis * plane);
                std::memcpy(out + (axes - 1) * plane, nearest, sizeof(int32_t) * s.width);
                write(best, s.width, s.squared,
                      static_cast<float*>(s.distance) + slice / s.depth * plane + first);
              });
}

template <class A>
PK_INLINE bool is_within(A square, bool squared, double limit) {
  if (squared) return square <= limit;
  const double root = __builtin_sqrt(static_cast<double>(square));
  return static_cast<float>(root) <= static_cast<float>(limit);
}

// L has the size of a label.
template <class A, class L>
PK_INLINE void some_labels_of_rows(const Expansion& s, int64_t slice, int64_t begin, int64_t end,
                                   void* scratch) {
  const int64_t pitch = padded(s.width);
  const L* labels =
      static_cast<const L*>(s.labels) + slice / s.depth * s.depth * s.height * s.width;
  for_rows<A>(s, slice, begin, end, scratch,
              [&](int64_t r, int32_t* before, int32_t* nearest, A* best) {
                const int32_t* rows = s.volume ? before + pitch : before;
                L* out = static_cast<L*>(s.expanded) + (slice * s.height + r) * s.width;
                for (int64_t x = 0; x < s.width; ++x) {
                  const int32_t q = nearest[x];
                  out[x] = 0;
                  if (q < 0 || !is_within(best[x], s.squared, s.limit)) continue;
                  const int64_t depth = s.volume ? before[q] : 0;
                  out[x] = labels[(depth * s.height + rows[q]) * s.width + q];
                }
              });
}

template <class A>
void labels_of_rows(const Expansion& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  switch (s.label_bytes) {
    case 1:
      return some_labels_of_rows<A, uint8_t>(s, slice, begin, end, scratch);
    case 2:
      return some_labels_of_rows<A, uint16_t>(s, slice, begin, end, scratch);
    case 4:
      return some_labels_of_rows<A, uint32_t>(s, slice, begin, end, scratch);
    default:
      return some_labels_of_rows<A, uint64_t>(s, slice, begin, end, scratch);
  }
}

}  // namespace pixelkernels::distance::PK_ISA
