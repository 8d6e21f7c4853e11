// Vectors of eight lanes in GCC/Clang vector extensions: a register of AVX2; AVX-512 runs the same
// code with more registers, and the baseline splits it. Torch-free.
//
// The build compiles every <family>/simd/kernels.cpp once for each instruction set, named by
// PK_ISA. The linker keeps one copy of an inline function or template that several objects define,
// whatever they were compiled for. So all code of an instruction set lives in a namespace PK_ISA,
// and nothing from the standard library's templates may be used in it.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__x86_64__)
#include <emmintrin.h>
#endif

#define PK_INLINE inline __attribute__((always_inline))

namespace pixelkernels::PK_ISA {

constexpr int kLanes = 8;

template <class A>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kLanes * sizeof(float))));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kLanes * sizeof(double))));
};
template <class A>
using Vec = typename VecOf<A>::type;

// Storage types of the 16-bit floats; arithmetic is done in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct AccumulateOf {
  using type = float;
};
template <>
struct AccumulateOf<double> {
  using type = double;
};
template <class T>
using Accumulate = typename AccumulateOf<T>::type;

template <class A>
PK_INLINE Vec<A> splat(A value) {
  return value - Vec<A>{};
}

template <class A>
PK_INLINE Vec<A> load(const A* p) {
  Vec<A> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class A>
PK_INLINE void store(A* p, Vec<A> v) {
  std::memcpy(p, &v, sizeof v);
}

// p may be null if n is 0.
template <class A>
PK_INLINE void clear(A* p, int64_t count) {
  if (count > 0) std::memset(p, 0, sizeof(A) * count);
}

typedef uint16_t U16 __attribute__((vector_size(16)));
typedef uint32_t U32 __attribute__((vector_size(32)));
typedef int32_t I32 __attribute__((vector_size(32)));
typedef int64_t I64 __attribute__((vector_size(64)));

template <>
struct VecOf<uint32_t> {
  typedef U32 type;
};

// n bytes, then zeros.
PK_INLINE U32 load_bytes(const uint8_t* p, int64_t n) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  Bytes bytes = {};
  std::memcpy(&bytes, p, n < kLanes ? n : kLanes);
  return __builtin_convertvector(bytes, U32);
}

PK_INLINE Vec<float> load(const BFloat16* p) {
  U16 raw;
  std::memcpy(&raw, p, sizeof raw);
  return (Vec<float>)(__builtin_convertvector(raw, U32) << 16);
}

PK_INLINE void store(BFloat16* p, Vec<float> v) {
  const U32 bits = (U32)v;
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quiet_nan = (bits >> 16) | 0x40u;
  const U16 out = __builtin_convertvector((v == v) ? rounded : quiet_nan, U16);
  std::memcpy(p, &out, sizeof out);
}

PK_INLINE Vec<float> load(const Half* p) {
#if defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vec<float> v;
  for (int i = 0; i < kLanes; ++i) {
    _Float16 x;
    std::memcpy(&x, p + i, sizeof x);
    v[i] = static_cast<float>(x);
  }
  return v;
#endif
}

PK_INLINE void store(Half* p, Vec<float> v) {
#if defined(__F16C__)
  const __m128i out = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &out, sizeof out);
#else
  for (int i = 0; i < kLanes; ++i) {
    const _Float16 x = static_cast<_Float16>(v[i]);
    std::memcpy(p + i, &x, sizeof x);
  }
#endif
}

PK_INLINE float scalar(float x) { return x; }
PK_INLINE double scalar(double x) { return x; }
PK_INLINE float scalar(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
PK_INLINE float scalar(Half x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  _Float16 value;
  std::memcpy(&value, &x, sizeof value);
  return static_cast<float>(value);
#endif
}

template <class T>
PK_INLINE void store_scalar(T* p, Accumulate<T> x) {
  T padded[kLanes];
  store(padded, splat(x));
  *p = padded[0];
}
PK_INLINE void store_scalar(Half* p, float x) {
#if defined(__F16C__)
  p->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
  const _Float16 value = static_cast<_Float16>(x);
  std::memcpy(p, &value, sizeof value);
#endif
}

// A vector whose lanes from `count` on are replaced by 0.
template <class V>
PK_INLINE V first_lanes(V v, int64_t count) {
  typedef decltype(v < v) Lanes;
  const Lanes lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return lane < Lanes{} + static_cast<decltype(lane[0] + 0)>(count) ? v : V{};
}

// `count` elements in the first lanes, and 0 in the others, which are not read.
template <class T>
PK_INLINE Vec<Accumulate<T>> load_some(const T* p, int64_t count) {
  if (count >= kLanes) return load(p);
  T padded[kLanes] = {};
  for (int i = 0; i < count; ++i) padded[i] = p[i];
  return load(padded);
}
#if defined(__AVX512VL__)
PK_INLINE __mmask8 mask_of(int64_t count) {
  return static_cast<__mmask8>(count >= kLanes ? 0xff : (1u << count) - 1);
}
PK_INLINE Vec<float> load_some(const float* p, int64_t count) {
  return (Vec<float>)_mm256_maskz_loadu_ps(mask_of(count), p);
}
PK_INLINE Vec<double> load_some(const double* p, int64_t count) {
  return (Vec<double>)_mm512_maskz_loadu_pd(mask_of(count), p);
}
PK_INLINE Vec<float> load_some(const Half* p, int64_t count) {
  return (Vec<float>)_mm256_cvtph_ps(_mm_maskz_loadu_epi16(mask_of(count), p));
}
#endif

// The first `count` lanes; nothing past them is written.
template <class A>
PK_INLINE void store_some(A* p, Vec<A> v, int64_t count) {
  if (count >= kLanes) return store(p, v);
  for (int i = 0; i < count; ++i) p[i] = v[i];
}

// to[i] = from[i], with non-temporal stores, which do not read a line before writing it: half the
// traffic of an output that would leave the caches before it is read. A fence() must follow the
// last store.
template <class T>
PK_INLINE void store_all(T* to, const Accumulate<T>* from, int64_t n, bool past_caches) {
  int64_t i = 0;
#if defined(__x86_64__)
  if (past_caches) {
    for (; i < n && reinterpret_cast<uintptr_t>(to + i) % 64 != 0; ++i)
      store_scalar(to + i, from[i]);
    for (; i + kLanes <= n; i += kLanes) {
      T eight[kLanes];
      store(eight, load(from + i));
      constexpr size_t kPart = sizeof(__m128i);
      __m128i part[sizeof eight / kPart];
      std::memcpy(part, eight, sizeof part);
#pragma GCC unroll 4
      for (size_t k = 0; k < sizeof part / sizeof *part; ++k)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i) + k, part[k]);
    }
  }
#endif
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
  for (; i < n; ++i) store_scalar(to + i, from[i]);
}

// Orders the non-temporal stores before all later stores.
PK_INLINE void fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// rows[i][j] <-> rows[j][i]
template <class V>
PK_INLINE void transpose(V rows[kLanes]) {
  V a[kLanes], b[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 2) {
    a[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    a[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; ++i) {
    if (i & 2) continue;
    b[i] = __builtin_shufflevector(a[i], a[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    b[i + 2] = __builtin_shufflevector(a[i], a[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    rows[i + 4] = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

template <class V>
PK_INLINE V sum_rows(const V rows[kLanes]) {
  return ((rows[0] + rows[1]) + (rows[2] + rows[3])) + ((rows[4] + rows[5]) + (rows[6] + rows[7]));
}

template <class V>
PK_INLINE auto least_lane(V v) {
  V w = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
  v = w < v ? w : v;
  w = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
  v = w < v ? w : v;
  w = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
  v = w < v ? w : v;
  return v[0];
}

template <class V>
PK_INLINE auto sum_lanes(V v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

}  // namespace pixelkernels::PK_ISA
