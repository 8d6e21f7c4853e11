// What the host code hands to the similarity kernels of an instruction set. Torch-free. Pointers to
// values have the accumulation type: double for double features, else float.
//
// Products of points and query pixels, in the terms of blocked matrix products: a micro-kernel
// computes MR points by NR pixels over KC channels. Both sides are packed into micro-panels, with
// the channels cut into slices of KC: points, the reference side, as [slices][tiles][KC][MR], query
// pixels as [slices][panels][KC][NR]. Padding is 0.
#pragma once

#include "common/select.h"

namespace pixelkernels::similarity {

// kPrior is a quotient: <q, r> / (|q| |r| + eps).
enum class Metric : int32_t { kDot, kCosine, kSqeuclidean, kPrior };
constexpr bool normalises(Metric metric) {
  return metric == Metric::kCosine || metric == Metric::kPrior;
}
enum class Transform : int32_t { kIdentity, kSigmoid, kExp };
enum class Reduce : int32_t { kSum, kMean, kMax, kMin, kTopK, kSoftmax };

constexpr int64_t kMR = 6;
constexpr int64_t kMCPanels = 32;  // micro-panels whose slices stay in the L2 cache
constexpr int64_t kMC = kMR * kMCPanels;
constexpr int64_t kPixelBlock = 96;  // NC: query pixels whose slices stay in the L1 cache
// Query pixels at a time where they are not packed.
constexpr int64_t kMaxInPlacePixels = 8 * kPixelBlock;
constexpr int64_t kMaxKC = 128;       // longer sums in float32 round more
constexpr int64_t kChannelTile = 16;  // a multiple of every panel
constexpr int64_t kGatheredTiles = 8;
constexpr int64_t kTotals = 3;

constexpr int64_t tiles_of(int64_t points) { return (points + kMR - 1) / kMR; }
constexpr int64_t blocks_of(int64_t pixels) { return (pixels + kPixelBlock - 1) / kPixelBlock; }
// The rows that the products of some tiles take, in sixteens.
constexpr int64_t rows_of(int64_t tiles) { return (tiles * kMR + 15) / 16 * 16; }

struct Depth {
  int64_t channels, slices, kc;
  explicit constexpr Depth(int64_t channels)
      : channels(channels),
        slices((channels + kMaxKC - 1) / kMaxKC),
        kc(slices ? (channels + 8 * slices - 1) / (8 * slices) * 8 : 0) {}
  constexpr int64_t padded() const { return slices * kc; }
  constexpr int64_t tiled() const {
    return (channels + kChannelTile - 1) / kChannelTile * kChannelTile;
  }
};

// Some points of one image: where they come from, and what they are packed into.
struct Points {
  View features;
  Element element;
  int64_t image;
  Depth depth{0};
  int64_t count;
  const int64_t* order;  // their flat positions
  const int32_t* label;  // the class of each
  const void* factor;    // null, or what each is multiplied by
  const void* square;    // |r|^2, or |r| for kPrior; null for kDot and kCosine
  const void* value;     // null, or softmax's weights
  void* packed;
  // for gradients: also [channels / MR][tiles][MR points][MR channels]
  void* transposed;
  // null, or split into `terms` terms (split.h), from point split_from on
  void* split;
  int64_t terms, split_from;
};

// What the classes' points are reduced to, for the queries of one image.
struct Matching {
  Points points;
  View query;
  Element element;
  int64_t image, pixels, classes;
  Metric metric;
  Transform transform;
  Reduce reduce;
  int64_t k;
  double scale, shift, eps;
  bool smaller;          // is better
  const int64_t* count;  // points of each class, before any collapse
  const void* factor;    // a class's sum is multiplied by it
  void* scores;          // [L, N]
  int64_t* labels;       // [N]
  void* edge;
  int32_t* argbest;
};

// A round of queries against a chunk of points. Query blocks are counted from the round's first.
struct Gradient {
  Matching matching;
  const int32_t* query_class;  // for pairs only: which of the points' classes is each query's, [N]
  double alpha, beta;          // and what is taken away from dL/d(scale s + shift): alpha + beta s
  const void* grad_scores;     // [L, N]
  const void* centre;          // softmax: sum_c grad_c score_c, [N]
  int64_t round;               // the first query block
  int64_t blocks;
  int64_t chunk;   // the first point
  int64_t points;  // a multiple of kMC, but for the last chunk
  // by block, the query: as panels; as [channels / NR][kPixelBlock][NR], unit vectors for kCosine;
  // and |q|^2
  void *packed, *transposed, *square;
  // null, or split: `transposed` by block, and the transposed points of the chunk by kMC
  void *split_queries, *split_points;
  bool* queries_fit;
  void* weights;  // by block: dL/ds [panels][points][kNR]
  // by block: dL/dq before its last step, [channels / MR][panels][MR][NR]; the sums over points of
  // dL/ds, [kPixelBlock]; dL/dshift, dL/dscale and the loss of the pairs. Without `query` only
  // these sums are computed.
  void *query, *row_sums;
  double* totals;
  // by block: the sums over its queries of dL/ds and of the gradient of a point's value, [points]
  double *block_columns, *block_values;
  // all points: dL/dr before its last step, [tiles][channels / NR][MR][NR], and the sums
  void* point;
  double *columns, *values;
  View grad_query;
};

// From the gradients of packed points to those of the points as they are listed.
struct PointGradient {
  Gradient gradient;
  Points listed;
  int64_t positions;    // all that the order lists, ignored ones too
  const int64_t* slot;  // null, or the packed point of a class
  View grad_reference;
};

// A pass of the anchors over the bank, or the gradient in the bank. Anchors are sorted by label,
// and a position is an index into the order of the bank's entries; for anchor i, the positions
// [start[i], end[i]) but own[i] are its positives. Of a pass:
struct Contrast {
  Points points;  // pass: the bank in order; gradient: the anchors, packed and transposed
  View queries;   // pass: the anchors; gradient: the bank
  Element element;
  Depth depth{0};
  int64_t anchors, entries;  // that count
  const int64_t *start, *end, *own;
  double scale;
  bool negatives, gradient;
  const void* log_sum;  // null in the first pass
  // pass: blocks of anchors, packed; those and the positions that a task takes; results by part,
  // [parts][all_anchors] and [parts][channels][all_anchors]
  void* packed;
  int64_t blocks_at_once, step, all_anchors;
  void *first, *second, *rows;
  // gradient: [2][all_anchors], and the position of each entry
  const void* weights;
  const int32_t* position;
  View grad_bank;
};

// The pairs of the pixels of one image, the queries, with the kept ones of another, the points. For
// the gradient, either side is the queries once.
struct Pairs {
  Points points;  // packed
  View queries;
  Element element;
  int64_t image, pixels;  // of the queries
  const bool* kept;       // null, or which of these
  double scale;
  // null, or of the queries and of the points: what is subtracted from their similarities
  const void *rows, *columns;
  // the blocks of queries and the points that a task takes; the largest of each query by part and
  // of each point by group of blocks, and the sum of e^{s - largest} or the index
  int64_t blocks_at_once, step;
  void *largest, *column_largest;
  double *sums, *column_sums;
  int32_t *best, *column_best;
  void* similarity;  // of the best of each query, by part
  // gradient: in `rows` and `columns`
  const void *grad_rows, *grad_columns;
  View grad;
};

struct Kernels {
  // square[p] = |r_p|^2 of points [begin, end)
  void (*squares)(const Points&, void* square, int64_t begin, int64_t end);
  // out [classes, D], channels [begin, end): the mean over a class's points, which lie at
  // [offsets[c], offsets[c + 1])
  void (*means)(const Points&, const int64_t* offsets, int64_t classes, void* out, int64_t begin,
                int64_t end);
  // kMCPanels tiles
  void (*pack)(const Points&, int64_t group);
  // of some whole blocks, at most kMaxInPlacePixels pixels with a single tile of points
  void (*scores)(const Matching&, int64_t begin, int64_t pixels, void* scratch);
  int64_t (*scores_scratch)(const Matching&);  // bytes

  void (*pack_query)(const Gradient&, int64_t block);
  // `scratch` holds kMC * kPixelBlock values, and split::weights_bytes
  void (*weights_of_block)(const Gradient&, int64_t block, void* scratch);
  void (*pair_weights_of_block)(const Gradient&, int64_t block, void* scratch);
  // kGatheredTiles tiles of the chunk; `scratch` holds that many by the depth, and
  // split::gather_bytes
  void (*gather)(const Gradient&, int64_t group, void* scratch);
  void (*finish_query)(const Gradient&, int64_t block);
  void (*finish_points)(const PointGradient&, int64_t begin, int64_t end);

  void (*pack_anchors)(const Contrast&, int64_t block);
  // blocks_at_once blocks of anchors with a part of the bank
  void (*contrast_pass)(const Contrast&, int64_t first_block, int64_t part, void* scratch);
  int64_t (*contrast_pass_scratch)(const Contrast&);  // bytes
  void (*contrast_gradient)(const Contrast&, int64_t block, void* scratch);
  int64_t (*gradient_scratch)(const Depth&);

  // blocks_at_once blocks of queries with a part of the points
  void (*log_sums)(const Pairs&, int64_t group, int64_t part, void* scratch);
  void (*mutual_best)(const Pairs&, int64_t group, int64_t part, void* scratch);
  int64_t (*pairs_scratch)(const Pairs&);
  void (*log_sums_gradient)(const Pairs&, int64_t block, void* scratch);
};

PK_SELECT_KERNELS(PerElement<Kernels>)

}  // namespace pixelkernels::similarity
