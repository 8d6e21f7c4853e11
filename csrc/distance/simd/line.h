// The nearest pixels along a line of pixels.
//
// The result at x is min_q g_q + (x - q)^2, where g are squared distances across the line. For
// increasing x the best q never moves left, if ties go to the smallest. So the best q of every
// kAnchorStep-th pixel, an anchor, is found by bisection, between those of its neighbours, and the
// pixels between two anchors try the q between theirs: about log2(W / kAnchorStep) + kAnchorStep /
// 8 vector steps per pixel, for every mask.
#pragma once

#include "common/simd.h"
#include "distance/kernels.h"

namespace pixelkernels::distance::PK_ISA {

using namespace pixelkernels::PK_ISA;

// The arithmetic of squares: the largest number, the square where there is no True pixel, and
// vectors of positions.
template <class A>
struct Squares {
  static constexpr A kMost = static_cast<A>(__builtin_inf()), kNone = kMost;
};
template <>
struct Squares<uint32_t> {
  static constexpr uint32_t kMost = ~0u, kNone = kFarSquare;
};
// Steps along an axis; kNowhere steps or more mean that there is none.
constexpr uint32_t kNowhere = 1u << 30;

PK_INLINE U32 square(U32 steps, float, uint32_t) {
  return steps >= kNowhere ? U32{} + kFarSquare : steps * steps;
}
PK_INLINE Vec<float> square(U32 steps, float spacing, float) {
  const Vec<float> d = __builtin_convertvector(steps, Vec<float>) * spacing;
  return steps >= kNowhere ? splat(__builtin_inff()) : d * d;
}

template <class A>
struct PositionsOf {
  typedef I32 type;
};
template <>
struct PositionsOf<double> {
  typedef I64 type;
};
template <class A>
using Positions = typename PositionsOf<A>::type;
template <class A>
PK_INLINE Positions<A> at(int64_t q) {
  return Positions<A>{} + static_cast<decltype(0 + Positions<A>{}[0])>(q);
}

// One line; g has a padding of kLanes, and squares too.
template <class A>
struct Line {
  A* g;
  const A* squares;  // of the distance between pixels, from the middle
  int32_t* site;     // the best q of anchor k, which is pixel min(k kAnchorStep, length - 1)
  int64_t length;

  int64_t pixel(int64_t anchor) const {
    return anchor * kAnchorStep < length ? anchor * kAnchorStep : length - 1;
  }

  // The smallest of the best q for x in [low, high].
  int32_t search(int64_t x, int64_t low, int64_t high) const {
    Vec<A> best = splat(Squares<A>::kMost);
    Positions<A> argmin = at<A>(low);
    for (int64_t q = low; q <= high; q += kLanes) {
      const Vec<A> value = load(g + q) + load(squares + (q - x));
      const auto better = value < best;
      argmin = better ? at<A>(q) : argmin;
      best = better ? value : best;
    }
    const Positions<A> lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    const Positions<A> ties = best == splat(least_lane(best)) ? argmin + lanes : at<A>(high);
    const int64_t found = least_lane(ties);
    // a q beyond `high` could win by rounding only
    return static_cast<int32_t>(found < high ? found : high);
  }

  void find_anchors() {
    const int64_t last = (length + kAnchorStep - 1) / kAnchorStep;
    site[0] = search(0, 0, length - 1);
    site[last] = search(length - 1, site[0], length - 1);
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
    for (int64_t k = 0; k * kAnchorStep < length; ++k) {
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

  // With the smallest of the best q of every pixel, or -1 where there is none.
  void fill(A* out, int32_t* nearest) const {
    constexpr int kVectors = kAnchorStep / kLanes;
    for (int64_t k = 0; k * kAnchorStep < length; ++k) {
      Vec<A> best[kVectors];
      Positions<A> argmin[kVectors];
      const A* near = squares + k * kAnchorStep;
      for (int v = 0; v < kVectors; ++v) {
        best[v] = splat(Squares<A>::kNone);
        argmin[v] = at<A>(-1);
      }
      for (int64_t q = site[k]; q <= site[k + 1]; ++q) {
        const Vec<A> here = splat(g[q]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const Vec<A> value = here + load(near - q + v * kLanes);
          argmin[v] = value < best[v] ? at<A>(q) : argmin[v];
          best[v] = value < best[v] ? value : best[v];
        }
      }
      for (int v = 0; v < kVectors; ++v) {
        const int64_t x = k * kAnchorStep + v * kLanes;
        store(out + x, best[v]);
        const I32 found = __builtin_convertvector(argmin[v], I32);
        std::memcpy(nearest + x, &found, sizeof found);
      }
    }
  }

  // The squared distances of all pixels, and the nearest ones.
  void solve(A* out) const {
    for_parts([&](int64_t x) { out[x] = 0; },
              [&](const Line& part, int64_t begin) { part.fill(out + begin); });
  }
  void solve(A* out, int32_t* nearest) const {
    for_parts(
        [&](int64_t x) {
          out[x] = 0;
          nearest[x] = static_cast<int32_t>(x);
        },
        [&](const Line& part, int64_t begin) {
          part.fill(out + begin, nearest + begin);
          for (int64_t x = begin; begin > 0 && x < begin + part.length; ++x)
            nearest[x] += static_cast<int32_t>(begin);
        });
  }

 private:
  // A pixel whose g is 0 is the nearest to itself, and none behind it is nearest to another. So
  // blocks of such pixels split the line: zero(x) for theirs, part(line, begin) for what is between
  // them, with the pixels next to it. A part may write behind its end.
  template <class Zero, class Part>
  PK_INLINE void for_parts(const Zero& zero, const Part& part) const {
    for (int64_t x = 0, end; x < length; x = end) {
      end = end_of_block(x);
      if (is_zero(x)) {
        for (int64_t i = x; i < end; ++i) zero(i);
        continue;
      }
      while (end < length && !is_zero(end)) end = end_of_block(end);
      const int64_t begin = x > 0 ? x - 1 : 0, behind = end < length ? end + 1 : length;
      const Vec<A> kept = load(g + behind);
      store(g + behind, splat(Squares<A>::kNone));
      Line between{g + begin, squares, site, behind - begin};
      between.find_anchors();
      part(between, begin);
      store(g + behind, kept);
    }
  }

  int64_t end_of_block(int64_t x) const {
    return length - x < kAnchorStep ? length : x + kAnchorStep;
  }

  bool is_zero(int64_t x) const {
    const int64_t end = end_of_block(x);
    A most = 0;
    for (; x < end; ++x) most = g[x] > most ? g[x] : most;
    return most == 0;
  }
};

}  // namespace pixelkernels::distance::PK_ISA
