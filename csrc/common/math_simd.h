// What vectors of floats lack: any of a mask, the smaller and the larger, exponentials. Torch-free;
// one copy per instruction set.
#pragma once

#include "common/simd.h"

namespace pixelkernels {
namespace PK_ISA {

PK_INLINE bool any(I32 mask) {
#if defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  typedef int64_t Words __attribute__((vector_size(32)));
  const Words words = (Words)mask;
  return ((words[0] | words[1]) | (words[2] | words[3])) != 0;
#endif
}

// The smaller and the larger of two, b where one is NaN.
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

// 2^n x of whole numbers n. 2^n comes in two factors, since n reaches from the smallest subnormal
// number to past the largest.
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
PK_INLINE Vec<float> exponential(Vec<float> x) {
  x = larger(splat(-104.0f), smaller(splat(89.0f), x));
  // adding 1.5 * 2^23 rounds to a whole number
  const Vec<float> magic = splat(12582912.0f);
  const Vec<float> n = (x * 1.44269504f + magic) - magic;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> series = splat(1.0f / 5040);
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  return scaled(series, n);
}

}  // namespace PK_ISA
}  // namespace pixelkernels
