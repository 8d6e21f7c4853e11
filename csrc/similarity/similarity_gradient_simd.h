// Gradients of a round of queries and a chunk of points: products once more, from them dL/ds, and
// the two products of that with the other side. Torch-free; one copy per instruction set.
#pragma once

#include "similarity/similarity_scores_simd.h"

namespace pixelkernels {
namespace PK_ISA {

// Where the parts of a block lie.
template <class A>
struct Parts {
  const Gradient& g;
  const Depth& depth;
  int64_t block, panels, rows, sixes;
  int64_t begin, pixels;  // queries

  Parts(const Gradient& g, int64_t block)
      : g(g),
        depth(g.matching.points.depth),
        block(block),
        panels(panels_of<A>(kBlock)),
        rows(tiles_of(g.points) * kTile),
        sixes(tiles_of(depth.padded())),
        begin((g.round + block) * kBlock) {
    const int64_t left = g.matching.pixels - begin;
    pixels = left < kBlock ? left : kBlock;
  }
  A* packed() const { return static_cast<A*>(g.packed) + block * depth.padded() * kBlock; }
  Queries<A> queries() const { return Queries<A>::packed(packed(), depth, panels); }
  A* across() const { return static_cast<A*>(g.across) + block * depth.tiled() * kBlock; }
  A* square() const { return static_cast<A*>(g.square) + block * kBlock; }
  A* weights() const { return static_cast<A*>(g.weights) + block * rows * kBlock; }
  A* query() const { return static_cast<A*>(g.query) + block * sixes * kTile * kBlock; }
  A* row_sums() const { return static_cast<A*>(g.row_sums) + block * kBlock; }
  double* totals() const { return g.totals + kTotals * block; }
  double* columns() const { return g.block_columns + block * rows; }
  double* values() const { return g.block_values + block * rows; }
  // the row of channel d in a block's panels, and in its gradient
  int64_t packed_row(int64_t d, int64_t panel) const {
    return ((d / depth.slab * panels + panel) * depth.slab + d % depth.slab) * kPanel<A>;
  }
  int64_t query_row(int64_t d, int64_t panel) const {
    return ((d / kTile * panels + panel) * kTile + d % kTile) * kPanel<A>;
  }
};

template <class T, class A>
void pack_query(const Gradient& g, int64_t block) {
  const Parts<A> parts(g, block);
  const Depth& depth = parts.depth;
  std::memset(parts.row_sums(), 0, sizeof(A) * kBlock);
  std::memset(parts.totals(), 0, sizeof(double) * kTotals);
  pack_pixels(Plane<T>(g.matching.query, g.matching.image), depth, parts.begin, parts.pixels,
              parts.panels, parts.packed());
  square_pixels(depth, parts.panels, parts.queries(), parts.square());
  if (!g.query) return;
  std::memset(parts.query(), 0, sizeof(A) * parts.sixes * kTile * kBlock);
  const bool unit = g.matching.metric == Metric::kCosine;
  for (int64_t t = 0; t < kBlock; t += kLanes) {
    Vec<A> scale = splat(static_cast<A>(1));
    if (unit) scale = about_query<Metric::kCosine, A>(load(parts.square() + t));
    for (int64_t d = 0; d < depth.tiled(); d += kLanes) {
      Vec<A> rows[kLanes] = {};
      if (d < depth.padded()) {
        const A* from = parts.packed() + parts.packed_row(d, t / kPanel<A>) + t % kPanel<A>;
        for (int c = 0; c < kLanes; ++c) rows[c] = scale * load(from + c * kPanel<A>);
        transpose(rows);
      }
      A* to = parts.across() + (d / kPanel<A> * kBlock + t) * kPanel<A> + d % kPanel<A>;
      for (int i = 0; i < kLanes; ++i) store(to + i * kPanel<A>, rows[i]);
    }
  }
}

// dL/d(scale s + shift) of one point after the other, for some queries and one class.
template <Transform transform, class A>
struct SumWeight {
  static constexpr bool kTotal = false;  // whether what it puts beside the derivative is summed up
  const Matching& m;
  Vec<A> grad;
  SumWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count)
      : m(g.matching),
        grad(score_factor<A>(m, c) * load_lanes<A>(g.grad_scores, c * m.pixels + pixel, count)) {}
  PK_INLINE Vec<A> operator()(Vec<A> s, int64_t, Vec<A>&) const {
    return grad * slope<transform>(value<transform, A>(m, s));
  }
};

template <class A>
struct BestWeight {
  static constexpr bool kTotal = false;
  const Matching& m;
  Vec<A> grad, edge;
  Integers<A> place;
  A sign;
  bool several;
  BestWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count)
      : m(g.matching),
        grad(score_factor<A>(m, c) * load_lanes<A>(g.grad_scores, c * m.pixels + pixel, count)),
        edge{},
        place(integers<A>(-1)),
        sign(Best<A>::direction(m)),
        several(m.reduce == Reduce::kTopK) {
    const int64_t at = c * m.pixels + pixel;
    for (int64_t i = 0; i < kLanes && i < count; ++i) place[i] = m.place[at + i];
    if (several) edge = sign * load_lanes<A>(m.edge, at, count);
  }
  PK_INLINE Vec<A> operator()(Vec<A> s, int64_t p, Vec<A>&) const {
    const Integers<A> here = integers<A>(p);
    Integers<A> taken = here == place;
    if (several) {
      const Vec<A> key = sign * s;
      taken |= (key > edge) | ((key == edge) & (here < place));
    }
    if (!any(taken)) return Vec<A>{};
    Vec<A> rise = splat(static_cast<A>(1));
    if (m.transform == Transform::kSigmoid)
      rise = slope<Transform::kSigmoid>(value<Transform::kSigmoid, A>(m, s));
    if (m.transform == Transform::kExp) rise = value<Transform::kExp, A>(m, s);
    return taken ? grad * rise : Vec<A>{};
  }
};

template <Transform transform, class A>
struct SoftmaxWeight {
  static constexpr bool kTotal = false;
  const Matching& m;
  const A* values;
  Vec<A> grad, centre, log_sum;
  SoftmaxWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count)
      : m(g.matching),
        values(static_cast<const A*>(m.points.value)),
        grad(load_lanes<A>(g.grad_scores, c * m.pixels + pixel, count)),
        centre(load_lanes<A>(g.centre, pixel, count)),
        log_sum(load_lanes<A>(m.edge, pixel, count)) {}
  PK_INLINE Vec<A> operator()(Vec<A> s, int64_t p, Vec<A>& value_gradient) const {
    const Vec<A> x = value<transform, A>(m, s);
    value_gradient = exponential(x - log_sum);
    const Vec<A> weight = value_gradient * ((values ? grad * values[p] : grad) - centre);
    value_gradient *= grad;
    return weight * slope<transform>(x);
  }
};

// The cross entropy of one pair, softplus(-z) where both are of one class, else softplus(z), and
// its derivative.
template <class A>
struct PairWeight {
  static constexpr bool kTotal = true;
  const Matching& m;
  Vec<A> sign;
  PairWeight(const Gradient& g, int64_t c, int64_t pixel, int64_t count) : m(g.matching), sign{} {
    for (int64_t i = 0; i < kLanes && i < count; ++i)
      sign[i] = g.query_class[pixel + i] == c ? A(-1) : A(1);
  }
  PK_INLINE Vec<A> operator()(Vec<A> s, int64_t, Vec<A>& loss) const {
    const Softplus<A> about = softplus(sign * value<Transform::kIdentity, A>(m, s));
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
    const int64_t all = tiles_of(m.points.count), chunk_tiles = tiles_of(g.points);
    for (int64_t tile = 0; tile < chunk_tiles; tile += kTilesTogether) {
      const int64_t left = chunk_tiles - tile;
      const int64_t tiles = left < kTilesTogether ? left : kTilesTogether;
      const int64_t first = tile * kTile, rows = tiles * kTile;
      products(m.points, g.chunk / kTile + tile, tiles, parts.queries(), parts.panels, dots);
      for (int64_t i = 0; i < parts.panels; ++i) {
        A* own = dots + i * rows * kPanel<A>;
        A* weights = g.query ? parts.weights() + (i * parts.rows + first) * kPanel<A> : own;
        weigh<metric>(parts, i, first, own, weights);
        if (!g.query) continue;
        // what is there now of dL/dq: these points' products with their weights
        take_tiles(0, parts.sixes, [&](int64_t six, auto at_once) {
          Vec<A> sums[decltype(at_once)::kRows][kWide<A>] = {};
          multiply<kTile, 1>(static_cast<const A*>(m.points.across) +
                                 (six * all * kTile + g.chunk + first) * kTile,
                             all * kTile * kTile, weights, rows, sums);
          add_rows(parts.query() + (six * parts.panels + i) * kTile * kPanel<A>,
                   parts.panels * kTile * kPanel<A>, sums);
        });
      }
    }
  }

  // Points [first, ...) of the chunk with panel i.
  template <Metric metric>
  void weigh(const Parts<A>& parts, int64_t i, int64_t first, const A* dots, A* weights) const {
    const Matching& m = g.matching;
    const Panel<metric, A> panel(m, parts.square() + i * kPanel<A>);
    const int64_t begin = g.chunk + first, room = kPointsTogether;
    const int64_t past = begin + room < g.chunk + g.points ? begin + room : g.chunk + g.points;
    const A scale = static_cast<A>(m.scale);
    const A alpha = static_cast<A>(g.alpha), beta = static_cast<A>(g.beta);
    const bool columns = metric == Metric::kSqeuclidean, values = g.values != nullptr;
    std::memset(weights + (past - begin) * kPanel<A>, 0,
                sizeof(A) * (tiles_of(past - begin) * kTile - (past - begin)) * kPanel<A>);
    for (int v = 0; v < kWide<A>; ++v) {
      const int64_t lane = i * kPanel<A> + v * kLanes;
      const int64_t count = parts.pixels - lane;
      Integers<A> there;
      for (int64_t j = 0; j < kLanes; ++j) there[j] = j < count ? -1 : 0;
      Vec<A> shifts = {}, scales = {}, besides = {};
      for_runs(m.points, begin, past, [&](int64_t c, int64_t from, int64_t to) {
        const Weight weight(g, c, parts.begin + lane, count);
        for (int64_t p = from; p < to; ++p) {
          const int64_t row = p - begin;
          Vec<A> beside = {};
          const Vec<A> s = panel.at(dots + row * kPanel<A>, p, v);
          Vec<A> w = weight(s, p, beside);
          w = there ? w : Vec<A>{};
          beside = there ? beside : Vec<A>{};
          shifts += w;
          scales += w * s;
          if (Weight::kTotal) w -= alpha + beta * s;
          w *= scale;
          store(weights + row * kPanel<A> + v * kLanes, w);
          if (columns) add(parts.columns() + first + row, lane, sum_lanes(w));
          if (Weight::kTotal) besides += beside;
          if (values) add(parts.values() + first + row, lane, sum_lanes(beside));
        }
      });
      A* sums = parts.row_sums() + lane;
      store(sums, load(sums) + scale * shifts);
      parts.totals()[0] += sum_lanes(shifts);
      parts.totals()[1] += sum_lanes(scales);
      parts.totals()[2] += sum_lanes(besides);
    }
  }
  // the first lanes of a block begin a sum
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
void weigh(const Gradient& g, int64_t block, void* scratch) {
  with_reduction(g.matching, AnyWeights<A>{g, block, static_cast<A*>(scratch)});
}

template <class A>
void weigh_pairs(const Gradient& g, int64_t block, void* scratch) {
  BlockWeights<PairWeight<A>, A>{g, block, static_cast<A*>(scratch)}.template run<Metric::kDot>();
}

// Adds the round to the gradients of some of the chunk's points: block by block to `sums`, and
// those to what there is, so that no sum is long.
template <class A>
void gather(const Gradient& g, int64_t group, void* sums) {
  const Depth& depth = g.matching.points.depth;
  const int64_t tiles = tiles_of(g.points), first = group * kTilesGathered;
  const int64_t last = first + kTilesGathered < tiles ? first + kTilesGathered : tiles;
  const int64_t pieces = depth.tiled() / kPanel<A>, each = kTile * kPanel<A>;
  const int64_t values = (last - first) * pieces * each;
  A* round = static_cast<A*>(sums);
  std::memset(round, 0, sizeof(A) * values);
  for (int64_t block = 0; block < g.blocks; ++block) {
    const Parts<A> parts(g, block);
    for (int64_t piece = 0; piece < pieces; ++piece)
      take_tiles(first, last, [&](int64_t tile, auto at_once) {
        Vec<A> rows[decltype(at_once)::kRows][kWide<A>] = {};
        for (int64_t i = 0; i < parts.panels; ++i)
          multiply<1, kPanel<A>>(
              parts.weights() + (i * parts.rows + tile * kTile) * kPanel<A>, kTile * kPanel<A>,
              parts.across() + (piece * kBlock + i * kPanel<A>)*kPanel<A>, kPanel<A>, rows);
        add_rows(round + ((tile - first) * pieces + piece) * each, pieces * each, rows);
      });
    const int64_t end = last * kTile < g.points ? last * kTile : g.points;
    for (int64_t p = first * kTile; p < end; ++p) {
      if (g.columns) g.columns[g.chunk + p] += parts.columns()[p];
      if (g.values) g.values[g.chunk + p] += parts.values()[p];
    }
  }
  A* out = static_cast<A*>(g.point) + (g.chunk / kTile + first) * pieces * each;
  for (int64_t i = 0; i < values; i += kLanes) store(out + i, load(out + i) + load(round + i));
}

// The last step of a similarity's derivative, with G the products' gradient of a vector x, S the
// sum of dL/ds: cosine (G - x^ <x^, G>) / |x| where |x| reaches 1e-12, sqeuclidean 2 (x S - G).
template <class T, class A>
void finish_query(const Gradient& g, int64_t block) {
  const Parts<A> parts(g, block);
  const Metric metric = g.matching.metric;
  const Plane<T> plane(g.grad_query, g.matching.image);
  Offsets offsets;
  offsets.fill(plane, parts.begin, static_cast<int>(parts.pixels));
  for (int64_t t = 0; t * kLanes < parts.pixels; ++t) {
    const int64_t lane = t * kLanes, panel = lane / kPanel<A>, at = lane % kPanel<A>;
    const A *query = parts.packed() + at, *gradient = parts.query() + at;
    const Vec<A> sum = load(parts.row_sums() + lane);
    const Vec<A> inverse = about_query<Metric::kCosine, A>(load(parts.square() + lane));
    Vec<A> along = {};
    if (metric == Metric::kCosine)
      for (int64_t d = 0; d < parts.depth.channels; ++d)
        along += inverse * load(query + parts.packed_row(d, panel)) *
                 load(gradient + parts.query_row(d, panel));
    along = inverse < splat(static_cast<A>(1e12)) ? along : Vec<A>{};
    for (int64_t channel = 0; channel < parts.depth.channels; channel += kLanes) {
      const int64_t left = parts.depth.channels - channel;
      const int channels = left < kLanes ? static_cast<int>(left) : kLanes;
      Vec<A> rows[kLanes] = {};
      for (int c = 0; c < channels; ++c) {
        const Vec<A> x = load(query + parts.packed_row(channel + c, panel));
        rows[c] = load(gradient + parts.query_row(channel + c, panel));
        if (metric == Metric::kCosine) rows[c] = inverse * (rows[c] - inverse * x * along);
        if (metric == Metric::kSqeuclidean) rows[c] = 2 * (x * sum - rows[c]);
      }
      store_tile<Rows::kChannels>(plane, offsets.start[t], parts.begin + lane,
                                  static_cast<int>(parts.pixels - lane), channel, channels, rows);
    }
  }
}

// The same for positions [begin, end) of the order; those past the points are ignored ones.
template <class T, class A>
void finish_points(const PointGradient& s, int64_t begin, int64_t end) {
  const Matching& m = s.gradient.matching;
  const Plane<T> plane(s.listed.features, s.listed.image);
  const Plane<T> out(s.grad_reference, s.listed.image);
  const int64_t channels = s.listed.depth.channels;
  const int64_t pieces = s.listed.depth.tiled() / kPanel<A>;
  const A* factor = static_cast<const A*>(s.listed.factor);
  for (int64_t p = begin; p < end; ++p) {
    T* to = out.data + out.offset(s.listed.order[p]);
    if (p >= s.listed.count) {
      for (int64_t d = 0; d < channels; ++d) store_scalar(to + d * out.channel_stride, A(0));
      continue;
    }
    const int64_t c = s.listed.label[p], packed = s.slot ? s.slot[c] : p;
    const A share = s.slot ? 1 / static_cast<A>(m.count[c]) : A(1);
    const A* gradient = static_cast<const A*>(s.gradient.point) +
                        (packed / kTile * pieces * kTile + packed % kTile) * kPanel<A>;
    const auto part = [&](int64_t d) {
      return gradient[d / kPanel<A> * kTile * kPanel<A> + d % kPanel<A>];
    };
    const T* from = plane.data + plane.offset(s.listed.order[p]);
    const auto x = [&](int64_t d) { return scalar(from[d * plane.channel_stride]); };
    A along = 0;
    if (m.metric == Metric::kCosine && factor[p] < static_cast<A>(1e12)) {
      double sum = 0;
      for (int64_t d = 0; d < channels; ++d) sum += factor[p] * x(d) * part(d);
      along = static_cast<A>(sum);
    }
    const A total = s.gradient.columns ? static_cast<A>(s.gradient.columns[packed]) : A(0);
    for (int64_t d = 0; d < channels; ++d) {
      A g = part(d);
      if (m.metric == Metric::kCosine) g = factor[p] * (g - factor[p] * x(d) * along);
      if (m.metric == Metric::kSqeuclidean) g = 2 * (x(d) * total - g);
      store_scalar(to + d * out.channel_stride, share * g);
    }
  }
}

}  // namespace PK_ISA
}  // namespace pixelkernels
