// What the host code hands to the distance kernels of an instruction set. Torch-free.
#pragma once

#include "common/select.h"

namespace pixelkernels::distance {

enum class Encoding : int32_t { kEuclidean, kDisk, kTanh, kGaussian };

// Maps are counted through images and labels: map 2 b is image b's of the clicks with label 1, map
// 2 b + 1 of those with label 0.
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

// How distances are computed: as whole squares in uint32, where a square of two sides of up to
// 32767 fits, or as float.
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

// The errors of a prediction, and where the deepest of each kind lies.
struct Errors {
  const uint8_t* kinds;    // [B, H, W]: 0 no error, 1 and 2
  const uint8_t* allowed;  // [B, H, W], or null: everything is
  int64_t height, width;
  const uint32_t* distances;  // as the squares of a Transform
  int16_t* rows;              // [B, H, W], between the passes: along columns, padded by kAnchorStep
};
struct Deepest {
  uint32_t depth;  // squared
  int64_t place;
};
// Errors of one kind that are deeper than this, and which of them is asked for, in row-major order.
struct Inner {
  uint8_t kind;
  uint32_t depth;
  int64_t chosen;
};

// `count` pixels of each image, the largest `order` first, or each the farthest from those before.
struct Picks {
  uint8_t* allowed;      // [B, H, W], to be overwritten
  const int32_t* order;  // [B, H, W]
  const uint8_t* farthest;
  int32_t* gaps;  // [B, H, W], to be written
  int64_t height, width, count;
  int32_t apart;    // the least squared distance between picks
  int64_t reach;    // pixels with a smaller one are within so many rows and columns
  int64_t* points;  // [B, count, 2]
};

struct Kernels {
  // rows [begin, end) of one map, at most kClickTileRows; `scratch` holds 5 (N + kClickPad) floats
  void (*click_rows)(const ClickMaps&, int64_t map, int64_t begin, int64_t end, float* scratch);
  // squared distances along columns [begin, end) of an image, at most kColumnBlock
  void (*columns)(const Transform&, int64_t image, int64_t begin, int64_t end);
  // from those to the result, in rows [begin, end); `scratch` holds row_scratch(W) values
  void (*rows)(const Transform&, int64_t image, int64_t begin, int64_t end, void* scratch);
  // the same for errors, in steps instead of squares
  void (*error_columns)(const Errors&, int64_t image, int64_t begin, int64_t end);
  // keeps only the deepest of the two kinds; `most` is how deep the deepest of the image are so
  // far, which all of its pieces share
  void (*error_rows)(const Errors&, int64_t image, int64_t begin, int64_t end, void* scratch,
                     Deepest* deepest, uint32_t* most);
  // how many inner ones there are in rows [begin, end), and the place of the chosen one
  int64_t (*inner_rows)(const Errors&, int64_t image, int64_t begin, int64_t end, void* scratch,
                        const Inner&, int64_t* place);
  void (*pick)(const Picks&, int64_t image);
};

constexpr int64_t kAnchorStep = 16;  // pixels of a row that share their candidates
constexpr int64_t row_scratch(int64_t width) { return 3 * (width + 2 * kAnchorStep); }

PK_SELECT_KERNELS(Kernels)

}  // namespace pixelkernels::distance
