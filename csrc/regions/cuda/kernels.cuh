// What the CUDA operators on regions launch. Every function only enqueues work on the device's
// stream.
#pragma once

#include "common/cuda.cuh"

namespace pixelkernels::regions::cuda {

// The pixels of a call and the regions they belong to. Labels are contiguous [batch, pixels].
struct Pixels {
  View features;
  Element element;
  int64_t batch;
  int channels, pixels;
  const void* labels;
  Label label;  // kNone: every pixel is in region 0
  int regions;
};

// ---- sums over regions (sums.cu) ----

// Count [B, R], mean [B, R, C] and variance [B, R], of the features or, with 1 / |f_i| given as
// inverse_norm [B, P], of the normalised ones.
void region_moments(const Device& device, const Pixels& pixels, const float* inverse_norm,
                    int64_t* count, float* mean, float* variance);

// The weight w_i of a pixel in `sums` and its part q_i in `totals`; a pixel of weight exactly 0
// does not enter.
struct PixelWeights {
  enum Kind {
    kGiven,  // w = q = values
    kHinge,  // values h: w u = h (f - centre) / d with d = h + delta, or h sign(f - centre) for
             // norm 1; q = h^2
    kSlope,  // values g: w = q = g / distance, or 2 g if squared; 0 where the distance is 0 or
             // total[image] is 0
  };
  Kind kind;
  const float* values;  // [B, P]
  float delta;
  int norm;
  const float *distance, *total;
  bool squared;
};

// sums [B, R, C] = sum w_i (f_i - centre_r), totals [B, R] = sum q_i; centre [B, R, C] may be null.
// With divide_eps >= 0 the sums are divided by totals + divide_eps (by 1 where that is 0).
void region_sums(const Device& device, const Pixels& pixels, const PixelWeights& weights,
                 const float* centre, float* sums, float* totals, float divide_eps = -1);

// ---- one value for each pixel (pixels.cu) ----

// All outputs are [B, P].
void pixel_inverse_norm(const Device& device, const Pixels& pixels, float* out);
// h = [|f_i - mean_r| - delta]_+, 0 at ignored pixels, or the factor of f_i - mean_r (of its signs
// for norm 1) in h u; mean [B, R, C]
void pixel_hinge(const Device& device, const Pixels& pixels, const float* mean, float delta,
                 int norm, bool as_weight, float* out);
// |f_i - mean| or its square, 0 where total [B] is not positive; mean [B, 1, C]
void pixel_distance(const Device& device, const Pixels& pixels, const float* mean,
                    const float* total, bool squared, float* out);
// |y_i - own mean|^2 - |y_i - other mean|^2 with y the features or their normalisation; mean [B, 2,
// C]
void pixel_contrast(const Device& device, const Pixels& pixels, const float* mean, bool normalize,
                    float* out);

// ---- dense gradients (gradient.cu) ----

// grad_mean [B, R, C], grad_variance [B, R] and grad_pull [B, R] may be null. Gradients are written
// completely, in any layout.
void stats_gradient(const Device& device, const Pixels& pixels, const View& gradient,
                    const float* grad_mean, const float* grad_variance, const int64_t* count,
                    const float* mean, bool normalize);
void pull_gradient(const Device& device, const Pixels& pixels, const View& gradient,
                   const float* grad_mean, const float* grad_pull, const int64_t* count,
                   const float* mean, const float* direction, float delta, int norm);
// d f_i = c_i (f_i - mean) + w_i T and d w_i = (f_i - mean) . T, with T [B, C] = scale_b
// direction_b, where scale = 1 / (total + eps), or -1 / total with `slope`; c_i is the weight of
// `slope`, or 0 where it is null. Without `grad_weights`, which has no slope or mean either, d f_i
// alone.
void weighted_gradient(const Device& device, const Pixels& pixels, const View& gradient,
                       const float* direction, const float* weights, const float* mean,
                       const float* total, float eps, const PixelWeights* slope,
                       float* grad_weights);

// ---- the distances between means (push.cu) ----

void push_and_gradient(const Device& device, const float* mean, const bool* present, int64_t batch,
                       int regions, int channels, float delta, int norm, float* push,
                       float* gradient);

}  // namespace pixelkernels::regions::cuda
