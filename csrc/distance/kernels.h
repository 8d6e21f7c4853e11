// What the host code hands to the distance kernels of an instruction set. Torch-free.
#pragma once

#include "common/select.h"

namespace pixelkernels::distance {

enum class Encoding : int32_t { kEuclidean, kDisk, kTanh, kGaussian };

// Map 2 b is that of image b's clicks of label 1, map 2 b + 1 of those of label 0. A slice is a
// map, or the part of a volume's map that has one depth; the depth of images is 1.
struct ClickMaps {
  const float* points;    // [B, N, axes]
  const int64_t* labels;  // [B, N]
  int axes;
  int64_t clicks, depth, height, width;
  Encoding encoding;
  float radius, truncate;
  float* out;  // [B, 2, D, H, W]
};

constexpr int64_t kClickTileRows = 16;
constexpr int64_t kClickTileColumns = 32;  // a multiple of the lanes
constexpr int64_t kClickPad = 16;          // floats past a list of clicks

// Masks whose distances are computed along one axis after the other: the first axis, of `length`
// pixels, then the rows of a volume, then the columns. There are `lines` lines along the first
// axis. A slice is an image, or the part of a volume that has one depth.
struct Space {
  const uint8_t* mask;  // [N, H, W], or [N, D, H, W] of volumes
  bool volume;
  int64_t depth, height, width;  // the depth of images is 1
  int64_t length() const { return volume ? depth : height; }
  int64_t lines() const { return volume ? height * width : width; }
  // Tables of squared distances, from the middle: of rows and of columns d apart.
  const void *row_squares, *column_squares;
};

// The transform of labels takes, in place of a mask, the changes of every pixel, as bits: whether
// its label is another than that of the pixel before it along an axis, and whether its distance is
// 0 in any case.
constexpr uint8_t kAlongDepth = 1, kAlongRows = 2, kAlongColumns = 4, kBackground = 8;

// Squares are uint32, if the spacing is 1 and no side too long for it, or float. The result at x of
// a line is min_q g_q + (x - q)^2, where g are the squares from the earlier axes; of labels it is
// at most the square of the steps to another label along the line. That suffices: a q with another
// label is at least as many steps away, so its g may be included.
struct Transform : Space {
  float depth_spacing, row_spacing, column_spacing;
  bool whole, squared, border;
  bool labels;  // the mask is of changes
  void* out;    // 4 bytes per pixel: the squares between the passes
  float first_spacing() const { return volume ? depth_spacing : row_spacing; }
};

// Labels whose changes are to be found.
struct Labels {
  const void* labels;  // contiguous, of the shape of a mask
  Label type;
  int64_t depth, height, width;
  bool background;  // the label 0 has distances, too
  uint8_t* changes;
};

// The coordinates of the nearest True pixel. Squares are uint32 or double, and are computed again
// from the coordinates in every pass. The passes before the last one leave a word for each pixel:
// its coordinate on the first axis, of volumes with that of the rows in the lower half, or -1.
struct Nearest : Space {
  const void* first_squares;  // a table, as those of Space
  bool whole, squared;
  bool past_caches;  // the outputs are
  void* words;       // int32, or int64 if has_wide_words; may be the distances
  void* distance;    // [N, ...], 4 bytes each
  int32_t* indices;  // [N, axes, ...], -1 where no pixel is True
};

// The labels of the nearest pixels that have one, up to the limit, which is a square if `squared`,
// or a distance in float.
struct Expansion : Nearest {
  const void* labels;
  Label type;
  double limit;
  void* expanded;
};

constexpr int64_t kColumnBlock = 32;
constexpr int64_t kTileColumns = 16;
// A finite square is below 2^31, and another square below 2^31 may be added to this one.
constexpr uint32_t kFarSquare = 1u << 31;
// The longest sides of images and of volumes for which every squared distance is an int32.
constexpr int kLongestExactSide = 32767, kLongestExactVolumeSide = 26755;
// Whether two coordinates do not fit in an int32.
inline bool has_wide_words(const Space& s) {
  constexpr int64_t kHalf = 1 << 15;
  return s.volume && (s.depth >= kHalf || s.height >= kHalf);
}

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

// `count` pixels of each image or volume: those of the largest rank, or each the farthest from the
// earlier ones. The depth of images is 1.
struct Picks {
  uint8_t* allowed;      // [B, D, H, W], to be overwritten
  const int64_t* seeds;  // [B], of random ranks
  const uint8_t* farthest;
  int32_t* ranks;  // [B, D, H, W], to be written: random, or squared distances to the earlier picks
  int64_t depth, height, width, count;
  int32_t squared_spacing;  // the least squared distance between picks
  int64_t reach;            // pixels with a smaller one are within so many steps along each axis
  int axes;
  int64_t* points;  // [B, count, axes]
};

struct Kernels {
  // rows [begin, end) of one slice, at most kClickTileRows; `scratch` holds 7 (N + kClickPad)
  // floats
  void (*click_rows)(const ClickMaps&, int64_t slice, int64_t begin, int64_t end, float* scratch);
  // the changes in one line along the columns, of all masks
  void (*find_changes)(const Labels&, int64_t line);
  // squared distances along the first axis, in lines [begin, end) of a mask, at most kColumnBlock
  void (*first_axis)(const Transform&, int64_t mask, int64_t begin, int64_t end);
  // those within columns [begin, end) of a volume's slice, at most kTileColumns, from the squares
  // of the first axis; `scratch` holds tile_scratch(H) values
  void (*columns)(const Transform&, int64_t slice, int64_t begin, int64_t end, void* scratch);
  // the result, in rows [begin, end) of a slice; `scratch` holds row_scratch(W) values
  void (*rows)(const Transform&, int64_t slice, int64_t begin, int64_t end, void* scratch);
  // the same for the nearest pixels
  void (*nearest_of_first_axis)(const Nearest&, int64_t mask, int64_t begin, int64_t end);
  void (*nearest_of_columns)(const Nearest&, int64_t slice, int64_t begin, int64_t end,
                             void* scratch);
  void (*nearest_of_rows)(const Nearest&, int64_t slice, int64_t begin, int64_t end, void* scratch);
  void (*labels_of_rows)(const Expansion&, int64_t slice, int64_t begin, int64_t end,
                         void* scratch);
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
constexpr int64_t padded(int64_t length) { return length + 2 * kAnchorStep; }
// in values of a square's type, which is no smaller than a coordinate
constexpr int64_t row_scratch(int64_t width) { return 8 * padded(width); }
constexpr int64_t tile_scratch(int64_t height) { return (kTileColumns + 5) * padded(height); }

PK_SELECT_KERNELS(Kernels)

}  // namespace pixelkernels::distance
