// The exact distance transform: along the first axis by counting steps, then line by line.
#pragma once

#include <type_traits>

#include "distance/simd/line.h"
#include "distance/simd/tile.h"

namespace pixelkernels::distance::PK_ISA {

// Steps along the first axis; kNowhere steps or more mean that there is none.
constexpr uint32_t kNowhere = 1u << 30;

PK_INLINE U32 load_bytes(const uint8_t* from, int64_t n) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  Bytes bytes = {};
  std::memcpy(&bytes, from, n);
  return __builtin_convertvector(bytes, U32);
}

PK_INLINE U32 square(const Transform&, U32 steps, uint32_t) {
  return steps >= kNowhere ? U32{} + kFarSquare : steps * steps;
}
PK_INLINE Vec<float> square(const Transform& s, U32 steps, float) {
  const Vec<float> d = __builtin_convertvector(steps, Vec<float>) * s.spacing;
  return steps >= kNowhere ? splat(__builtin_inff()) : d * d;
}

// kLabels: the steps to another label, or 0.
template <class A, bool kLabels>
PK_INLINE void some_lines(const Transform& s, int64_t mask, int64_t begin, int64_t n) {
  constexpr int kVectors = kColumnBlock / kLanes;
  const int64_t length = s.length(), lines = s.lines();
  const int64_t first = mask * length * lines + begin;
  const U32 start = s.border ? U32{} : U32{} + kNowhere;
  const U32 changes = U32{} + s.first_change();
  U32 steps[kVectors];
  uint32_t* out = static_cast<uint32_t*>(s.out) + first;
  const uint8_t* from = s.mask + first;
  for (int v = 0; v < kVectors; ++v) steps[v] = start;
  for (int64_t r = 0; r < length; ++r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      const U32 here = load_bytes(from + r * lines + v * kLanes, some);
      if constexpr (kLabels)
        steps[v] = (here & changes) != 0 ? U32{} + 1 : steps[v] + 1;
      else
        steps[v] = here != 0 ? U32{} : steps[v] + 1;
      std::memcpy(out + r * lines + v * kLanes, &steps[v], some * sizeof(uint32_t));
    }
  }
  for (int v = 0; v < kVectors; ++v) steps[v] = start + (kLabels ? 1 : 0);
  for (int64_t r = length - 1; r >= 0; --r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      uint32_t* at = out + r * lines + v * kLanes;
      U32 above = {};
      std::memcpy(&above, at, some * sizeof(uint32_t));
      U32 least;
      if constexpr (kLabels) {
        const U32 here = load_bytes(from + r * lines + v * kLanes, some);
        least = steps[v] < above ? steps[v] : above;
        least = (here & kBackground) != 0 ? U32{} : least;
        steps[v] = (here & changes) != 0 ? U32{} + 1 : steps[v] + 1;
      } else {
        least = steps[v] = steps[v] + 1 < above ? steps[v] + 1 : above;
      }
      const Vec<A> squares = square(s, least, A());
      std::memcpy(at, &squares, some * sizeof(A));
    }
  }
}

template <class A>
void first_axis(const Transform& s, int64_t mask, int64_t begin, int64_t end) {
  const auto with = [&](auto labels, int64_t n) { some_lines<A, labels>(s, mask, begin, n); };
  const auto some = [&](int64_t n) {
    s.labels ? with(std::true_type(), n) : with(std::false_type(), n);
  };
  // a constant trip count lets the compiler keep the vectors in registers
  end - begin == kColumnBlock ? some(kColumnBlock) : some(end - begin);
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

// The squares of the pixels in [begin, end) are at most those to begin - 1 and to end.
template <class A>
PK_INLINE void bound(const A* squares, int64_t begin, int64_t end, bool before, bool after,
                     A* best) {
  const int64_t left = before ? begin - 1 : end, right = after ? end : begin - 1;
  if (!before && !after) return;
  for (int64_t x = begin; x < end; ++x) {
    const A first = squares[x - left], last = squares[x - right];
    const A edge = first < last ? first : last;
    best[x] = edge < best[x] ? edge : best[x];
  }
}

// The first pixel after `from` with one of the bits, or `length`.
PK_INLINE int64_t next_change(const uint8_t* changes, int64_t from, int64_t length, uint8_t bits) {
  constexpr int64_t kBytes = 8;
  const uint64_t all = bits * 0x0101010101010101u;
  int64_t to = from + 1;
  for (uint64_t some; to + kBytes <= length; to += kBytes) {
    std::memcpy(&some, changes + to, kBytes);
    if (some & all) return to + __builtin_ctzll(some & all) / kBytes;
  }
  while (to < length && !(changes[to] & bits)) ++to;
  return to;
}

// The squares along a line, within the border of the image and within labels.
template <class A>
PK_INLINE void solve(const Transform& s, Line<A>& line, const uint8_t* changes, uint8_t along,
                     A* best) {
  line.solve(best);
  if (!s.labels) {
    bound(line.squares, 0, line.length, s.border, s.border, best);
    return;
  }
  for (int64_t from = 0, to; from < line.length; from = to) {
    to = next_change(changes, from, line.length, along);
    if (changes[from] & kBackground)
      for (int64_t x = from; x < to; ++x) best[x] = 0;
    else
      bound(line.squares, from, to, from > 0 || s.border, to < line.length || s.border, best);
  }
}

template <class A>
void columns(const Transform& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  const int64_t pitch = padded(s.height), n = end - begin;
  A* lines = static_cast<A*>(scratch);
  A* best = lines + kTileColumns * pitch;
  Line<A> line{lines, static_cast<const A*>(s.row_squares),
               reinterpret_cast<int32_t*>(best + pitch), s.height};
  uint8_t* changes = reinterpret_cast<uint8_t*>(best + 2 * pitch);
  const int64_t first = slice * s.height * s.width + begin;
  A* tile = static_cast<A*>(s.out) + first;
  read_tile(tile, s.width, s.height, n, lines);
  if (s.labels)
    for (int64_t y = 0; y < s.height; ++y)
      for (int64_t c = 0; c < n; ++c) changes[c * pitch + y] = s.mask[first + y * s.width + c];
  for (int64_t c = 0; c < n; ++c, line.g += pitch) {
    solve(s, line, changes + c * pitch, kAlongRows, best);
    std::memcpy(lines + c * pitch, best, sizeof(A) * s.height);
  }
  write_tile(lines, s.width, s.height, n, tile);
}

template <class A>
void rows(const Transform& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  A *g = static_cast<A*>(scratch), *best = g + padded(s.width);
  Line<A> line{g, static_cast<const A*>(s.column_squares),
               reinterpret_cast<int32_t*>(best + padded(s.width)), s.width};
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = (slice * s.height + r) * s.width;
    A* out = static_cast<A*>(s.out) + first;
    std::memcpy(g, out, sizeof(A) * s.width);
    solve(s, line, s.mask + first, kAlongColumns, best);
    write(best, s.width, s.squared, out);
  }
}

}  // namespace pixelkernels::distance::PK_ISA
