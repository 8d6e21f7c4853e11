// Operations that vector extensions lack: any, min, max, exp; for eight lanes, and for as many as a
// register holds.
#pragma once

#include "common/simd.h"

namespace pixelkernels::PK_ISA {

template <class A>
struct WidestOf {
  typedef Vec<A> type;
};
#if defined(__AVX512F__)
template <>
struct WidestOf<float> {
  typedef float type __attribute__((vector_size(64)));
};
#endif
template <class A>
using Widest = typename WidestOf<A>::type;
// The result of comparing such vectors.
template <class V>
using Mask = decltype(V{} < V{});
template <class A, class V>
constexpr int kLanesOf = sizeof(V) / sizeof(A);

PK_INLINE bool any(I32 mask) {
#if defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  typedef int64_t Words __attribute__((vector_size(32)));
  const Words words = (Words)mask;
  return ((words[0] | words[1]) | (words[2] | words[3])) != 0;
#endif
}

PK_INLINE bool any(I64 mask) {
  int64_t all = 0;
  for (int i = 0; i < kLanes; ++i) all |= mask[i];
  return all != 0;
}

// Minimum and maximum; b if one is NaN.
PK_INLINE Vec<float> smaller(Vec<float> a, Vec<float> b) {
#if defined(__AVX2__)
  return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}
PK_INLINE Vec<float> larger(Vec<float> a, Vec<float> b) {
#if defined(__AVX2__)
  return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

#if defined(__AVX512F__)
PK_INLINE bool any(Mask<Widest<float>> mask) {
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
}
// masked, because GCC warns that the other lanes are uninitialised
constexpr __mmask16 kAllLanes = 0xffff;
PK_INLINE float sum_lanes(Widest<float> v) {
  Vec<float> halves[2];
  std::memcpy(halves, &v, sizeof halves);
  return sum_lanes(halves[0] + halves[1]);
}
PK_INLINE Widest<float> smaller(Widest<float> a, Widest<float> b) {
  return (Widest<float>)_mm512_maskz_min_ps(kAllLanes, (__m512)a, (__m512)b);
}
PK_INLINE Widest<float> larger(Widest<float> a, Widest<float> b) {
  return (Widest<float>)_mm512_maskz_max_ps(kAllLanes, (__m512)a, (__m512)b);
}
PK_INLINE Widest<float> scaled(Widest<float> x, Widest<float> n) {
  return (Widest<float>)_mm512_maskz_scalef_ps(kAllLanes, (__m512)x, (__m512)n);
}
#endif

// 2^n x for integers n, in two factors, because n reaches from the smallest subnormal number to
// past the largest.
PK_INLINE Vec<float> scaled(Vec<float> x, Vec<float> n) {
#if defined(__AVX512VL__)
  return (Vec<float>)_mm256_scalef_ps((__m256)x, (__m256)n);
#else
  const I32 whole = __builtin_convertvector(n, I32);
  const I32 half = whole >> 1;
  return x * (Vec<float>)((half + 127) << 23) * (Vec<float>)((whole - half + 127) << 23);
#endif
}

// e^x = 2^n e^r with |r| <= log(2) / 2, where eight terms of the series are exact to float.
template <class V>
PK_INLINE V float_exponential(V x) {
  x = larger(V{} - 104.0f, smaller(V{} + 89.0f, x));
  // adding 1.5 * 2^23 rounds to a whole number
  const V magic = V{} + 12582912.0f;
  const V n = (x * 1.44269504f + magic) - magic;
  const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V series = V{} + 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  return scaled(series, n);
}
PK_INLINE Vec<float> exponential(Vec<float> x) { return float_exponential(x); }
PK_INLINE Vec<double> exponential(Vec<double> x) {
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}
#if defined(__AVX512F__)
PK_INLINE Widest<float> exponential(Widest<float> x) { return float_exponential(x); }
#endif

}  // namespace pixelkernels::PK_ISA
