// Scores of a block of queries: its products with MC points at a time, reduced in the cache.
#pragma once

#include "similarity/simd/reduce.h"

namespace pixelkernels::similarity::PK_ISA {

// The layout of a block's scratch, in whole cache lines.
template <class A>
struct ScoresScratch {
  int64_t query, split, square, dots;
  explicit ScoresScratch(const Matching& m)
      : query(m.points.depth.padded() * kPixelBlock * sizeof(A)),
        split(split::scores_bytes(m)),
        square(most(m) * sizeof(A)),
        dots(most(m) * (m.points.count <= kMR ? rows_of(1) : kMC) * sizeof(A)) {}
  static constexpr int64_t most(const Matching& m) {
    return m.points.count <= kMR ? kMaxInPlacePixels : kPixelBlock;
  }
  int64_t bytes(int64_t states) const { return query + split + square + dots + states; }
};

template <class A, class Body>
PK_INLINE void with_metric(const Matching& m, const Body& body) {
  switch (m.metric) {
    case Metric::kDot:
      return body.template run<Metric::kDot>();
    case Metric::kCosine:
      return body.template run<Metric::kCosine>();
    case Metric::kSqeuclidean:
      return body.template run<Metric::kSqeuclidean>();
    case Metric::kPrior:
      return body.template run<Metric::kPrior>();
  }
}

// Runs of one class in points [begin, end).
template <class Body>
PK_INLINE void for_runs(const Points& points, int64_t begin, int64_t end, const Body& body) {
  for (int64_t p = begin; p < end;) {
    const int64_t first = p;
    while (p < end && points.label[p] == points.label[first]) ++p;
    body(points.label[first], first, p);
  }
}

// The best of the classes present. Tie-break: the smaller label. NaN only if all are NaN.
template <class A>
PK_INLINE void choose_labels(const Matching& m, const Lanes& lanes) {
  Vec<A> best = {};
  Integers<A> label = integers<A>(-1);
  for (int64_t c = 0; c < m.classes; ++c) {
    if (m.count[c] == 0) continue;
    const Vec<A> score = load_lanes<A>(m.scores, c * m.pixels + lanes.pixel, lanes.count);
    const Integers<A> better = m.smaller ? score < best : score > best;
    const Integers<A> take = (label < 0) | better | ((best != best) & (score == score));
    best = take ? score : best;
    label = take ? integers<A>(c) : label;
  }
  const I64 wide = __builtin_convertvector(label, I64);
  std::memcpy(m.labels + lanes.pixel, &wide, sizeof(int64_t) * lanes.count);
}

template <class Reduction, class A>
struct BlockScores {
  const Matching& m;
  int64_t begin, pixels;
  Queries<A> query;  // null if the products are already computed
  const A* square;
  A* dots;
  typename Reduction::State* states;

  template <Metric metric>
  void run() const {
    const int64_t panels = panels_of<A>(pixels), each = Reduction::states(m);
    for (int64_t i = 0; i < panels * m.classes; ++i) Reduction::clear(m, states + i * each);
    const int64_t tiles = tiles_of(m.points.count);
    for (int64_t tile = 0; tile < tiles; tile += kMCPanels) {
      const int64_t some = tiles - tile < kMCPanels ? tiles - tile : kMCPanels;
      if (query.data) products(m.points, tile, some, query, panels, dots);
      const int64_t first = tile * kMR, past = first + some * kMR;
      const int64_t end = past < m.points.count ? past : m.points.count;
      for (int64_t i = 0; i < panels; ++i) {
        const Panel<metric, A> panel(m, square + i * kNR<A>);
        A* rows = dots + i * rows_of(some) * kNR<A>;
        for_runs(m.points, first, end, [&](int64_t c, int64_t from, int64_t to) {
          Reduction::run(panel, rows + (from - first) * kNR<A>, from, to,
                         states + (i * m.classes + c) * each);
        });
      }
    }
    for (int64_t t = 0; t * kLanes < pixels; ++t) {
      const int64_t left = pixels - t * kLanes;
      const Lanes lanes{begin + t * kLanes, left < kLanes ? left : kLanes};
      Reduction::finish(m, states + t / kNRVectors<A> * m.classes * each, t % kNRVectors<A>, lanes);
      choose_labels<A>(m, lanes);
    }
  }
};

// body.run<reduce, transform>(). kSum includes kMean, and kMax all selections, which transform
// last.
template <class Body>
PK_INLINE auto with_reduction(const Matching& m, const Body& body) {
  constexpr auto kIdentity = Transform::kIdentity, kSigmoid = Transform::kSigmoid,
                 kExp = Transform::kExp;
  const bool soft = m.reduce == Reduce::kSoftmax;
  if (!soft && m.reduce != Reduce::kSum && m.reduce != Reduce::kMean)
    return body.template run<Reduce::kMax, kIdentity>();
  switch (m.transform) {
    case Transform::kSigmoid:
      return soft ? body.template run<Reduce::kSoftmax, kSigmoid>()
                  : body.template run<Reduce::kSum, kSigmoid>();
    case Transform::kExp:
      return soft ? body.template run<Reduce::kSoftmax, kExp>()
                  : body.template run<Reduce::kSum, kExp>();
    default:
      return soft ? body.template run<Reduce::kSoftmax, kIdentity>()
                  : body.template run<Reduce::kSum, kIdentity>();
  }
}

template <class A>
struct StatesBytes {
  const Matching& m;
  template <Reduce reduce, Transform transform>
  int64_t run() const {
    using Reduction = typename ReductionOf<reduce, transform, A>::type;
    return Reduction::states(m) * sizeof(typename Reduction::State) * m.classes *
           panels_of<A>(kPixelBlock);
  }
};

template <class A>
struct AnyScores {
  const Matching& m;
  int64_t begin, pixels;
  Queries<A> query;
  const A* square;
  A* dots;
  void* states;

  template <Reduce reduce, Transform transform>
  void run() const {
    using Reduction = typename ReductionOf<reduce, transform, A>::type;
    auto* own = static_cast<typename Reduction::State*>(states);
    with_metric<A>(m, BlockScores<Reduction, A>{m, begin, pixels, query, square, dots, own});
  }
};

template <class A>
int64_t scores_scratch(const Matching& m) {
  return ScoresScratch<A>(m).bytes(with_reduction(m, StatesBytes<A>{m}));
}

template <class T, class A>
void packed_scores(const Matching& m, const Plane<T>& plane, int64_t begin, int64_t pixels,
                   char* scratch) {
  const Depth& depth = m.points.depth;
  const ScoresScratch<A> parts(m);
  const int64_t panels = panels_of<A>(pixels);
  A* packed = reinterpret_cast<A*>(scratch);
  Queries<A> query = Queries<A>::packed(packed, depth, panels);
  pack_pixels(plane, depth, begin, pixels, panels, packed);
  query.split_into(scratch + parts.query, m, panels);
  A* square = reinterpret_cast<A*>(scratch + parts.query + parts.split);
  if (m.metric != Metric::kDot) square_pixels(depth, panels, query, square);
  A* dots = square + parts.square / sizeof(A);
  with_reduction(m, AnyScores<A>{m, begin, pixels, query, square, dots, scratch + parts.bytes(0)});
}

// A single tile of points does not repay packing: the pixels are read in place.
template <class A>
void scores_in_place(const Matching& m, const Queries<A>& query, int64_t begin, int64_t pixels,
                     char* scratch) {
  const ScoresScratch<A> parts(m);
  A* square = reinterpret_cast<A*>(scratch + parts.query + parts.split);
  A* dots = square + parts.square / sizeof(A);
  // prototypes of foreground and background are so common that they have their own loop
  const auto multiply = m.points.count <= 2 ? multiply_in_place<2, A> : multiply_in_place<kMR, A>;
  multiply(m.points, query, panels_of<A>(pixels), m.metric != Metric::kDot, square, dots);
  for (int64_t at = 0; at < pixels; at += kPixelBlock) {
    const int64_t some = pixels - at < kPixelBlock ? pixels - at : kPixelBlock;
    with_reduction(m, AnyScores<A>{m,
                                   begin + at,
                                   some,
                                   {},
                                   square + at,
                                   dots + at * rows_of(1),
                                   scratch + parts.bytes(0)});
  }
}

template <class T, class A>
void scores(const Matching& m, int64_t begin, int64_t pixels, void* scratch) {
  char* bytes = static_cast<char*>(scratch);
  const Depth& depth = m.points.depth;
  const Plane<T> plane(m.query, m.image);
  if constexpr (sizeof(T) == sizeof(A))
    if (m.points.count <= kMR && plane.pixel_stride == 1 && plane.row_length == m.pixels &&
        pixels % kNR<A> == 0 && depth.padded() == depth.channels)
      return scores_in_place(m,
                             Queries<A>::in_place(plane.data + begin, depth, plane.channel_stride),
                             begin, pixels, bytes);
  for (int64_t at = 0; at < pixels; at += kPixelBlock)
    packed_scores<T, A>(m, plane, begin + at, pixels - at < kPixelBlock ? pixels - at : kPixelBlock,
                        bytes);
}

}  // namespace pixelkernels::similarity::PK_ISA
