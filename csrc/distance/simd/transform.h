// The exact distance transform: along the first axis by counting steps, then line by line.
#pragma once

#include "distance/simd/labels.h"
#include "distance/simd/tile.h"

namespace pixelkernels::distance::PK_ISA {

template <class A>
PK_INLINE void some_lines(const Transform& s, int64_t mask, int64_t begin, int64_t n) {
  constexpr int kVectors = kColumnBlock / kLanes;
  const int64_t length = s.length(), lines = s.lines();
  const int64_t first = mask * length * lines + begin;
  const U32 start = s.border ? U32{} : U32{} + kNowhere;
  U32 steps[kVectors];
  uint32_t* out = static_cast<uint32_t*>(s.out) + first;
  const uint8_t* from = s.mask + first;
  for (int v = 0; v < kVectors; ++v) steps[v] = start;
  for (int64_t r = 0; r < length; ++r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      const U32 is_true = load_bytes(from + r * lines + v * kLanes, some);
      steps[v] = is_true != 0 ? U32{} : steps[v] + 1;
      std::memcpy(out + r * lines + v * kLanes, &steps[v], some * sizeof(uint32_t));
    }
  }
  for (int v = 0; v < kVectors; ++v) steps[v] = start;
  for (int64_t r = length - 1; r >= 0; --r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      uint32_t* at = out + r * lines + v * kLanes;
      U32 above = {};
      std::memcpy(&above, at, some * sizeof(uint32_t));
      steps[v] = steps[v] + 1 < above ? steps[v] + 1 : above;
      const Vec<A> squares = square(steps[v], s.first_spacing(), A());
      std::memcpy(at, &squares, some * sizeof(A));
    }
  }
}

template <class A>
PK_INLINE void some_labels(const Transform& s, int64_t mask, int64_t begin, int64_t n) {
  const int64_t first = mask * s.length() * s.lines() + begin;
  A* out = static_cast<A*>(s.out) + first;
  bound_lines<A, true>(s.mask + first, s.volume ? kAlongDepth : kAlongRows, s.border,
                       s.first_spacing(), s.length(), s.lines(), n,
                       static_cast<uint32_t*>(s.out) + first, s.lines(), out);
}

template <class A>
void first_axis(const Transform& s, int64_t mask, int64_t begin, int64_t end) {
  const int64_t n = end - begin;
  // a constant trip count lets the compiler keep the vectors in registers
  if (s.labels)
    n == kColumnBlock ? some_labels<A>(s, mask, begin, kColumnBlock)
                      : some_labels<A>(s, mask, begin, n);
  else
    n == kColumnBlock ? some_lines<A>(s, mask, begin, kColumnBlock)
                      : some_lines<A>(s, mask, begin, n);
}

PK_INLINE void write_roots(const float* squares, int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = __builtin_sqrtf(squares[i]);
}

// One row of the result.
PK_INLINE void write(uint32_t* squares, int64_t width, bool squared, void* out) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < width; ++i) {
    const uint32_t finite = squares[i] < kFarSquare ? squares[i] : 0;
    largest = finite > largest ? finite : largest;
  }
  if (squared) {
    int32_t* to = static_cast<int32_t*>(out);
    for (int64_t i = 0; i < width; ++i)
      to[i] = static_cast<int32_t>(squares[i] < kFarSquare ? squares[i] : kFarSquare - 1);
  } else if (largest > 1u << 24) {  // every smaller integer is a float
    float* to = static_cast<float*>(out);
    for (int64_t i = 0; i < width; ++i) {
      const double root = __builtin_sqrt(static_cast<double>(squares[i]));
      to[i] = squares[i] < kFarSquare ? static_cast<float>(root) : __builtin_inff();
    }
  } else {
    for (int64_t i = 0; i < width; i += kLanes) {
      // what is not below kFarSquare is negative as an int32
      const Vec<float> value = __builtin_convertvector((I32)load(squares + i), Vec<float>);
      const Vec<float> finite = value < 0 ? splat(__builtin_inff()) : value;
      std::memcpy(squares + i, &finite, sizeof finite);
    }
    write_roots(reinterpret_cast<const float*>(squares), width, static_cast<float*>(out));
  }
}
PK_INLINE void write(const float* squares, int64_t width, bool, void* out) {
  write_roots(squares, width, static_cast<float*>(out));
}

// What lies outside of a line is True.
template <class A>
PK_INLINE void bound(const Line<A>& line, A* best) {
  for (int64_t x = 0; x < line.length; ++x) {
    const A before = line.squares[x + 1], after = line.squares[x - line.length];
    const A edge = before < after ? before : after;
    best[x] = edge < best[x] ? edge : best[x];
  }
}

// The n columns that begin at pixel `first`; `scratch` holds kTileColumns values for each row.
template <class A>
PK_INLINE void bound_tile(const Transform& s, int64_t first, int64_t n, void* scratch) {
  bound_lines<A, false>(s.mask + first, kAlongRows, s.border, s.row_spacing, s.height, s.width, n,
                        static_cast<uint32_t*>(scratch), kTileColumns,
                        static_cast<A*>(s.out) + first);
}

template <class A>
void columns(const Transform& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  const int64_t pitch = padded(s.height), n = end - begin;
  A* lines = static_cast<A*>(scratch);
  A* best = lines + kTileColumns * pitch;
  Line<A> line{lines, static_cast<const A*>(s.row_squares),
               reinterpret_cast<int32_t*>(best + pitch), s.height};
  const int64_t first = slice * s.height * s.width + begin;
  A* tile = static_cast<A*>(s.out) + first;
  read_tile(tile, s.width, s.height, n, lines);
  for (int64_t c = 0; c < n; ++c, line.g += pitch) {
    line.solve(best);
    if (s.border && !s.labels) bound(line, best);
    std::memcpy(lines + c * pitch, best, sizeof(A) * s.height);
  }
  write_tile(lines, s.width, s.height, n, tile);
  if (!s.labels) return;
  n == kTileColumns ? bound_tile<A>(s, first, kTileColumns, scratch)
                    : bound_tile<A>(s, first, n, scratch);
}

template <class A>
void rows(const Transform& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  A *g = static_cast<A*>(scratch), *best = g + padded(s.width);
  Line<A> line{g, static_cast<const A*>(s.column_squares),
               reinterpret_cast<int32_t*>(best + padded(s.width)), s.width};
  int32_t* last = line.site + padded(s.width);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = (slice * s.height + r) * s.width;
    A* out = static_cast<A*>(s.out) + first;
    std::memcpy(g, out, sizeof(A) * s.width);
    line.solve(best);
    if (s.labels)
      bound_line(s.mask + first, kAlongColumns, s.border, s.column_spacing, s.width, last, best);
    else if (s.border)
      bound(line, best);
    write(best, s.width, s.squared, out);
  }
}

}  // namespace pixelkernels::distance::PK_ISA
