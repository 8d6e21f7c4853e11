// What the host code hands to the distance kernels of an instruction set. Torch-free.
#pragma once

#include <cstdint>

namespace pixelkernels {

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

constexpr int64_t kClickRows = 16;     // a tile of a map
constexpr int64_t kClickColumns = 32;  // a multiple of the lanes

// How distances are computed: as whole squares in uint32, where a square of two sides of up to
// 32767 fits, or as float.
struct Transform {
  const uint8_t* mask;  // [N, H, W]
  int64_t height, width;
  float row_spacing, column_spacing;
  bool whole, squared, border;
  const void* squares;  // of the distance between columns d apart, d in [-W - 8, W + 8]
  void* out;            // [N, H, W], 4 bytes each: between the passes the columns' squares
};

constexpr int64_t kColumns = 32;  // that go down the image together
// A finite square is below 2^31, and another square below 2^31 may be added to this one.
constexpr uint32_t kFar = 1u << 31;

struct DistanceKernels {
  // rows [begin, end) of one map, at most kClickRows; `scratch` holds 5 floats per click
  void (*click_rows)(const ClickMaps&, int64_t map, int64_t begin, int64_t end, float* scratch);
  // squared distances along columns [begin, end) of an image, at most kColumns
  void (*columns)(const Transform&, int64_t image, int64_t begin, int64_t end);
  // from those to the result, in rows [begin, end); `scratch` holds row_scratch(W) values
  void (*rows)(const Transform&, int64_t image, int64_t begin, int64_t end, void* scratch);
};

constexpr int64_t kBlock = 16;  // pixels of a row that share their candidates
inline int64_t row_scratch(int64_t width) { return 3 * (width + 2 * kBlock); }

namespace baseline {
extern const DistanceKernels kDistanceKernels;
}
namespace avx2 {
extern const DistanceKernels kDistanceKernels;
}
namespace avx512 {
extern const DistanceKernels kDistanceKernels;
}

}  // namespace pixelkernels
