// From products to similarities and scores, vectorised.
#pragma once

#include "common/math.h"
#include "similarity/simd/product.h"

namespace pixelkernels::similarity::PK_ISA {

// Integers as wide as a float, for the results of comparisons and for indices.
template <class A>
struct IntegersOf;
template <>
struct IntegersOf<float> {
  using type = I32;
};
template <>
struct IntegersOf<double> {
  using type = I64;
};
template <class A>
using Integers = typename IntegersOf<A>::type;

PK_INLINE I32 fill(I32, int64_t value) { return I32{} + static_cast<int32_t>(value); }
PK_INLINE I64 fill(I64, int64_t value) { return I64{} + value; }
#if defined(__AVX512F__)
PK_INLINE Mask<Widest<float>> fill(Mask<Widest<float>>, int64_t value) {
  return Mask<Widest<float>>{} + static_cast<int32_t>(value);
}
#endif

template <class A>
PK_INLINE Integers<A> integers(int64_t value) {
  return fill(Integers<A>{}, value);
}

template <Transform transform, class V>
PK_INLINE V transformed(V x) {
  if (transform == Transform::kExp) return exponential(x);
  if (transform == Transform::kSigmoid) return 1 / (1 + exponential(-x));
  return x;
}

// the derivative as a function of the transformed value
template <Transform transform, class V>
PK_INLINE V slope(V y) {
  if (transform == Transform::kExp) return y;
  if (transform == Transform::kSigmoid) return y * (1 - y);
  return V{} + 1;
}

// 1 / (1 + e^-x) and log(1 + e^x), which share an exponential.
template <class V>
struct Softplus {
  V sigmoid, value;
};

// With e = e^-|x|, log(1 + e) = 2 artanh(e / (2 + e)) is accurate for every e; the series, a
// polynomial in the square, is within 5e-9.
template <class V>
PK_INLINE Softplus<V> softplus(V x) {
  const V zero = {};
  const V e = exponential(x < zero ? x : -x);
  const V inverse = 1 / ((1 + e) * (2 + e));
  const V t = e * (1 + e) * inverse, square = t * t;
  V series = V{} + 0.281577796f;
  series = series * square + 0.279651582f;
  series = series * square + 0.400245965f;
  series = series * square + 0.666663229f;
  series = series * square + 2.0f;
  const V sigmoid = (2 + e) * inverse;
  return {x < zero ? e * sigmoid : sigmoid, (x < zero ? zero : x) + t * series};
}

PK_INLINE Softplus<Vec<double>> softplus(Vec<double> x) {
  const Vec<double> zero = {}, e = exponential(x < zero ? x : -x);
  Vec<double> log = e;
  for (int i = 0; i < kLanes; ++i) log[i] = __builtin_log1p(e[i]);
  return {x < zero ? e / (1 + e) : 1 / (1 + e), (x < zero ? zero : x) + log};
}

// The norms of a panel of queries: 1 / |q|, |q|^2 or |q|.
template <Metric metric, class A>
PK_INLINE Vec<A> about_query(Vec<A> square) {
  if (metric == Metric::kDot) return Vec<A>{};
  if (metric == Metric::kSqeuclidean) return square;
  Vec<A> norm = {};
  for (int i = 0; i < kLanes; ++i)
    norm[i] = static_cast<A>(__builtin_sqrt(static_cast<double>(square[i])));
  if (metric == Metric::kPrior) return norm;
  const Vec<A> least = splat(static_cast<A>(1e-12));
  return 1 / (norm < least ? least : norm);
}

template <Metric metric, class A, class V>
PK_INLINE V similarity(V dot, V query, A point, A eps) {
  if (metric == Metric::kCosine) return dot * query;  // the points are already normalised
  if (metric == Metric::kPrior) return dot / (query * point + eps);
  if (metric == Metric::kSqeuclidean) {
    const V square = (query + point) - 2 * dot;
    return square < V{} ? V{} : square;
  }
  return dot;
}

}  // namespace pixelkernels::similarity::PK_ISA
