// Reductions of all pairs of two images over both sides at once: the logsumexp, and the best match.
#pragma once

#include "similarity/simd/weighted.h"

namespace pixelkernels::similarity::PK_ISA {

template <class A>
int64_t pairs_scratch(const Pairs& m) {
  const int64_t packed = m.blocks_at_once * kPixelBlock * m.points.depth.padded();
  return static_cast<int64_t>(sizeof(A)) * (kMC * kPixelBlock + packed);
}

// The lanes of a vector of queries that count.
template <class A>
Mask<Widest<A>> kept_lanes(const Pairs& m, int64_t pixel) {
  Mask<Widest<A>> kept;
  for (int64_t i = 0; i < kLanesOf<A, Widest<A>>; ++i)
    kept[i] = pixel + i < m.pixels && (!m.kept || m.kept[pixel + i]) ? -1 : 0;
  return kept;
}

// One block of queries with some points, whose products are the rows of `dots`. What it keeps of
// the queries is that of a part, and of the points that of a group of blocks.
template <class A>
struct PairBlock {
  typedef Widest<A> V;
  static constexpr int64_t kAll = kLanesOf<A, V>;
  static constexpr A kNone = static_cast<A>(-__builtin_inff());

  const Pairs& m;
  int64_t begin, pixels;  // queries
  int64_t first, count;   // points
  int64_t part, group;
  A* dots;

  const A* row(int64_t lane) const { return vector_of(dots, lane, rows_of(tiles_of(count))); }
  int64_t of_queries(int64_t lane) const { return part * m.pixels + begin + lane; }
  int64_t of_points() const { return group * m.points.count + first; }

  // The lanes that lie inside the image, of an array of queries.
  template <class X, class Y>
  void load_some(const X* values, int64_t lane, Y& vector) const {
    for (int64_t i = 0; i < kAll && lane + i < pixels; ++i) vector[i] = values[i];
  }
  template <class X, class Y>
  void store_some(X* values, int64_t lane, const Y& vector) const {
    for (int64_t i = 0; i < kAll && lane + i < pixels; ++i) values[i] = vector[i];
  }

  void add_to_sums() const {
    V over_lanes[kMC];
    A most_of_point[kMC];
    const V scale = V{} + static_cast<A>(m.scale), none = V{} + kNone;
    for (int64_t p = 0; p < count; ++p) over_lanes[p] = none;
    for (int64_t lane = 0; lane < pixels; lane += kAll) add_row_sums(lane, over_lanes);
    A* largest = static_cast<A*>(m.column_largest) + of_points();
    double* sums = m.column_sums + of_points();
    for (int64_t p = 0; p < count; ++p) {
      A most = largest[p];
      for (int64_t i = 0; i < kAll; ++i) most = over_lanes[p][i] > most ? over_lanes[p][i] : most;
      most_of_point[p] = most;
      over_lanes[p] = V{};
      if (most > largest[p]) sums[p] *= __builtin_exp(static_cast<double>(largest[p] - most));
      largest[p] = most;
    }
    for (int64_t lane = 0; lane < pixels; lane += kAll) {
      const Mask<V> kept = kept_lanes<A>(m, begin + lane);
      const A* product = row(lane);
      for (int64_t p = 0; p < count; ++p) {
        const V e = exponential(scale * load_product(product, p) - most_of_point[p]);
        over_lanes[p] += kept ? e : V{};
      }
    }
    for (int64_t p = 0; p < count; ++p) sums[p] += sum_lanes(over_lanes[p]);
  }

  // The sums of a vector of queries, and the largest kept similarity of each point in each lane.
  void add_row_sums(int64_t lane, V* over_lanes) const {
    const V scale = V{} + static_cast<A>(m.scale), none = V{} + kNone;
    const Mask<V> kept = kept_lanes<A>(m, begin + lane);
    const A* product = row(lane);
    A* largest = static_cast<A*>(m.largest) + of_queries(lane);
    double* sums = m.sums + of_queries(lane);
    V before = none, most = none, sum = {};
    load_some(largest, lane, before);
    for (int64_t p = 0; p < count; ++p) {
      const V s = scale * load_product(product, p);
      most = s > most ? s : most;
      const V own = kept ? s : none;
      over_lanes[p] = own > over_lanes[p] ? own : over_lanes[p];
    }
    most = most > before ? most : before;
    for (int64_t p = 0; p < count; ++p) sum += exponential(scale * load_product(product, p) - most);
    const V fade = exponential(before - most);
    for (int64_t i = 0; i < kAll && lane + i < pixels; ++i) sums[i] = sums[i] * fade[i] + sum[i];
    store_some(largest, lane, most);
  }

  void find_best() const {
    V over_lanes[kMC];
    Mask<V> vectors[kMC];
    for (int64_t p = 0; p < count; ++p) {
      over_lanes[p] = V{} + kNone;
      vectors[p] = fill(Mask<V>{}, 0);
    }
    for (int64_t lane = 0; lane < pixels; lane += kAll) find_rows(lane, over_lanes, vectors);
    A* largest = static_cast<A*>(m.column_largest) + of_points();
    int32_t* best = m.column_best + of_points();
    for (int64_t p = 0; p < count; ++p) {
      // earlier blocks win ties, and so do earlier queries of this one
      int64_t found = -1;
      for (int64_t i = 0; i < kAll; ++i) {
        const int64_t pixel = begin + vectors[p][i] + i;
        const bool equal = found >= 0 && over_lanes[p][i] == largest[p] && pixel < found;
        if (over_lanes[p][i] > largest[p] || equal) {
          largest[p] = over_lanes[p][i];
          found = pixel;
        }
      }
      if (found >= 0) best[p] = static_cast<int32_t>(found);
    }
  }

  // The best points of a vector of queries, and of each point the best kept query in each lane.
  void find_rows(int64_t lane, V* over_lanes, Mask<V>* vectors) const {
    const V scale = V{} + static_cast<A>(m.scale), none = V{} + kNone;
    const Mask<V> kept = kept_lanes<A>(m, begin + lane), here = fill(Mask<V>{}, lane);
    const A *product = row(lane), *columns = static_cast<const A*>(m.columns);
    A* largest = static_cast<A*>(m.largest) + of_queries(lane);
    int32_t* best = m.best + of_queries(lane);
    A* similarity = static_cast<A*>(m.similarity) + of_queries(lane);
    V most = none, rows = {}, of_best = {};
    Mask<V> index = fill(Mask<V>{}, -1);
    load_some(largest, lane, most);
    load_some(best, lane, index);
    load_some(similarity, lane, of_best);
    if (m.rows) load_some(static_cast<const A*>(m.rows) + begin + lane, lane, rows);
    for (int64_t p = 0; p < count; ++p) {
      const V s = scale * load_product(product, p), score = columns ? s - columns[first + p] : s;
      const Mask<V> better = score > most;
      most = better ? score : most;
      index = better ? fill(Mask<V>{}, first + p) : index;
      of_best = better ? s : of_best;
      const V own = kept ? s - rows : none;
      const Mask<V> larger = own > over_lanes[p];
      over_lanes[p] = larger ? own : over_lanes[p];
      vectors[p] = larger ? here : vectors[p];
    }
    store_some(largest, lane, most);
    store_some(best, lane, index);
    store_some(similarity, lane, of_best);
  }
};

// body(PairBlock) for the blocks of a group and a part of the points: some points with all blocks
// before the next.
template <class T, class A, class Body>
PK_INLINE void for_pairs(const Pairs& m, int64_t group, int64_t part, void* scratch,
                         const Body& body) {
  const Depth& depth = m.points.depth;
  const int64_t panels = panels_of<A>(kPixelBlock), each = kPixelBlock * depth.padded();
  A *dots = static_cast<A*>(scratch), *packed = dots + kMC * kPixelBlock;
  const int64_t begin = group * m.blocks_at_once * kPixelBlock;
  const int64_t past = begin + m.blocks_at_once * kPixelBlock;
  const int64_t end = past < m.pixels ? past : m.pixels;
  const auto pixels_from = [&](int64_t at) {
    return end - at < kPixelBlock ? end - at : kPixelBlock;
  };
  const Plane<T> plane(m.queries, m.image);
  for (int64_t at = begin; at < end; at += kPixelBlock)
    pack_pixels(plane, depth, at, pixels_from(at), panels,
                packed + (at - begin) / kPixelBlock * each);
  const int64_t last = (part + 1) * m.step < m.points.count ? (part + 1) * m.step : m.points.count;
  for (int64_t first = part * m.step; first < last; first += kMC) {
    const int64_t count = last - first < kMC ? last - first : kMC;
    for (int64_t at = begin; at < end; at += kPixelBlock) {
      const A* own = packed + (at - begin) / kPixelBlock * each;
      products(m.points, first / kMR, tiles_of(count), Queries<A>::packed(own, depth, panels),
               panels, dots);
      body(PairBlock<A>{m, at, pixels_from(at), first, count, part, group, dots});
    }
  }
}

template <class T, class A>
void log_sums(const Pairs& m, int64_t group, int64_t part, void* scratch) {
  for_pairs<T, A>(m, group, part, scratch, [](const auto& block) { block.add_to_sums(); });
}

template <class T, class A>
void mutual_best(const Pairs& m, int64_t group, int64_t part, void* scratch) {
  for_pairs<T, A>(m, group, part, scratch, [](const auto& block) { block.find_best(); });
}

// The derivative of the log sums of a vector of queries and of point p in their similarity.
template <class A>
struct LogSumsWeights {
  typedef Widest<A> V;
  const Pairs& m;
  V rows, grad;
  Mask<V> kept;

  LogSumsWeights(const Pairs& m, int64_t pixel, int64_t count)
      : m(m), rows{}, grad{}, kept(kept_lanes<A>(m, pixel)) {
    for (int64_t i = 0; i < kLanesOf<A, V> && i < count; ++i) {
      rows[i] = static_cast<const A*>(m.rows)[pixel + i];
      grad[i] = static_cast<const A*>(m.grad_rows)[pixel + i];
    }
  }
  PK_INLINE V operator()(V product, int64_t p) const {
    const V s = static_cast<A>(m.scale) * product;
    const V weight =
        grad * exponential(s - rows) + static_cast<const A*>(m.grad_columns)[p] *
                                           exponential(s - static_cast<const A*>(m.columns)[p]);
    return kept ? static_cast<A>(m.scale) * weight : V{};
  }
};

template <class T, class A>
void log_sums_gradient(const Pairs& m, int64_t block, void* scratch) {
  gradient_of_block(m.points, Plane<T>(m.queries, m.image), Plane<T>(m.grad, m.image), block,
                    m.pixels, static_cast<A*>(scratch),
                    [&](int64_t at, int64_t count) { return LogSumsWeights<A>(m, at, count); });
}

}  // namespace pixelkernels::similarity::PK_ISA
