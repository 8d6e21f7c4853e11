// The kernels of the distance family, as the host code calls them. Torch-free.
#pragma once

#include "common/cuda.cuh"
#include "distance/kernels.h"

namespace pixelkernels::distance::cuda {

struct ClickMaps {
  const float2* points;   // [B, N], (row, column)
  const int64_t* labels;  // [B, N]
  int64_t batch, clicks;
  int height, width;
  Encoding encoding;
  float parameter;  // the truncation | the largest square | a factor of d | a factor of d^2
};

// The parameter of ClickMaps made of radius or truncation, clamped so that 0 and infinity give no
// NaN.
float click_parameter(Encoding encoding, double radius, double truncate);

// out: [B, 2, H, W], the map of label 1 first.
void click_maps(const Device& device, const ClickMaps& maps, float* out);

struct Masks {
  const uint8_t* data;  // [N, H, W], anything but 0 is True
  int64_t images;
  int height, width;
  bool border;  // the pixels around an image are True
};

constexpr int kLongestSide = 1 << 29;  // of a mask

// out: [N, H, W], int32 squares or float32 distances. The spacing is 1, and the sides at most
// kLongestExactSide.
void exact_transform(const Device& device, const Masks& masks, bool squared, uint32_t* out);

// out: [N, H, W] of float32 distances.
void scaled_transform(const Device& device, const Masks& masks, double row_spacing,
                      double column_spacing, uint32_t* out);

}  // namespace pixelkernels::distance::cuda
