// Products on AMX, which multiplies bfloat16 and adds in float32. A float32 is the sum of three
// bfloat16, its terms; of the nine products of two such sums the three smallest are below what a
// float32 product is rounded by. The other six take less time than one with AVX-512, and only the
// largest are added up in a long sum. A float16 has two terms, a bfloat16 is its own. The build
// defines PK_AMX where its compiler knows the instructions.
//
// The left side of a product, such as points: [row tiles][depth tiles][terms][16 rows][16
// pairs][2]. The right side, such as query pixels: [panels][depth tiles][terms][16 pairs][16
// columns][2]. A pair is what stands at i and at i + 16 of the 32 of a depth tile.
#pragma once

#include "similarity/kernels.h"

namespace pixelkernels::similarity::amx {

typedef uint16_t Term;  // the bits of a bfloat16

constexpr int64_t kTileRows = 16, kTileColumns = 16, kTileDepth = 32;
constexpr int64_t kTileTerms = kTileRows * kTileDepth;

constexpr int64_t row_tiles(int64_t points) { return (points + kTileRows - 1) / kTileRows; }
constexpr int64_t depth_tiles(int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }

constexpr int64_t kTerms = 3;  // of a float32
constexpr int64_t terms_of(Element element) {
  return element == Element::kBFloat16 ? 1 : element == Element::kHalf ? 2 : kTerms;
}

// Whether products with so many points repay the splitting and what the tiles are filled up with.
constexpr bool pays(int64_t points, int64_t channels) { return points >= 96 && channels >= 32; }

// What is split takes, in terms: the points; kGroupPoints of them across; a block of queries, or
// of rows of weights, in so many panels.
constexpr int64_t point_terms(int64_t points, const Depth& depth, int64_t terms) {
  return row_tiles(points) * depth_tiles(depth.channels) * terms * kTileTerms;
}
constexpr int64_t across_terms(const Depth& depth, int64_t terms) {
  return row_tiles(depth.channels) * depth_tiles(kGroupPoints) * terms * kTileTerms;
}
constexpr int64_t panel_terms(int64_t panels, int64_t depth, int64_t terms) {
  return panels * depth_tiles(depth) * terms * kTileTerms;
}

// The same in bytes, nothing without split points: a block of queries with scores; with weights,
// and all that gather splits.
constexpr int64_t scores_bytes(const Matching& m) {
  const int64_t terms =
      panel_terms(kPixelBlock / kTileColumns, m.points.depth.channels, terms_of(m.element));
  return m.points.split ? terms * sizeof(Term) : 0;
}
constexpr int64_t weigh_bytes(const Matching& m) {
  const int64_t weights = panel_terms(kPixelBlock / kTileColumns, kGroupPoints, kTerms);
  return m.points.split ? scores_bytes(m) + weights * sizeof(Term) : 0;
}
constexpr int64_t gather_bytes(const Gradient& g) {
  const int64_t tiles = row_tiles(kGatheredTiles * kPointTile) * depth_tiles(kPixelBlock);
  return g.split_queries ? tiles * kTerms * kTileTerms * sizeof(Term) : 0;
}

// Splitting returns false where there are values so large or small that their terms would not
// behave like them: infinite ones, and vectors near the ends of the range of float32.
//
// kGroupPoints packed points, as rows into points.split, and as depth with rows of channels.
bool split_points(const Points& points, int64_t group);
bool split_across(const Points& points, int64_t group, Term* out);
bool split_pixels(const float* packed, const Depth& depth, int64_t panels, int64_t terms,
                  Term* split);
// A block's queries with themselves as depth, [pieces][kPixelBlock][16 channels], and weights with
// points as depth, in panels of 16 queries.
bool split_queries(const float* across, int64_t pieces, Term* split);
bool split_weights(const float* weights, int64_t next_panel, int64_t panels, int64_t points,
                   Term* split);

// dots [panels][rows_of(tiles)][16] of `tiles` tiles of points, from tile `first` on, a multiple of
// kGroupTiles.
void products(const Points& points, int64_t first, int64_t tiles, const Term* query, int64_t terms,
              int64_t panels, float* dots);
// query [depth in sixes][panels][6][16] += points split across, `tiles` tiles, times their split
// weights
void add_to_queries(const Points& points, const Term* across, int64_t tiles, const Term* weights,
                    int64_t panels, float* query);
// sums [tiles][pieces][6][16 channels] += weights [panels][...][16] of a block, `tiles` tiles of
// points, times its split queries. False if the weights, split into `room`, do not fit.
bool add_to_points(const float* weights, int64_t next_panel, int64_t tiles, const Term* queries,
                   int64_t pieces, Term* room, float* sums);

}  // namespace pixelkernels::similarity::amx
