// The buffers of a block of queries during the gradients, and the last step of both gradients.
#pragma once

#include "similarity/simd/product.h"
#include "similarity/simd/values.h"

namespace pixelkernels::similarity::PK_ISA {

// The buffers of a block.
template <class A>
struct Parts {
  const Gradient& g;
  const Depth& depth;
  int64_t block, panels, rows, row_panels;
  int64_t begin, pixels;  // queries

  Parts(const Gradient& g, int64_t block)
      : g(g),
        depth(g.matching.points.depth),
        block(block),
        panels(panels_of<A>(kPixelBlock)),
        rows(tiles_of(g.points) * kMR),
        row_panels(tiles_of(depth.padded())),
        begin((g.round + block) * kPixelBlock) {
    const int64_t left = g.matching.pixels - begin;
    pixels = left < kPixelBlock ? left : kPixelBlock;
  }
  A* packed() const { return static_cast<A*>(g.packed) + block * depth.padded() * kPixelBlock; }
  Queries<A> queries() const { return Queries<A>::packed(packed(), depth, panels); }
  A* transposed() const {
    return static_cast<A*>(g.transposed) + block * depth.tiled() * kPixelBlock;
  }
  A* square() const { return static_cast<A*>(g.square) + block * kPixelBlock; }
  A* weights() const { return static_cast<A*>(g.weights) + block * rows * kPixelBlock; }
  A* query() const { return static_cast<A*>(g.query) + block * row_panels * kMR * kPixelBlock; }
  A* row_sums() const { return static_cast<A*>(g.row_sums) + block * kPixelBlock; }
  split::Term* split_queries() const {
    const int64_t each =
        split::panel_terms(depth.tiled() / split::kTileColumns, kPixelBlock, split::kTerms);
    return static_cast<split::Term*>(g.split_queries) + block * each;
  }
  // panels of channels in `transposed`
  int64_t pieces() const { return depth.tiled() / kNR<A>; }
  double* totals() const { return g.totals + kTotals * block; }
  double* columns() const { return g.block_columns + block * rows; }
  double* values() const { return g.block_values + block * rows; }
  // the row of channel d in a block's panels, and in its gradient
  int64_t packed_row(int64_t d, int64_t panel) const {
    return ((d / depth.kc * panels + panel) * depth.kc + d % depth.kc) * kNR<A>;
  }
  int64_t query_row(int64_t d, int64_t panel) const {
    return ((d / kMR * panels + panel) * kMR + d % kMR) * kNR<A>;
  }
};

// The last step of the derivative in a vector x, with G the gradient of the products and S the sum
// of dL/ds: cosine (G - u <u, G>) / |x| with u = x / |x| if |x| >= 1e-12, sqeuclidean 2 (x S - G).
template <class T, class A>
void finish_query(const Gradient& g, int64_t block) {
  const Parts<A> parts(g, block);
  const Metric metric = g.matching.metric;
  const Plane<T> plane(g.grad_query, g.matching.image);
  Offsets offsets;
  offsets.fill(plane, parts.begin, static_cast<int>(parts.pixels));
  for (int64_t t = 0; t * kLanes < parts.pixels; ++t) {
    const int64_t lane = t * kLanes, panel = lane / kNR<A>, at = lane % kNR<A>;
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
      store_tile<TileRows::kChannels>(plane, offsets.start[t], parts.begin + lane,
                                      static_cast<int>(parts.pixels - lane), channel, channels,
                                      rows);
    }
  }
}

// The same for positions [begin, end) of the order; ignored points come after the others.
template <class T, class A>
void finish_points(const PointGradient& s, int64_t begin, int64_t end) {
  const Matching& m = s.gradient.matching;
  const Plane<T> plane(s.listed.features, s.listed.image);
  const Plane<T> out(s.grad_reference, s.listed.image);
  const int64_t channels = s.listed.depth.channels;
  const int64_t pieces = s.listed.depth.tiled() / kNR<A>;
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
                        (packed / kMR * pieces * kMR + packed % kMR) * kNR<A>;
    const auto part = [&](int64_t d) { return gradient[d / kNR<A> * kMR * kNR<A> + d % kNR<A>]; };
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

}  // namespace pixelkernels::similarity::PK_ISA
