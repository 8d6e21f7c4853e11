// Dense gradients: the features are read once and the gradient written once.
#include "regions/cuda/pixels.cuh"

namespace pixelkernels::regions::cuda {
namespace {

__device__ float over_count(float x, int64_t count) {
  return count == 0 ? 0.0f : x / static_cast<float>(count);
}

// ---- through means, variances and pulls ----

// Entry: the mean, and the part of the gradient that is the same for all pixels of the region,
// (grad_mean - 2 grad_pull direction) / n. Apart from the table, each region's factor of f_i -
// mean: 2 grad_variance / n, or 2 grad_pull, to be multiplied by the weight of the hinge.
struct SharedPartTable {
  const float *mean, *grad_mean;
  const int64_t* count;
  const float *grad_variance, *grad_pull, *direction;
  float* factor;  // [B, R]
  int64_t regions, channels;

  __device__ float2 entry(int64_t image, int64_t region, int64_t channel) const {
    const int64_t row = image * regions + region, i = row * channels + channel;
    float shared = grad_mean ? grad_mean[i] : 0.0f;
    if (grad_pull && grad_pull[row] != 0.0f) shared -= 2.0f * grad_pull[row] * direction[i];
    if (channel == 0) {
      const float of_variance =
          grad_variance ? over_count(2.0f * grad_variance[row], count[row]) : 0.0f;
      factor[row] = grad_pull ? 2.0f * grad_pull[row] : of_variance;
    }
    return make_float2(mean[i], over_count(shared, count[row]));
  }
};

struct Coefficient {
  Pixels p;
  const float *factor, *hinge_weights;  // [B, R]; [B, P] or null

  __device__ float at(int64_t image, int pixel, int region) const {
    if (region < 0) return 0.0f;
    float value = factor[image * p.regions + region];
    if (hinge_weights && value != 0.0f) value *= hinge_weights[image * p.pixels + pixel];
    return value;
  }
};

struct GradientState {
  int region;
  float coefficient, inverse, dot;
};

// y = f / |f| has the gradient (g - y (y . g)) / |f|, where g is the gradient in y; this computes 1
// / |f| and y . g.
struct DotOp {
  static constexpr bool kReads = true, kWrites = false;
  static constexpr int kSums = 2;
  using State = GradientState;

  Coefficient coefficient;
  float2* out;  // [B, P]

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
    int regions[N];
    regions_of(coefficient.p, image, first, regions);
#pragma unroll
    for (int k = 0; k < N; ++k)
      states[k] = {regions[k], coefficient.at(image, first + k, regions[k]), 0.0f, 0.0f};
  }
  __device__ float step(const State& state, float x, float2 entry, float* sums) const {
    sums[0] += x * x;
    sums[1] += x * (state.coefficient == 0.0f ? entry.y : entry.y - state.coefficient * entry.x);
    return 0.0f;
  }
  __device__ void finish(int64_t image, int pixel, const State& state, const float* sums) const {
    const float norm = sqrtf(sums[0]), inverse = 1.0f / (norm == 0.0f ? 1.0f : norm);
    const float unit = norm == 0.0f ? 0.0f : 1.0f;  // y . y
    out[image * coefficient.p.pixels + pixel] =
        make_float2(inverse, state.coefficient * unit + inverse * sums[1]);
  }
};

template <bool kNormalize>
struct GradientOp {
  static constexpr bool kReads = true, kWrites = true;
  static constexpr int kSums = 0;
  using State = GradientState;

  Coefficient coefficient;
  bool by_sign;
  const float2* dots;

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
    int regions[N];
    regions_of(coefficient.p, image, first, regions);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const bool dotted = kNormalize && regions[k] >= 0;
      const float2 dot =
          dotted ? dots[image * coefficient.p.pixels + first + k] : make_float2(1.0f, 0.0f);
      states[k] = {regions[k], coefficient.at(image, first + k, regions[k]), dot.x, dot.y};
    }
  }
  __device__ float step(const State& state, float x, float2 entry, float*) const {
    const float y = kNormalize ? x * state.inverse : x, d = y - entry.x;
    float g = entry.y;
    if (state.coefficient != 0.0f) g += state.coefficient * (by_sign ? sign(d) : d);
    if (kNormalize) g = state.inverse * (g - y * state.dot);
    return state.region < 0 ? 0.0f : g;
  }
};

// Without a gradient in the variance, the features are not read.
struct SharedPartOp {
  static constexpr bool kReads = false, kWrites = true;
  static constexpr int kSums = 0;
  struct State {
    int region;
  };

  Pixels p;

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
    int regions[N];
    regions_of(p, image, first, regions);
#pragma unroll
    for (int k = 0; k < N; ++k) states[k] = {regions[k]};
  }
  __device__ float step(const State& state, float, float2 entry, float*) const {
    return state.region < 0 ? 0.0f : entry.y;
  }
};

// ---- through weighted means ----

// Entry: mean and T.
struct DirectionTable {
  const float *mean, *direction, *total;
  float eps;
  bool slope;
  int64_t channels;

  __device__ float2 entry(int64_t image, int64_t, int64_t channel) const {
    const int64_t i = image * channels + channel;
    const float sum = total[image], divisor = sum + eps;
    float scale = divisor == 0.0f ? 0.0f : 1.0f / divisor;
    if (slope) scale = sum != 0.0f ? -1.0f / sum : 0.0f;
    return make_float2(mean ? mean[i] : 0.0f, direction[i] * scale);
  }
};

struct WeightedOp {
  static constexpr bool kReads = true, kWrites = true;
  static constexpr int kSums = 1;
  struct State {
    int region;
    float weight, slope;
  };

  Pixels p;
  const float* weights;
  PixelWeights slope;
  bool has_slope;
  float* grad_weights;

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const int64_t i = image * p.pixels + first + k;
      states[k] = {-1, 0.0f, 0.0f};
      if (first + k >= p.pixels) continue;
      states[k] = {0, weights[i], 0.0f};
      if (has_slope)
        states[k].slope =
            slope_weight(slope.values[i], slope.distance[i], slope.total[image], slope.squared);
    }
  }
  __device__ float step(const State& state, float x, float2 entry, float* sums) const {
    const float d = x - entry.x;
    float g = state.weight == 0.0f ? 0.0f : state.weight * entry.y;
    if (state.slope != 0.0f) g += state.slope * d;
    sums[0] += d * entry.y;
    return g;
  }
  __device__ void finish(int64_t image, int pixel, const State& state, const float* sums) const {
    const bool readable = state.weight != 0.0f || isfinite(sums[0]);
    const bool defined = !has_slope || slope.total[image] != 0.0f;
    grad_weights[image * p.pixels + pixel] = readable && defined ? sums[0] : 0.0f;
  }
};

// w_i T alone.
struct WeightedShareOp {
  static constexpr bool kReads = false, kWrites = true;
  static constexpr int kSums = 0;
  struct State {
    int region;
    float weight;
  };

  Pixels p;
  const float* weights;

  template <int N>
  __device__ void begin(int64_t image, int first, State (&states)[N]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const bool inside = first + k < p.pixels;
      states[k] = {inside ? 0 : -1, inside ? weights[image * p.pixels + first + k] : 0.0f};
    }
  }
  __device__ float step(const State& state, float, float2 entry, float*) const {
    return state.weight == 0.0f ? 0.0f : state.weight * entry.y;
  }
};

}  // namespace

void stats_gradient(const Device& device, const Pixels& pixels, const View& gradient,
                    const float* grad_mean, const float* grad_variance, const int64_t* count,
                    const float* mean, bool normalize) {
  const bool reads = normalize || grad_variance;
  float* factor = device.workspace<float>(pixels.batch * pixels.regions);
  PixelWalk walk = walk_of(pixels, &gradient, reads);
  make_table(device, walk,
             SharedPartTable{mean, grad_mean, count, grad_variance, nullptr, nullptr, factor,
                             pixels.regions, pixels.channels});
  const Coefficient coefficient = {pixels, factor, nullptr};
  if (!reads) return launch_pixels(device, pixels.element, walk, SharedPartOp{pixels});
  if (!normalize)
    return launch_pixels(device, pixels.element, walk,
                         GradientOp<false>{coefficient, false, nullptr});
  float2* dots = device.workspace<float2>(pixels.batch * pixels.pixels);
  PixelWalk reading = walk_of(pixels, nullptr, true);
  reading.table = walk.table;
  launch_pixels(device, pixels.element, reading, DotOp{coefficient, dots});
  launch_pixels(device, pixels.element, walk, GradientOp<true>{coefficient, false, dots});
}

void pull_gradient(const Device& device, const Pixels& pixels, const View& gradient,
                   const float* grad_mean, const float* grad_pull, const int64_t* count,
                   const float* mean, const float* direction, float delta, int norm) {
  float* factor = device.workspace<float>(pixels.batch * pixels.regions);
  PixelWalk walk = walk_of(pixels, &gradient, grad_pull != nullptr);
  make_table(device, walk,
             SharedPartTable{mean, grad_mean, count, nullptr, grad_pull, direction, factor,
                             pixels.regions, pixels.channels});
  if (!grad_pull) return launch_pixels(device, pixels.element, walk, SharedPartOp{pixels});
  float* weights = device.workspace<float>(pixels.batch * pixels.pixels);
  pixel_hinge(device, pixels, mean, delta, norm, true, weights);
  const Coefficient coefficient = {pixels, factor, weights};
  launch_pixels(device, pixels.element, walk, GradientOp<false>{coefficient, norm == 1, nullptr});
}

void weighted_gradient(const Device& device, const Pixels& pixels, const View& gradient,
                       const float* direction, const float* weights, const float* mean,
                       const float* total, float eps, const PixelWeights* slope,
                       float* grad_weights) {
  PixelWalk walk = walk_of(pixels, &gradient, grad_weights != nullptr);
  make_table(device, walk,
             DirectionTable{mean, direction, total, eps, slope != nullptr, pixels.channels});
  if (!grad_weights)
    return launch_pixels(device, pixels.element, walk, WeightedShareOp{pixels, weights});
  const WeightedOp op = {pixels, weights, slope ? *slope : PixelWeights{}, slope != nullptr,
                         grad_weights};
  launch_pixels(device, pixels.element, walk, op);
}

}  // namespace pixelkernels::regions::cuda
