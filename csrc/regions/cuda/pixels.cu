// One value for each pixel: norms, distances to the region's mean, the contrast between two means.
#include "regions/cuda/pixels.cuh"

namespace pixelkernels::regions::cuda {
namespace {

struct DistanceOp {
  static constexpr bool kReads = true, kWrites = false;
  static constexpr int kSums = 1;
  struct State {
    int region;
  };
  enum Kind { kInverseNorm, kHinge, kHingeWeight, kDistance };

  Kind kind;
  Pixels p;
  int norm;
  float delta;
  const float* total;
  float* out;

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
    int regions[N];
    regions_of(p, image, first, regions);
#pragma unroll
    for (int k = 0; k < N; ++k) states[k] = {regions[k]};
  }
  __device__ float step(const State&, float x, float2 entry, float* sums) const {
    const float d = x - entry.x;
    sums[0] += norm == 1 ? fabsf(d) : d * d;
    return 0.0f;
  }
  __device__ void finish(int64_t image, int pixel, const State& state, const float* sums) const {
    const float distance = norm == 2 ? sqrtf(sums[0]) : sums[0];
    float value = distance;
    if (kind == kInverseNorm) value = 1.0f / (distance == 0.0f ? 1.0f : distance);
    if (kind == kHinge || kind == kHingeWeight) {
      value = distance - delta;
      value = value < 0.0f || state.region < 0 ? 0.0f : value;
      if (kind == kHingeWeight) value = hinge_weight(value, delta, norm);
    }
    if (kind == kDistance && total[image] == 0.0f) value = 0.0f;
    out[image * p.pixels + pixel] = value;
  }
};

struct ContrastOp {
  static constexpr bool kReads = true, kWrites = false;
  static constexpr int kSums = 3;
  struct State {
    int region;
  };

  Pixels p;
  bool normalize;
  float* out;

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
    int regions[N];
    regions_of(p, image, first, regions);
#pragma unroll
    for (int k = 0; k < N; ++k) states[k] = {regions[k]};
  }
  // |x - own|^2 - |x - other|^2 = (other - own) . (2 x - own - other)
  __device__ float step(const State&, float x, float2 entry, float* sums) const {
    const float gap = entry.y - entry.x;
    if (normalize) {
      sums[0] += x * x;
      sums[1] += gap * x;
      sums[2] += gap * (entry.x + entry.y);
    } else {
      sums[0] += gap * ((x - entry.x) + (x - entry.y));
    }
    return 0.0f;
  }
  __device__ void finish(int64_t image, int pixel, const State& state, const float* sums) const {
    float value = sums[0];
    if (normalize) {
      const float norm = sqrtf(sums[0]);
      value = 2.0f * sums[1] / (norm == 0.0f ? 1.0f : norm) - sums[2];
    }
    out[image * p.pixels + pixel] = state.region < 0 ? 0.0f : value;
  }
};

void distances(const Device& device, const Pixels& pixels, DistanceOp op, const float* mean) {
  op.p = pixels;
  PixelWalk walk = walk_of(pixels, nullptr, true);
  if (mean) make_table(device, walk, MeanTable{mean, pixels.regions, pixels.channels, false});
  launch_pixels(device, pixels.element, walk, op);
}

}  // namespace

void pixel_inverse_norm(const Device& device, const Pixels& pixels, float* out) {
  DistanceOp op = {DistanceOp::kInverseNorm};
  op.norm = 2;
  op.out = out;
  distances(device, pixels, op, nullptr);
}

void pixel_hinge(const Device& device, const Pixels& pixels, const float* mean, float delta,
                 int norm, bool as_weight, float* out) {
  DistanceOp op = {as_weight ? DistanceOp::kHingeWeight : DistanceOp::kHinge};
  op.norm = norm;
  op.delta = delta;
  op.out = out;
  distances(device, pixels, op, mean);
}

void pixel_distance(const Device& device, const Pixels& pixels, const float* mean,
                    const float* total, bool squared, float* out) {
  DistanceOp op = {DistanceOp::kDistance};
  op.norm = squared ? 0 : 2;  // 0: the square
  op.total = total;
  op.out = out;
  distances(device, pixels, op, mean);
}

void pixel_contrast(const Device& device, const Pixels& pixels, const float* mean, bool normalize,
                    float* out) {
  ContrastOp op = {pixels, normalize, out};
  PixelWalk walk = walk_of(pixels, nullptr, true);
  make_table(device, walk, MeanTable{mean, pixels.regions, pixels.channels, true});
  launch_pixels(device, pixels.element, walk, op);
}

}  // namespace pixelkernels::regions::cuda
