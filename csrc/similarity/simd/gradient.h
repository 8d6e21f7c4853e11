// Gradients of a round of queries and a chunk of points: the products again, dL/ds from them, and
// the products of dL/ds with both sides.
#pragma once

#include "similarity/simd/finish.h"
#include "similarity/simd/scores.h"

namespace pixelkernels::similarity::PK_ISA {

template <class T, class A>
void pack_query(const Gradient& g, int64_t block) {
  const Parts<A> parts(g, block);
  const Depth& depth = parts.depth;
  std::memset(parts.row_sums(), 0, sizeof(A) * kPixelBlock);
  std::memset(parts.totals(), 0, sizeof(double) * kTotals);
  pack_pixels(Plane<T>(g.matching.query, g.matching.image), depth, parts.begin, parts.pixels,
              parts.panels, parts.packed());
  square_pixels(depth, parts.panels, parts.queries(), parts.square());
  if (!g.query) return;
  std::memset(parts.query(), 0, sizeof(A) * parts.row_panels * kMR * kPixelBlock);
  const bool unit = g.matching.metric == Metric::kCosine;
  for (int64_t t = 0; t < kPixelBlock; t += kLanes) {
    Vec<A> scale = splat(static_cast<A>(1));
    if (unit) scale = about_query<Metric::kCosine, A>(load(parts.square() + t));
    for (int64_t d = 0; d < depth.tiled(); d += kLanes) {
      Vec<A> rows[kLanes] = {};
      if (d < depth.padded()) {
        const A* from = parts.packed() + parts.packed_row(d, t / kNR<A>) + t % kNR<A>;
        for (int c = 0; c < kLanes; ++c) rows[c] = scale * load(from + c * kNR<A>);
        transpose(rows);
      }
      A* to = parts.transposed() + (d / kNR<A> * kPixelBlock + t) * kNR<A> + d % kNR<A>;
      for (int i = 0; i < kLanes; ++i) store(to + i * kNR<A>, rows[i]);
    }
  }
  if constexpr (split::kAvailable<A>)
    if (g.split_queries)
      g.queries_fit[block] =
          split::split_queries(parts.transposed(), parts.pieces(), parts.split_queries());
}

// dL/d(scale s + shift), point by point, for a vector of queries and one class.
template <Transform transform, class A>
struct SumWeight {
  static constexpr bool kTotal = false;  // whether it also returns a value that is summed
  const Matching& m;
  Widest<A> grad;
  SumWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count)
      : m(g.matching),
        grad(score_factor<A>(m, c) *
             load_lanes<A, Widest<A>>(g.grad_scores, c * m.pixels + pixel, count)) {}
  PK_INLINE Widest<A> operator()(Widest<A> s, int64_t, Widest<A>&) const {
    return grad * slope<transform>(value<transform, A>(m, s));
  }
};

template <class A>
struct BestWeight {
  static constexpr bool kTotal = false;
  const Matching& m;
  Widest<A> grad, edge;
  Mask<Widest<A>> argbest;
  A sign;
  bool several;
  BestWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count)
      : m(g.matching),
        grad(score_factor<A>(m, c) *
             load_lanes<A, Widest<A>>(g.grad_scores, c * m.pixels + pixel, count)),
        edge{},
        argbest(Mask<Widest<A>>{} - 1),
        sign(Best<A>::direction(m)),
        several(m.reduce == Reduce::kTopK) {
    const int64_t at = c * m.pixels + pixel;
    for (int64_t i = 0; i < kLanesOf<A, Widest<A>> && i < count; ++i)
      argbest[i] = m.argbest[at + i];
    if (several) edge = sign * load_lanes<A, Widest<A>>(m.edge, at, count);
  }
  PK_INLINE Widest<A> operator()(Widest<A> s, int64_t p, Widest<A>&) const {
    const Mask<Widest<A>> here = fill(Mask<Widest<A>>{}, p);
    Mask<Widest<A>> taken = here == argbest;
    if (several) {
      const Widest<A> key = sign * s;
      taken |= (key > edge) | ((key == edge) & (here < argbest));
    }
    if (!any(taken)) return Widest<A>{};
    Widest<A> rise = Widest<A>{} + 1;
    if (m.transform == Transform::kSigmoid)
      rise = slope<Transform::kSigmoid>(value<Transform::kSigmoid, A>(m, s));
    if (m.transform == Transform::kExp) rise = value<Transform::kExp, A>(m, s);
    return taken ? grad * rise : Widest<A>{};
  }
};

template <Transform transform, class A>
struct SoftmaxWeight {
  static constexpr bool kTotal = false;
  const Matching& m;
  const A* values;
  Widest<A> grad, centre, log_sum;
  SoftmaxWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count)
      : m(g.matching),
        values(static_cast<const A*>(m.points.value)),
        grad(load_lanes<A, Widest<A>>(g.grad_scores, c * m.pixels + pixel, count)),
        centre(load_lanes<A, Widest<A>>(g.centre, pixel, count)),
        log_sum(load_lanes<A, Widest<A>>(m.edge, pixel, count)) {}
  PK_INLINE Widest<A> operator()(Widest<A> s, int64_t p, Widest<A>& value_gradient) const {
    const Widest<A> x = value<transform, A>(m, s);
    value_gradient = exponential(x - log_sum);
    const Widest<A> weight = value_gradient * ((values ? grad * values[p] : grad) - centre);
    value_gradient *= grad;
    return weight * slope<transform>(x);
  }
};

// The cross entropy of one pair and its derivative: softplus(-z) for equal labels, else
// softplus(z).
template <class A>
struct PairWeight {
  static constexpr bool kTotal = true;
  const Matching& m;
  Widest<A> sign;
  PairWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count) : m(g.matching), sign{} {
    for (int64_t i = 0; i < kLanesOf<A, Widest<A>> && i < count; ++i)
      sign[i] = g.query_class[pixel + i] == c ? A(-1) : A(1);
  }
  PK_INLINE Widest<A> operator()(Widest<A> s, int64_t, Widest<A>& loss) const {
    const Softplus<Widest<A>> about = softplus(sign * value<Transform::kIdentity, A>(m, s));
    loss = about.value;
    return sign * about.sigmoid;
  }
};

template <class Weight, class A>
struct BlockWeights {
  const Gradient& g;
  int64_t block;
  A* dots;

  template <Metric metric>
  void run() const {
    const Matching& m = g.matching;
    const Parts<A> parts(g, block);
    const int64_t chunk_tiles = tiles_of(g.points);
    char* scratch = reinterpret_cast<char*>(dots + kMC * kPixelBlock);
    Queries<A> query = parts.queries();
    query.split_into(scratch, m, parts.panels);
    for (int64_t tile = 0; tile < chunk_tiles; tile += kMCPanels) {
      const int64_t left = chunk_tiles - tile;
      const int64_t tiles = left < kMCPanels ? left : kMCPanels;
      const int64_t first = tile * kMR;
      products(m.points, g.chunk / kMR + tile, tiles, query, parts.panels, dots);
      for (int64_t i = 0; i < parts.panels; ++i) {
        A* own = dots + i * rows_of(tiles) * kNR<A>;
        A* weights = g.query ? parts.weights() + (i * parts.rows + first) * kNR<A> : own;
        weights_of_block<metric>(parts, i, first, own, weights);
      }
      if (g.query) add_to_queries(parts, first, tiles, scratch + split::scores_bytes(m));
    }
  }

  // Adds the part of these points to dL/dq: their products with the weights.
  void add_to_queries(const Parts<A>& parts, int64_t first, int64_t tiles, char* scratch) const {
    const Points& points = g.matching.points;
    const int64_t all = tiles_of(points.count) * kMR, rows = tiles * kMR;
    const A* weights = parts.weights() + first * kNR<A>;
    const int64_t next = parts.rows * kNR<A>;
    if constexpr (split::kAvailable<A>) {
      split::Term* split = reinterpret_cast<split::Term*>(scratch);
      const int64_t group = first / kMC;
      if (points.split && split::split_weights(weights, next, parts.panels, rows, split))
        return split::add_to_queries(points,
                                     static_cast<const split::Term*>(g.split_points) +
                                         group * split::transposed_terms(parts.depth, points.terms),
                                     tiles, split, parts.panels, parts.query());
    }
    take_panels(
        parts.row_panels, parts.panels, [&](int64_t row_panel, int64_t panel, auto at_once) {
          constexpr int kPanels = decltype(at_once)::kPanels;
          Sums<kPanels, decltype(at_once)::kRows, A> sums = {};
          micro_kernel<kMR, 1>(
              static_cast<const A*>(points.transposed) + (row_panel * all + g.chunk + first) * kMR,
              all * kMR, weights + panel * next, next, rows, sums);
          for (int p = 0; p < kPanels; ++p)
            add_rows(parts.query() + (row_panel * parts.panels + panel + p) * kMR * kNR<A>,
                     parts.panels * kMR * kNR<A>, sums[p]);
        });
  }

  // Points [first, ...) of the chunk with panel i.
  template <Metric metric>
  void weights_of_block(const Parts<A>& parts, int64_t i, int64_t first, const A* dots,
                        A* weights) const {
    const Matching& m = g.matching;
    const Panel<metric, A> panel(m, parts.square() + i * kNR<A>);
    const int64_t begin = g.chunk + first, scratch = kMC;
    const int64_t past =
        begin + scratch < g.chunk + g.points ? begin + scratch : g.chunk + g.points;
    const A scale = static_cast<A>(m.scale);
    const A alpha = static_cast<A>(g.alpha), beta = static_cast<A>(g.beta);
    const bool columns = metric == Metric::kSqeuclidean, values = g.values != nullptr;
    std::memset(weights + (past - begin) * kNR<A>, 0,
                sizeof(A) * (tiles_of(past - begin) * kMR - (past - begin)) * kNR<A>);
    typedef Widest<A> V;
    constexpr int kAll = kLanesOf<A, V>;
    for (int v = 0; v < kNR<A> / kAll; ++v) {
      const int64_t lane = i * kNR<A> + v * kAll;
      const int64_t count = parts.pixels - lane;
      Mask<V> there;
      for (int64_t j = 0; j < kAll; ++j) there[j] = j < count ? -1 : 0;
      V shifts = {}, scales = {}, besides = {};
      for_runs(m.points, begin, past, [&](int64_t c, int64_t from, int64_t to) {
        const Weight weight(g, c, parts.begin + lane, count);
        for (int64_t p = from; p < to; ++p) {
          const int64_t row = p - begin;
          V beside = {};
          const V s = panel.template at<V>(dots + row * kNR<A>, p, v);
          V w = weight(s, p, beside);
          w = there ? w : V{};
          beside = there ? beside : V{};
          shifts += w;
          scales += w * s;
          if (Weight::kTotal) w -= alpha + beta * s;
          w *= scale;
          std::memcpy(weights + row * kNR<A> + v * kAll, &w, sizeof w);
          if (columns) add(parts.columns() + first + row, lane, sum_lanes(w));
          if (Weight::kTotal) besides += beside;
          if (values) add(parts.values() + first + row, lane, sum_lanes(beside));
        }
      });
      V sums;
      std::memcpy(&sums, parts.row_sums() + lane, sizeof sums);
      sums += scale * shifts;
      std::memcpy(parts.row_sums() + lane, &sums, sizeof sums);
      parts.totals()[0] += sum_lanes(shifts);
      parts.totals()[1] += sum_lanes(scales);
      parts.totals()[2] += sum_lanes(besides);
    }
  }
  // the first lanes of a block start the sum
  static PK_INLINE void add(double* sum, int64_t lane, A x) { *sum = (lane ? *sum : 0) + x; }
};

template <Reduce reduce, Transform transform, class A>
struct WeightOf {
  using type = SumWeight<transform, A>;
};
template <Transform transform, class A>
struct WeightOf<Reduce::kMax, transform, A> {
  using type = BestWeight<A>;
};
template <Transform transform, class A>
struct WeightOf<Reduce::kSoftmax, transform, A> {
  using type = SoftmaxWeight<transform, A>;
};

template <class A>
struct AnyWeights {
  const Gradient& g;
  int64_t block;
  A* dots;

  template <Reduce reduce, Transform transform>
  void run() const {
    using Weight = typename WeightOf<reduce, transform, A>::type;
    with_metric<A>(g.matching, BlockWeights<Weight, A>{g, block, dots});
  }
};

template <class A>
void weights_of_block(const Gradient& g, int64_t block, void* scratch) {
  with_reduction(g.matching, AnyWeights<A>{g, block, static_cast<A*>(scratch)});
}

template <class A>
void pair_weights_of_block(const Gradient& g, int64_t block, void* scratch) {
  BlockWeights<PairWeight<A>, A>{g, block, static_cast<A*>(scratch)}.template run<Metric::kDot>();
}

// sums [tiles][pieces][MR][NR] += weights of tiles [first, last) times the block's queries
template <class A>
void add_to_points(const Parts<A>& parts, int64_t first, int64_t last, A* sums, A* scratch) {
  const int64_t pieces = parts.pieces(), next = parts.rows * kNR<A>;
  const A* weights = parts.weights() + first * kMR * kNR<A>;
  if constexpr (split::kAvailable<A>)
    if (parts.g.split_queries && parts.g.queries_fit[parts.block] &&
        split::add_to_points(weights, next, last - first, parts.split_queries(), pieces,
                             reinterpret_cast<split::Term*>(scratch), sums))
      return;
  const int64_t each = kMR * kNR<A>;
  take_panels(last - first, pieces, [&](int64_t tile, int64_t piece, auto at_once) {
    constexpr int kPieces = decltype(at_once)::kPanels;
    Sums<kPieces, decltype(at_once)::kRows, A> rows = {};
    for (int64_t i = 0; i < parts.panels; ++i)
      micro_kernel<1, kNR<A>>(weights + i * next + tile * each, each,
                              parts.transposed() + (piece * kPixelBlock + i * kNR<A>)*kNR<A>,
                              kPixelBlock * kNR<A>, kNR<A>, rows);
    for (int p = 0; p < kPieces; ++p)
      add_rows(sums + (tile * pieces + piece + p) * each, pieces * each, rows[p]);
  });
}

// Adds the round to the gradients of some points of the chunk. The blocks are summed first, so that
// no sum is long.
template <class A>
void gather(const Gradient& g, int64_t group, void* scratch) {
  const Depth& depth = g.matching.points.depth;
  const int64_t tiles = tiles_of(g.points), first = group * kGatheredTiles;
  const int64_t last = first + kGatheredTiles < tiles ? first + kGatheredTiles : tiles;
  const int64_t each = depth.tiled() * kMR, values = (last - first) * each;
  A* round = static_cast<A*>(scratch);
  std::memset(round, 0, sizeof(A) * values);
  for (int64_t block = 0; block < g.blocks; ++block) {
    const Parts<A> parts(g, block);
    add_to_points(parts, first, last, round, round + kGatheredTiles * each);
    const int64_t end = last * kMR < g.points ? last * kMR : g.points;
    for (int64_t p = first * kMR; p < end; ++p) {
      if (g.columns) g.columns[g.chunk + p] += parts.columns()[p];
      if (g.values) g.values[g.chunk + p] += parts.values()[p];
    }
  }
  A* out = static_cast<A*>(g.point) + (g.chunk / kMR + first) * each;
  for (int64_t i = 0; i < values; i += kLanes) store(out + i, load(out + i) + load(round + i));
}

}  // namespace pixelkernels::similarity::PK_ISA
