// The weights that PixelWeights describes.
#pragma once

#include "regions/cuda/kernels.cuh"

namespace pixelkernels::regions::cuda {

struct WeightAndTotal {
  float weight, total;
};

// Where the hinge is positive, the distance is hinge + delta.
__device__ inline float hinge_weight(float hinge, float delta, int norm) {
  const float distance = hinge + delta;
  if (hinge == 0.0f || norm == 1) return hinge;
  return distance == 0.0f ? 0.0f : hinge / distance;
}

__device__ inline float slope_weight(float gradient, float distance, float total, bool squared) {
  const float weight = squared ? 2.0f * gradient : gradient / distance;
  return gradient == 0.0f || distance == 0.0f || total == 0.0f ? 0.0f : weight;
}

// Of pixel i of all images, where from.values[i] is already loaded.
__device__ inline WeightAndTotal pixel_weight(const PixelWeights& from, float value, int64_t image,
                                              int64_t i) {
  if (from.kind == PixelWeights::kGiven) return {value, value};
  if (from.kind == PixelWeights::kHinge)
    return {hinge_weight(value, from.delta, from.norm), value * value};
  const float weight = slope_weight(value, from.distance[i], from.total[image], from.squared);
  return {weight, weight};
}

__device__ inline float sign(float x) { return static_cast<float>((x > 0.0f) - (x < 0.0f)); }

}  // namespace pixelkernels::regions::cuda
