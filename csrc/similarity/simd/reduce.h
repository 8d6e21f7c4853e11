// The reductions over a class's points.
//
// The points of a class are adjacent, so a reduction receives runs: points [begin, end) of one
// class, whose products with a panel of queries are the rows of `dots`. A State accumulates them
// for one panel and class, and finish() turns it into scores.
#pragma once

#include "similarity/simd/values.h"

namespace pixelkernels::similarity::PK_ISA {

// A panel of queries, and the norms that turn its products into similarities.
template <Metric metric, class A>
struct Panel {
  const Matching& m;
  Vec<A> query[kNRVectors<A>];

  Panel(const Matching& m, const A* square) : m(m) {
    for (int v = 0; v < kNRVectors<A>; ++v)
      query[v] = about_query<metric, A>(load(square + v * kLanes));
  }
  template <class V = Vec<A>>
  PK_INLINE V at(const A* dots, int64_t p, int v) const {
    const A point = m.points.square ? static_cast<const A*>(m.points.square)[p] : 0;
    V dot, about;
    std::memcpy(&dot, dots + v * kLanesOf<A, V>, sizeof dot);
    std::memcpy(&about, reinterpret_cast<const A*>(query) + v * kLanesOf<A, V>, sizeof about);
    return similarity<metric, A>(dot, about, point, static_cast<A>(m.eps));
  }
};

// Query pixels of a panel, whose results are stored together.
struct Lanes {
  int64_t pixel;
  int64_t count;  // at most kLanes
};

template <class A>
PK_INLINE void store_lanes(A* p, Vec<A> x, int64_t count) {
  if (count == kLanes) return store(p, x);
  for (int64_t i = 0; i < count; ++i) p[i] = x[i];
}

// `count` lanes of an array; the others are 0.
template <class A, class V = Vec<A>>
PK_INLINE V load_lanes(const void* values, int64_t at, int64_t count) {
  constexpr int64_t kAll = kLanesOf<A, V>;
  const A* p = static_cast<const A*>(values) + at;
  V x = {};
  if (count >= kAll)
    std::memcpy(&x, p, sizeof x);
  else
    for (int64_t i = 0; i < count; ++i) x[i] = p[i];
  return x;
}

template <class A>
PK_INLINE Vec<double> widen(Vec<A> x) {
  return __builtin_convertvector(x, Vec<double>);
}
template <class A>
PK_INLINE Vec<A> narrow(Vec<double> x) {
  return __builtin_convertvector(x, Vec<A>);
}

// v = transform(scale s + shift) of a similarity s
template <Transform transform, class A, class V>
PK_INLINE V value(const Matching& m, V s) {
  return transformed<transform>(static_cast<A>(m.scale) * s + static_cast<A>(m.shift));
}

template <class A>
PK_INLINE Vec<A> any_value(const Matching& m, Vec<A> s) {
  if (m.transform == Transform::kSigmoid) return value<Transform::kSigmoid, A>(m, s);
  if (m.transform == Transform::kExp) return value<Transform::kExp, A>(m, s);
  return value<Transform::kIdentity, A>(m, s);
}

template <class A>
PK_INLINE A score_factor(const Matching& m, int64_t c) {
  return static_cast<const A*>(m.factor)[c];
}

template <class A>
PK_INLINE Vec<A> worst(const Matching& m) {
  return splat(static_cast<A>(m.smaller ? __builtin_inf() : -__builtin_inf()));
}

template <class A>
PK_INLINE A* score_of(const Matching& m, int64_t c, const Lanes& lanes) {
  return static_cast<A*>(m.scores) + c * m.pixels + lanes.pixel;
}

template <Transform transform, class A>
struct Sum {
  typedef double State;
  static int64_t states(const Matching&) { return kNR<A>; }
  static void clear(const Matching&, State* state) {
    std::memset(state, 0, sizeof(State) * kNR<A>);
  }
  template <Metric metric>
  static void run(const Panel<metric, A>& panel, A* dots, int64_t begin, int64_t end,
                  State* state) {
    typedef Widest<A> V;
    constexpr int kVectors = kNR<A> / kLanesOf<A, V>;
    V sums[kVectors] = {};
    for (int64_t p = begin; p < end; ++p, dots += kNR<A>)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
        sums[v] += value<transform, A>(panel.m, panel.template at<V>(dots, p, v));
    for (int v = 0; v < kNRVectors<A>; ++v) {
      const Vec<A> sum = load(reinterpret_cast<const A*>(sums) + v * kLanes);
      store(state + v * kLanes, load(state + v * kLanes) + widen<A>(sum));
    }
  }
  static void finish(const Matching& m, const State* state, int64_t v, const Lanes& lanes) {
    for (int64_t c = 0; c < m.classes; ++c) {
      const Vec<double> sum = load(state + c * states(m) + v * kLanes);
      const Vec<A> score = m.count[c] ? score_factor<A>(m, c) * narrow<A>(sum) : worst<A>(m);
      store_lanes(score_of<A>(m, c, lanes), score, lanes.count);
    }
  }
};

// The best k similarities, best first. All transforms are increasing, so only the selected values
// are transformed.
template <class A>
struct Best {
  // for each of the k a row of similarities and a row of indices
  typedef A State;
  static int64_t states(const Matching& m) { return 2 * m.k * kNR<A>; }

  static void clear(const Matching& m, State* state) {
    for (int64_t i = 0; i < m.k; ++i)
      for (int v = 0; v < kNRVectors<A>; ++v)
        put(row(state, i, v), splat(-static_cast<A>(__builtin_inf())), integers<A>(-1));
  }

  // 1 if the largest similarity is the best, -1 if the smallest is
  static A direction(const Matching& m) {
    if (m.reduce == Reduce::kTopK && m.metric == Metric::kSqeuclidean) return -1;
    return (m.scale < 0) == (m.reduce == Reduce::kMin) ? 1 : -1;
  }

  template <Metric metric>
  static void run(const Panel<metric, A>& panel, A* dots, int64_t begin, int64_t end,
                  State* state) {
    const A sign = direction(panel.m);
    const int64_t k = panel.m.k;
    for (int v = 0; v < kNRVectors<A>; ++v) {
      A* last = row(state, k - 1, v);
      Vec<A> bar = load(last);
      // NaN ranks above all numbers, as in torch: nothing displaces it
      Integers<A> open = bar == bar;
      bool full = !any(places(last) < 0);
      const A* dot = dots;
      for (int64_t p = begin; p < end; ++p, dot += kNR<A>) {
        Vec<A> candidate = sign * panel.at(dot, p, v);
        if (full && !any(~(candidate <= bar) & open)) continue;
        Integers<A> argbest = integers<A>(p);
        // tie-break: the smaller index
        for (int64_t i = 0; i < k && any(argbest >= 0); ++i) {
          A* slot = row(state, i, v);
          const Vec<A> have = load(slot);
          const Integers<A> from = places(slot);
          // the candidate may be a displaced one, which comes before later ones of its value
          const Integers<A> better = (candidate > have) | (from < 0) |
                                     ((candidate == have) & (argbest < from)) |
                                     ((candidate != candidate) & (have == have));
          put(slot, better ? candidate : have, better ? argbest : from);
          candidate = better ? have : candidate;
          argbest = better ? from : argbest;
        }
        bar = load(last);
        open = bar == bar;
        full = full || !any(places(last) < 0);
      }
    }
  }

  static void finish(const Matching& m, const State* state, int64_t v, const Lanes& lanes) {
    const A sign = direction(m);
    for (int64_t c = 0; c < m.classes; ++c, state += states(m)) {
      const int64_t taken = m.count[c] < m.k ? m.count[c] : m.k;
      Vec<A> sum = {}, edge = {};
      Integers<A> argbest = integers<A>(-1);
      for (int64_t i = 0; i < taken; ++i) {
        const A* slot = row(state, i, static_cast<int>(v));
        edge = sign * load(slot);
        // of equal values at the edge the last has the largest index
        argbest = places(slot);
        sum += any_value<A>(m, edge);
      }
      const Vec<A> score = taken ? score_factor<A>(m, c) * sum : worst<A>(m);
      store_lanes(score_of<A>(m, c, lanes), score, lanes.count);
      const int64_t at = c * m.pixels + lanes.pixel;
      for (int64_t i = 0; i < lanes.count; ++i)
        m.argbest[at + i] = static_cast<int32_t>(argbest[i]);
      if (m.reduce == Reduce::kTopK) store_lanes(static_cast<A*>(m.edge) + at, edge, lanes.count);
    }
  }

 private:
  static PK_INLINE A* row(State* state, int64_t i, int v) {
    return state + 2 * i * kNR<A> + v * kLanes;
  }
  static PK_INLINE const A* row(const State* state, int64_t i, int v) {
    return state + 2 * i * kNR<A> + v * kLanes;
  }
  static PK_INLINE Integers<A> places(const A* slot) {
    Integers<A> x;
    std::memcpy(&x, slot + kNR<A>, sizeof x);
    return x;
  }
  static PK_INLINE void put(A* slot, Vec<A> value, Integers<A> argbest) {
    store(slot, value);
    std::memcpy(slot + kNR<A>, &argbest, sizeof argbest);
  }
};

// Per class the largest v, the sum of e^(v - largest), and that sum weighted by the points' values.
template <Transform transform, class A>
struct Softmax {
  typedef double State;
  static int64_t states(const Matching&) { return 3 * kNR<A>; }
  static void clear(const Matching&, State* state) {
    std::memset(state, 0, sizeof(State) * 3 * kNR<A>);
    for (int i = 0; i < kNR<A>; ++i) state[i] = kLowest;
  }
  template <Metric metric>
  static void run(const Panel<metric, A>& panel, A* dots, int64_t begin, int64_t end,
                  State* state) {
    const A* values = static_cast<const A*>(panel.m.points.value);
    for (int v = 0; v < kNRVectors<A>; ++v, state += kLanes) {
      A* dot = dots + v * kLanes;
      Vec<A> most = narrow<A>(load(state));
      for (int64_t p = begin; p < end; ++p, dot += kNR<A>) {
        const Vec<A> x = value<transform, A>(panel.m, panel.at(dot - v * kLanes, p, v));
        store(dot, x);
        most = x > most ? x : most;
      }
      dot = dots + v * kLanes;
      Vec<A> sum = {}, weighted = {};
      for (int64_t p = begin; p < end; ++p, dot += kNR<A>) {
        const Vec<A> e = exponential(load(dot) - most);
        sum += e;
        if (values) weighted += e * values[p];
      }
      const Vec<double> fade = widen<A>(exponential(narrow<A>(load(state)) - most));
      store(state, widen<A>(most));
      add(state + kNR<A>, fade, sum);
      add(state + 2 * kNR<A>, fade, values ? weighted : sum);
    }
  }
  static void finish(const Matching& m, const State* state, int64_t v, const Lanes& lanes) {
    state += v * kLanes;
    Vec<double> most = splat(kLowest), total = {};
    for (int64_t c = 0; c < m.classes; ++c) {
      const Vec<double> own = load(state + c * states(m));
      most = own > most ? own : most;
    }
    for (int64_t c = 0; c < m.classes; ++c) {
      const double* at = state + c * states(m);
      total += exponential(load(at) - most) * load(at + kNR<A>);
    }
    for (int64_t c = 0; c < m.classes; ++c) {
      const double* at = state + c * states(m);
      const Vec<double> part = exponential(load(at) - most) * load(at + 2 * kNR<A>) / total;
      store_lanes(score_of<A>(m, c, lanes), m.count[c] ? narrow<A>(part) : worst<A>(m),
                  lanes.count);
    }
    for (int64_t i = 0; i < lanes.count; ++i)
      static_cast<A*>(m.edge)[lanes.pixel + i] =
          static_cast<A>(total[i] > 0 ? most[i] + __builtin_log(total[i]) : most[i]);
  }

 private:
  static constexpr double kLowest = -3e38;
  static PK_INLINE void add(double* sum, Vec<double> fade, Vec<A> more) {
    store(sum, load(sum) * fade + widen<A>(more));
  }
};

template <Reduce reduce, Transform transform, class A>
struct ReductionOf {
  using type = Sum<transform, A>;
};
template <Transform transform, class A>
struct ReductionOf<Reduce::kMax, transform, A> {
  using type = Best<A>;
};
template <Transform transform, class A>
struct ReductionOf<Reduce::kSoftmax, transform, A> {
  using type = Softmax<transform, A>;
};

}  // namespace pixelkernels::similarity::PK_ISA
