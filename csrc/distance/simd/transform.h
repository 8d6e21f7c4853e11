// The exact distance transform, one axis after the other.
//
// Along a row the result is min_q g_q + (x - q)^2, where g are the squares along the columns. For
// increasing x the best q never moves left, whatever the tie-break. So the best q of every
// kAnchorStep-th pixel, an anchor, is found by bisection, between those of its neighbours, and the
// pixels between two anchors try the q between theirs: about log2(W / kAnchorStep) + kAnchorStep /
// 8 vector steps per pixel, for every mask.
#pragma once

#include "common/simd.h"
#include "distance/kernels.h"

namespace pixelkernels::distance::PK_ISA {

using namespace pixelkernels::PK_ISA;

// The arithmetic of a Transform.
template <class A>
struct Squares;
template <>
struct Squares<uint32_t> {
  static constexpr uint32_t kMost = ~0u;
  static constexpr uint32_t kNone = kFarSquare;
};
template <>
struct Squares<float> {
  static constexpr float kMost = __builtin_inff();
  static constexpr float kNone = __builtin_inff();
};

// Squares of distances in rows; kNowhere rows or more mean that there is none.
constexpr uint32_t kNowhere = 1u << 30;

PK_INLINE U32 square(const Transform&, U32 rows, uint32_t) {
  return rows >= kNowhere ? U32{} + kFarSquare : rows * rows;
}
PK_INLINE Vec<float> square(const Transform& s, U32 rows, float) {
  const Vec<float> d = __builtin_convertvector(rows, Vec<float>) * s.row_spacing;
  return rows >= kNowhere ? splat(__builtin_inff()) : d * d;
}

template <class A>
PK_INLINE void some_columns(const Transform& s, int64_t image, int64_t begin, int64_t n) {
  constexpr int kVectors = kColumnBlock / kLanes;
  const int64_t first = image * s.height * s.width + begin;
  const U32 start = s.border ? U32{} : U32{} + kNowhere;
  U32 rows[kVectors];
  uint32_t* out = static_cast<uint32_t*>(s.out) + first;
  const uint8_t* mask = s.mask + first;
  for (int v = 0; v < kVectors; ++v) rows[v] = start;
  for (int64_t r = 0; r < s.height; ++r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t lanes = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      uint8_t bytes[kLanes] = {};
      typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
      Bytes is_true;
      std::memcpy(bytes, mask + r * s.width + v * kLanes, lanes);
      std::memcpy(&is_true, bytes, sizeof is_true);
      rows[v] = __builtin_convertvector(is_true, U32) != 0 ? U32{} : rows[v] + 1;
      std::memcpy(out + r * s.width + v * kLanes, &rows[v], lanes * sizeof(uint32_t));
    }
  }
  for (int v = 0; v < kVectors; ++v) rows[v] = start;
  for (int64_t r = s.height - 1; r >= 0; --r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t lanes = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      uint32_t* at = out + r * s.width + v * kLanes;
      U32 above = {};
      std::memcpy(&above, at, lanes * sizeof(uint32_t));
      rows[v] = rows[v] + 1 < above ? rows[v] + 1 : above;
      const Vec<A> squares = square(s, rows[v], A());
      std::memcpy(at, &squares, lanes * sizeof(A));
    }
  }
}

template <class A>
void columns(const Transform& s, int64_t image, int64_t begin, int64_t end) {
  // a constant trip count lets the compiler keep the vectors in registers
  end - begin == kColumnBlock ? some_columns<A>(s, image, begin, kColumnBlock)
                              : some_columns<A>(s, image, begin, end - begin);
}

// One row; g and squares are padded by kLanes.
template <class A>
struct Row {
  const A* g;
  const A* squares;  // of the distance between columns, from the middle
  int32_t* site;     // the best q of anchor k, which is pixel min(k kAnchorStep, W - 1)
  int64_t width;

  int64_t pixel(int64_t anchor) const {
    return anchor * kAnchorStep < width ? anchor * kAnchorStep : width - 1;
  }

  int32_t search(int64_t x, int64_t low, int64_t high) const {
    Vec<A> best = splat(Squares<A>::kMost);
    I32 argmin = {};
    argmin += static_cast<int32_t>(low);
    for (int64_t q = low; q <= high; q += kLanes) {
      const Vec<A> value = load(g + q) + load(squares + (q - x));
      const I32 here = I32{} + static_cast<int32_t>(q);
      argmin = value < best ? here : argmin;
      best = value < best ? value : best;
    }
    int lane = 0;
    for (int i = 1; i < kLanes; ++i) lane = best[i] < best[lane] ? i : lane;
    // a q beyond `high` could win by rounding only
    const int64_t found = argmin[lane] + lane;
    return static_cast<int32_t>(found < high ? found : high);
  }

  void find_anchors() {
    const int64_t last = (width + kAnchorStep - 1) / kAnchorStep;
    site[0] = search(0, 0, width - 1);
    site[last] = search(width - 1, site[0], width - 1);
    int64_t step = 1;
    while (step < last) step *= 2;
    for (; step > 1; step /= 2) {
      for (int64_t k = step / 2; k < last; k += step) {
        const int64_t right = k + step / 2 < last ? k + step / 2 : last;
        site[k] = search(pixel(k), site[k - step / 2], site[right]);
      }
    }
  }

  void fill(A* out) const {
    constexpr int kVectors = kAnchorStep / kLanes;
    for (int64_t k = 0; k * kAnchorStep < width; ++k) {
      Vec<A> best[kVectors];
      const A* near = squares + k * kAnchorStep;
      for (int v = 0; v < kVectors; ++v) best[v] = splat(Squares<A>::kNone);
      for (int64_t q = site[k]; q <= site[k + 1]; ++q) {
        const Vec<A> here = splat(g[q]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const Vec<A> value = here + load(near - q + v * kLanes);
          best[v] = value < best[v] ? value : best[v];
        }
      }
      for (int v = 0; v < kVectors; ++v) store(out + k * kAnchorStep + v * kLanes, best[v]);
    }
  }
};

PK_INLINE void write_roots(const float* squares, int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = __builtin_sqrtf(squares[i]);
}

PK_INLINE void write(const Transform& s, uint32_t* squares, void* out) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < s.width; ++i) {
    const uint32_t finite = squares[i] < kFarSquare ? squares[i] : 0;
    largest = finite > largest ? finite : largest;
  }
  if (s.squared) {
    int32_t* to = static_cast<int32_t*>(out);
    for (int64_t i = 0; i < s.width; ++i)
      to[i] = static_cast<int32_t>(squares[i] < kFarSquare ? squares[i] : kFarSquare - 1);
  } else if (largest > 1u << 24) {  // every smaller integer is a float
    float* to = static_cast<float*>(out);
    for (int64_t i = 0; i < s.width; ++i) {
      const double root = __builtin_sqrt(static_cast<double>(squares[i]));
      to[i] = squares[i] < kFarSquare ? static_cast<float>(root) : __builtin_inff();
    }
  } else {
    for (int64_t i = 0; i < s.width; i += kLanes) {
      // what is not below kFarSquare is negative as an int32
      const Vec<float> value = __builtin_convertvector((I32)load(squares + i), Vec<float>);
      const Vec<float> finite = value < 0 ? splat(__builtin_inff()) : value;
      std::memcpy(squares + i, &finite, sizeof finite);
    }
    write_roots(reinterpret_cast<const float*>(squares), s.width, static_cast<float*>(out));
  }
}
PK_INLINE void write(const Transform& s, const float* squares, void* out) {
  write_roots(squares, s.width, static_cast<float*>(out));
}

template <class A>
void rows(const Transform& s, int64_t image, int64_t begin, int64_t end, void* scratch) {
  A *g = static_cast<A*>(scratch), *best = g + s.width + 2 * kAnchorStep;
  const A* squares = static_cast<const A*>(s.squares);
  Row<A> row{g, squares, reinterpret_cast<int32_t*>(best + s.width + 2 * kAnchorStep), s.width};
  for (int64_t i = s.width; i < s.width + kLanes; ++i) g[i] = Squares<A>::kNone;
  for (int64_t r = begin; r < end; ++r) {
    A* out = static_cast<A*>(s.out) + (image * s.height + r) * s.width;
    std::memcpy(g, out, sizeof(A) * s.width);
    row.find_anchors();
    row.fill(best);
    if (s.border)
      for (int64_t x = 0; x < s.width; ++x) {
        const A left = squares[x + 1], right = squares[x - s.width];
        const A beside = left < right ? left : right;
        best[x] = beside < best[x] ? beside : best[x];
      }
    write(s, best, out);
  }
}

}  // namespace pixelkernels::distance::PK_ISA
