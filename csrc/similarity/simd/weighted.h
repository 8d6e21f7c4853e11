// Sums of points with a weight for each pair: the gradients of reductions over all pairs.
#pragma once

#include "similarity/simd/product.h"
#include "similarity/simd/values.h"

namespace pixelkernels::similarity::PK_ISA {

// Products [panels][next][NR]: those of the vector of queries that starts at `lane`, kNR apart.
template <class A>
PK_INLINE A* vector_of(A* dots, int64_t lane, int64_t next) {
  return dots + lane / kNR<A> * next * kNR<A> + lane % kNR<A>;
}
template <class A>
PK_INLINE Widest<A> load_product(const A* vector, int64_t p) {
  Widest<A> x;
  std::memcpy(&x, vector + p * kNR<A>, sizeof x);
  return x;
}
template <class A>
PK_INLINE void store_weight(A* vector, int64_t p, Widest<A> x) {
  std::memcpy(vector + p * kNR<A>, &x, sizeof x);
}

// rows [channels / MR][kPixelBlock / NR][MR][NR] += tiles [first, first + tiles) of transposed
// points times weights [panels][next][NR], where `all` is the number of tiles of points.
template <class A>
void add_weighted(const Points& points, int64_t all, int64_t first, int64_t tiles, const A* weights,
                  int64_t next, int64_t panels, A* rows) {
  const int64_t whole = panels_of<A>(kPixelBlock);
  const A* left = static_cast<const A*>(points.transposed) + first * kMR * kMR;
  take_panels(
      tiles_of(points.depth.padded()), panels, [&](int64_t channels, int64_t panel, auto at_once) {
        constexpr int kPanels = decltype(at_once)::kPanels;
        Sums<kPanels, decltype(at_once)::kRows, A> sums = {};
        micro_kernel<kMR, 1>(left + channels * all * kMR * kMR, all * kMR * kMR,
                             weights + panel * next * kNR<A>, next * kNR<A>, tiles * kMR, sums);
        for (int p = 0; p < kPanels; ++p)
          add_rows(rows + (channels * whole + panel + p) * kMR * kNR<A>, whole * kMR * kNR<A>,
                   sums[p]);
      });
}

// Writes rows [channels / MR][panels][MR][NR] to pixels [begin, begin + pixels).
template <class T, class A>
void store_block(const Plane<T>& plane, const Depth& depth, int64_t begin, int64_t pixels,
                 int64_t panels, const A* rows) {
  Offsets offsets;
  offsets.fill(plane, begin, static_cast<int>(pixels));
  for (int64_t t = 0; t * kLanes < pixels; ++t) {
    const int64_t lane = t * kLanes, panel = lane / kNR<A>;
    for (int64_t channel = 0; channel < depth.channels; channel += kLanes) {
      const int64_t left = depth.channels - channel;
      const int channels = left < kLanes ? static_cast<int>(left) : kLanes;
      Vec<A> tile[kLanes] = {};
      for (int64_t d = channel; d < channel + channels; ++d)
        tile[d - channel] =
            load(rows + ((d / kMR * panels + panel) * kMR + d % kMR) * kNR<A> + lane % kNR<A>);
      store_tile<TileRows::kChannels>(plane, offsets.start[t], begin + lane,
                                      static_cast<int>(pixels - lane), channel, channels, tile);
    }
  }
}

// The scratch of gradient_of_block, in values.
struct BlockScratch {
  int64_t dots, rows, panels;
  explicit BlockScratch(const Depth& depth)
      : dots(kMC * kPixelBlock),
        rows(tiles_of(depth.padded()) * kMR * kPixelBlock),
        panels(depth.padded() * kPixelBlock) {}
};

template <class A>
int64_t gradient_scratch(const Depth& depth) {
  const BlockScratch sizes(depth);
  return (sizes.dots + sizes.rows + sizes.panels) * static_cast<int64_t>(sizeof(A));
}

// The gradient of a block of `all_pixels` queries: their products with all points, a weight for
// each, and the sum of the points with these weights. weights_of(pixel, count) gives a function
// that maps the products of a vector of pixels with point p, and p, to the weights.
template <class T, class A, class Weights>
PK_INLINE void gradient_of_block(const Points& points, const Plane<T>& queries, const Plane<T>& out,
                                 int64_t block, int64_t all_pixels, A* scratch,
                                 const Weights& weights_of) {
  typedef Widest<A> V;
  const Depth& depth = points.depth;
  const BlockScratch sizes(depth);
  const int64_t begin = block * kPixelBlock, left = all_pixels - begin;
  const int64_t pixels = left < kPixelBlock ? left : kPixelBlock;
  A *dots = scratch, *rows = dots + sizes.dots, *packed = rows + sizes.rows;
  const int64_t panels = panels_of<A>(kPixelBlock), all = tiles_of(points.count);
  std::memset(rows, 0, sizeof(A) * sizes.rows);
  pack_pixels(queries, depth, begin, pixels, panels, packed);
  for (int64_t tile = 0; tile < all; tile += kMCPanels) {
    const int64_t tiles = all - tile < kMCPanels ? all - tile : kMCPanels;
    const int64_t next = rows_of(tiles), first = tile * kMR;
    products(points, tile, tiles, Queries<A>::packed(packed, depth, panels), panels, dots);
    for (int64_t lane = 0; lane < kPixelBlock; lane += kLanesOf<A, V>) {
      const auto weights = weights_of(begin + lane, pixels - lane);
      A* vector = vector_of(dots, lane, next);
      for (int64_t row = 0; row < tiles * kMR; ++row) {
        const int64_t p = first + row;
        const V weight = p < points.count ? weights(load_product(vector, row), p) : V{};
        store_weight(vector, row, weight);
      }
    }
    add_weighted(points, all, tile, tiles, dots, next, panels, rows);
  }
  store_block(out, depth, begin, pixels, panels, rows);
}

}  // namespace pixelkernels::similarity::PK_ISA
