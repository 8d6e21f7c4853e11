// What the host code hands to the distance kernels of an instruction set. Torch-free.
#pragma once

#include "common/select.h"

namespace pixelkernels::distance {

enum class Encoding : int32_t { kEuclidean, kDisk, kTanh, kGaussian };

// Map 2 b is that of image b's clicks of label 1, map 2 b + 1 of those of label 0.
struct ClickMaps {
  const float* points;    // [B, N, 2]
  const int64_t* labels;  // [B, N]
  int64_t clicks, height, width;
  Encoding encoding;
  float radius, truncate;
  float* out;  // [B, 2, H, W]
};

constexpr int64_t kClickTileRows = 16;
constexpr int64_t kClickTileColumns = 32;  // a multiple of the lanes
constexpr int64_t kClickPad = 16;          // floats past a list of clicks

// How distances are computed: as squares in uint32, if both sides are at most 32767, or as float.
struct Transform {
  const uint8_t* mask;  // [N, H, W]
  int64_t height, width;
  float row_spacing, column_spacing;
  bool whole, squared, border;
  const void* squares;  // of the distance between columns d apart: the middle of a table
  void* out;            // [N, H, W], 4 bytes each: between the passes the columns' squares
};

constexpr int64_t kColumnBlock = 32;
// A finite square is below 2^31, and another square below 2^31 may be added to this one.
constexpr uint32_t kFarSquare = 1u << 31;
// The longest side for which every squared distance is an int32.
constexpr int kLongestExactSide = 32767;

// The errors of a prediction, and the deepest pixel of each kind.
struct Errors {
  const uint8_t* kinds;    // [B, H, W]: 0 no error, 1 and 2
  const uint8_t* allowed;  // [B, H, W], or null: everything is
  int64_t height, width;
  const uint32_t* distances;  // as the squares of a Transform
  int16_t* rows;              // [B, H, W], between the passes: along columns, padded by kAnchorStep
};
struct Deepest {
  uint32_t depth;  // squared
  int64_t index;
};
// The errors of one kind that are deeper than `depth`, and the rank of the one wanted, in row-major
// order.
struct Inner {
  uint8_t kind;
  uint32_t depth;
  int64_t chosen;
};

// `count` pixels of each image: those of the largest rank, or each the farthest from the earlier
// ones.
struct Picks {
  uint8_t* allowed;      // [B, H, W], to be overwritten
  const int64_t* seeds;  // [B], of random ranks
  const uint8_t* farthest;
  int32_t* ranks;  // [B, H, W], to be written: random, or squared distances to the earlier picks
  int64_t height, width, count;
  int32_t squared_spacing;  // the least squared distance between picks
  int64_t reach;            // pixels with a smaller one are within so many rows and columns
  int64_t* points;          // [B, count, 2]
};

struct Kernels {
  // rows [begin, end) of one map, at most kClickTileRows; `scratch` holds 5 (N + kClickPad) floats
  void (*click_rows)(const ClickMaps&, int64_t map, int64_t begin, int64_t end, float* scratch);
  // squared distances along columns [begin, end) of an image, at most kColumnBlock
  void (*columns)(const Transform&, int64_t image, int64_t begin, int64_t end);
  // from columns to the result, in rows [begin, end); `scratch` holds row_scratch(W) values
  void (*rows)(const Transform&, int64_t image, int64_t begin, int64_t end, void* scratch);
  // the same for errors, in pixels instead of squares
  void (*error_columns)(const Errors&, int64_t image, int64_t begin, int64_t end);
  // keeps only the deeper of the two kinds; `most` is the largest depth of the image so far, shared
  // by all of its row pieces
  void (*error_rows)(const Errors&, int64_t image, int64_t begin, int64_t end, void* scratch,
                     Deepest* deepest, uint32_t* most);
  // the number of inner pixels in rows [begin, end), and the index of the chosen one
  int64_t (*inner_rows)(const Errors&, int64_t image, int64_t begin, int64_t end, void* scratch,
                        const Inner&, int64_t* index);
  void (*pick)(const Picks&, int64_t image);
};

constexpr int64_t kAnchorStep = 16;  // an anchor every so many pixels of a row
constexpr int64_t row_scratch(int64_t width) { return 3 * (width + 2 * kAnchorStep); }

PK_SELECT_KERNELS(Kernels)

}  // namespace pixelkernels::distance
