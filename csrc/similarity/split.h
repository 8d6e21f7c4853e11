// The micro-kernel of CPUs with matrix tiles, which multiply bfloat16 and add in float32. A float32
// is split into a sum of three bfloat16, its terms. Of the nine products of two such sums the three
// smallest are below the rounding of a float32 product. The other six take less time than one
// product on vectors, and only the largest are added up in a long sum. A float16 has two terms, a
// bfloat16 is its own.
//
// The left side of a product, such as points: [row tiles][depth tiles][terms][16 rows][16
// pairs][2]. The right side, such as query pixels: [panels][depth tiles][terms][16 pairs][16
// columns][2]. A pair has the values at i and i + 16 of the 32 of a depth tile.
#pragma once

#include "similarity/kernels.h"

namespace pixelkernels::similarity::split {

// PK_SPLIT_PRODUCTS: the compiler knows the instructions, so the functions below are defined.
#if defined(PK_SPLIT_PRODUCTS)
constexpr bool kBuilt = true;
#else
constexpr bool kBuilt = false;
#endif
// Whether the kernels of this instruction set may call them.
#if defined(PK_SPLIT_PRODUCTS) && defined(__AVX512F__)
template <class A>
constexpr bool kAvailable = sizeof(A) == sizeof(float);
#else
template <class A>
constexpr bool kAvailable = false;
#endif

typedef uint16_t Term;  // the bits of a bfloat16

constexpr int64_t kTileRows = 16, kTileColumns = 16, kTileDepth = 32;
constexpr int64_t kTileTerms = kTileRows * kTileDepth;

constexpr int64_t row_tiles(int64_t points) { return (points + kTileRows - 1) / kTileRows; }
constexpr int64_t depth_tiles(int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }

constexpr int64_t kTerms = 3;  // of a float32
constexpr int64_t terms_of(Element element) {
  return element == Element::kBFloat16 ? 1 : element == Element::kHalf ? 2 : kTerms;
}

// Whether the products repay the splitting and the padding of tiles.
constexpr bool pays(int64_t points, int64_t channels) { return points >= 96 && channels >= 32; }

// The number of terms of the split points; of MC transposed points; of a block of queries or of
// rows of weights in `panels` panels.
constexpr int64_t point_terms(int64_t points, const Depth& depth, int64_t terms) {
  return row_tiles(points) * depth_tiles(depth.channels) * terms * kTileTerms;
}
constexpr int64_t transposed_terms(const Depth& depth, int64_t terms) {
  return row_tiles(depth.channels) * depth_tiles(kMC) * terms * kTileTerms;
}
constexpr int64_t panel_terms(int64_t panels, int64_t depth, int64_t terms) {
  return panels * depth_tiles(depth) * terms * kTileTerms;
}

// Scratch in bytes, 0 without split points: of a block of queries; with its weights; of gather.
constexpr int64_t scores_bytes(const Matching& m) {
  const int64_t terms =
      panel_terms(kPixelBlock / kTileColumns, m.points.depth.channels, terms_of(m.element));
  return m.points.split ? terms * sizeof(Term) : 0;
}
constexpr int64_t weights_bytes(const Matching& m) {
  const int64_t weights = panel_terms(kPixelBlock / kTileColumns, kMC, kTerms);
  return m.points.split ? scores_bytes(m) + weights * sizeof(Term) : 0;
}
constexpr int64_t gather_bytes(const Gradient& g) {
  const int64_t tiles = row_tiles(kGatheredTiles * kMR) * depth_tiles(kPixelBlock);
  return g.split_queries ? tiles * kTerms * kTileTerms * sizeof(Term) : 0;
}

// Splitting returns false if the products of the terms would not be those of the values: infinite
// values, and vectors near the ends of the range of float32. `infinite_is_nan`: the products of an
// infinite vector may be NaN, because its cosines are.
//
// MC packed points, as rows into points.split; and transposed, as depth with rows of channels.
bool split_points(const Points& points, int64_t group, bool infinite_is_nan);
bool split_transposed(const Points& points, int64_t group, Term* out);
bool split_pixels(const float* packed, const Depth& depth, int64_t panels, int64_t terms,
                  bool infinite_is_nan, Term* split);
// A block's queries as depth, [pieces][kPixelBlock][16 channels]; and weights with points as depth,
// in panels of 16 queries.
bool split_queries(const float* transposed, int64_t pieces, Term* split);
bool split_weights(const float* weights, int64_t next_panel, int64_t panels, int64_t points,
                   Term* split);

// dots [panels][rows_of(tiles)][16] of tiles [first, first + tiles) of points; `first` is a
// multiple of kMCPanels.
void products(const Points& points, int64_t first, int64_t tiles, const Term* query, int64_t terms,
              int64_t panels, float* dots);
// query [channels / MR][panels][MR][16] += transposed split points, `tiles` tiles, times split
// weights.
void add_to_queries(const Points& points, const Term* transposed, int64_t tiles,
                    const Term* weights, int64_t panels, float* query);
// sums [tiles][pieces][MR][16 channels] += weights [panels][...][16] of a block, `tiles` tiles of
// points, times its split queries. False if the weights, split into `scratch`, cannot be
// represented.
bool add_to_points(const float* weights, int64_t next_panel, int64_t tiles, const Term* queries,
                   int64_t pieces, Term* scratch, float* sums);

}  // namespace pixelkernels::similarity::split
