// How the passes of a distance transform store, add and order squared distances. A pass chooses,
// for pixel x of a line, the site q of the least cost: the square of q from the earlier passes plus
// that of the x - q steps along the line.
//
//   Square    a squared distance; kNone, more than any other, without a True pixel
//   Cost      a square with what does not depend on x; kMost, at least as much as any
//   square    of so many steps along the axis
//   lifted    the Cost of a square at q; cost(lifted(s, q), x, q) orders the candidates of x
//   unlifted  the Square of a cost
//   distance  a Square as the result has it, in 32 bits
#pragma once

#include <limits>

#include "distance/cuda/kernels.cuh"

namespace pixelkernels::distance::cuda {

// Squares are below 2^31, and 2^31 means none. A Cost includes q^2 + 2^30, so that of x is
// it - 2xq, plus the common term x^2 - 2^30. For sides up to 2^15 - 1 it lies within [0, 2^32), in
// any order of summation.
struct Exact {
  using Square = unsigned;
  using Cost = unsigned;
  static constexpr Square kNone = 1u << 31;
  static constexpr Cost kMost = ~0u, kLift = 1u << 30;
  bool squared;

  __device__ Square square(int steps) const {
    return static_cast<unsigned>(steps) * static_cast<unsigned>(steps);
  }
  __device__ Square sum(Square a, Square b) const { return a + b; }
  __device__ Cost lifted(Square s, int q) const { return s + square(q) + kLift; }
  __device__ Square unlifted(Cost cost, int x) const { return cost + square(x) - kLift; }
  __device__ Cost cost(Cost lifted, int x, int q) const {
    return lifted - 2u * static_cast<unsigned>(x) * static_cast<unsigned>(q);
  }
  // The least cost of the candidates q, q + 1, q + 2 and q + 3.
  __device__ Cost least_cost(const Cost* lifted, int x, int q) const {
    const uint4 four = *reinterpret_cast<const uint4*>(lifted);
    const unsigned step = 0u - 2u * static_cast<unsigned>(x);
    const unsigned least =
        min(min(four.x, four.y + step), min(four.z + 2 * step, four.w + 3 * step));
    return least + step * static_cast<unsigned>(q);
  }
  __device__ unsigned distance(Square s) const {
    if (squared) return min(s, kNone - 1);
    if (s >= kNone) return __float_as_uint(INFINITY);
    // a float holds every integer up to 2^24
    return __float_as_uint(s <= 1u << 24 ? __fsqrt_rn(static_cast<float>(s))
                                         : static_cast<float>(sqrt(double(s))));
  }
};

// The bits of float32, which have the order of the numbers.
struct Scaled {
  using Square = unsigned;
  using Cost = unsigned;
  static constexpr Square kNone = 0x7f800000;  // infinity
  static constexpr Cost kMost = ~0u;
  float spacing;
  float unit;  // of all spacings

  __device__ float rounded_square(float steps) const {
    const float distance = __fmul_rn(spacing, steps);
    return __fmul_rn(distance, distance);
  }
  __device__ Square square(int steps) const { return __float_as_uint(rounded_square(steps)); }
  __device__ Cost lifted(Square s, int) const { return s; }
  __device__ Square unlifted(Cost cost, int) const { return cost; }
  __device__ Cost cost(Cost lifted, int x, int q) const {
    return __float_as_uint(__fadd_rn(__uint_as_float(lifted), __uint_as_float(square(x - q))));
  }
  __device__ Cost least_cost(const Cost* lifted, int x, int q) const {
    const uint4 four = *reinterpret_cast<const uint4*>(lifted);
    const float steps = x - q;  // conversions are slow, so one for all four
    const auto of = [&](unsigned value, float back) {
      return __float_as_uint(__fadd_rn(__uint_as_float(value), rounded_square(steps - back)));
    };
    return min(min(of(four.x, 0), of(four.y, 1)), min(of(four.z, 2), of(four.w, 3)));
  }
  __device__ unsigned distance(Square s) const {
    return __float_as_uint(__fmul_rn(unit, __fsqrt_rn(__uint_as_float(s))));
  }
};

// float64, with the bits of the other backends, so without fused multiply-add. The sites of a line
// do not decrease in spite of the rounding: from one pixel to the next, the difference of the costs
// of two sites grows by at least 2 spacing^2, which is more than the rounding errors.
struct Precise {
  using Square = double;
  using Cost = double;
  static constexpr double kNone = std::numeric_limits<double>::infinity(), kMost = kNone;
  double spacing;

  __device__ double rounded_square(double steps) const {
    const double distance = __dmul_rn(spacing, steps);
    return __dmul_rn(distance, distance);
  }
  __device__ Square square(int steps) const { return rounded_square(steps); }
  __device__ Square sum(Square a, Square b) const { return __dadd_rn(a, b); }
  __device__ Cost lifted(Square s, int) const { return s; }
  __device__ Square unlifted(Cost cost, int) const { return cost; }
  __device__ Cost cost(Cost lifted, int x, int q) const { return sum(lifted, square(x - q)); }
  __device__ Cost least_cost(const Cost* lifted, int x, int q) const {
    struct alignas(16) Two {
      double first, second;
    };
    const Two low = reinterpret_cast<const Two*>(lifted)[0];
    const Two high = reinterpret_cast<const Two*>(lifted)[1];
    const double steps = x - q;
    const auto of = [&](double value, double back) {
      return sum(value, rounded_square(steps - back));
    };
    const auto least = [](double a, double b) { return b < a ? b : a; };
    return least(least(of(low.first, 0), of(low.second, 1)),
                 least(of(high.first, 2), of(high.second, 3)));
  }
  __device__ unsigned distance(Square s) const {
    return __float_as_uint(static_cast<float>(sqrt(s)));
  }
};

// The least site of those with the least cost in a warp.
__device__ inline int first_of_least(unsigned least, int site) {
  const bool wins = least == __reduce_min_sync(kWholeWarp, least);
  return static_cast<int>(__reduce_min_sync(kWholeWarp, wins ? site : ~0u));
}
// Costs are not negative, so their order is that of their bits.
__device__ inline int first_of_least(double least, int site) {
  const auto bits = static_cast<uint64_t>(__double_as_longlong(least));
  const auto high = static_cast<unsigned>(bits >> 32);
  const bool leads = high == __reduce_min_sync(kWholeWarp, high);
  const unsigned low = leads ? static_cast<unsigned>(bits) : ~0u;
  const bool wins = low == __reduce_min_sync(kWholeWarp, low) && leads;
  return static_cast<int>(__reduce_min_sync(kWholeWarp, wins ? site : ~0u));
}

}  // namespace pixelkernels::distance::cuda
