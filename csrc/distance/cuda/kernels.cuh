// The kernels of the distance family, as the host code calls them. Torch-free.
#pragma once

#include "common/cuda.cuh"
#include "distance/kernels.h"

namespace pixelkernels::distance::cuda {

struct ClickMaps {
  const float* points;  // [B, N, 2], (row, column), or [B, N, 3], (depth, row, column), of volumes
  const int64_t* labels;  // [B, N]
  int64_t batch, clicks;
  bool volumes;
  int depth, height, width;  // the depth of images is 1
  Encoding encoding;
  float parameter;  // the truncation | the largest square | a factor of d | a factor of d^2
};

// The parameter of ClickMaps made of radius or truncation, clamped so that 0 and infinity give no
// NaN.
float click_parameter(Encoding encoding, double radius, double truncate);

// out: [B, 2, H, W], or [B, 2, D, H, W] of volumes, the map of label 1 first.
void click_maps(const Device& device, const ClickMaps& maps, float* out);

struct Masks {
  const uint8_t* data;  // [N, H, W], or [N, D, H, W] of volumes; anything but 0 is True
  int64_t images;
  bool volumes;
  int depth, height, width;  // the depth of images is 1
  bool border;               // the pixels around an image are True, or have another label
  bool labels;               // the data are changes, as in distance/kernels.h

  int64_t pixels() const { return int64_t{depth} * height * width; }  // of an image
};

struct Spacing {
  double depth, row, column;
};

constexpr int kLongestSide = 1 << 29;  // of a mask
constexpr uint8_t kAnyBit = 0xff;

// The changes of contiguous labels; `background`: the label 0 has distances, too.
void find_changes(const Device& device, const void* labels, Label type, const Masks& masks,
                  bool background, uint8_t* changes);

// out: the shape of the masks, int32 squares or float32 distances. The spacing is 1, and the sides
// at most kLongestExactSide, or kLongestExactVolumeSide.
void exact_transform(const Device& device, const Masks& masks, bool squared, uint32_t* out);

// out: float32 distances.
void scaled_transform(const Device& device, const Masks& masks, const Spacing& spacing,
                      uint32_t* out);

// As the transforms, and indices [N, 2 or 3, *space]; without a border.
void exact_nearest(const Device& device, const Masks& masks, bool squared, uint32_t* distance,
                   int* indices);
void scaled_nearest(const Device& device, const Masks& masks, const Spacing& spacing,
                    uint32_t* distance, int* indices);

// Whether pixels have a label, 0 or 1. `mask` may be memory of another use.
void find_labelled(const Device& device, const void* labels, Label type, int64_t pixels,
                   uint8_t* mask);

// The labels of the nearest pixels of a mask, if their distances, or squares, are at most the
// limit.
struct Expansion {
  const void* labels;
  int64_t label_bytes;
  unsigned limit;  // a square, or the bits of a float
  void* expanded;  // may hold the mask
};
void exact_expansion(const Device& device, const Masks& masks, bool squared,
                     const Expansion& expansion);
void scaled_expansion(const Device& device, const Masks& masks, const Spacing& spacing,
                      const Expansion& expansion);

}  // namespace pixelkernels::distance::cuda
