// The CUDA side of the operators on regions.
#include <limits>
#include <optional>
#include <tuple>

#include "common/cuda_host.h"
#include "regions/cuda/kernels.cuh"

namespace pixelkernels::regions::cuda {
namespace {

using OptionalTensor = std::optional<Tensor>;

Pixels pixels_of(const Tensor& features, const Tensor* labels, int64_t regions) {
  Pixels p = {};
  p.features = view_of(features);
  p.element = element_of(features);
  p.batch = features.size(0);
  const int64_t pixels = features.size(2) * features.size(3),
                most = std::numeric_limits<int32_t>::max() / 2;
  STD_TORCH_CHECK(pixels <= most && features.size(1) <= most && regions <= most,
                  "pixelkernels: the CUDA kernels take at most 2^30 pixels in an image");
  p.channels = static_cast<int>(features.size(1));
  p.pixels = static_cast<int>(pixels);
  p.labels = labels ? labels->data_ptr() : nullptr;
  p.label = labels ? label_of(*labels) : Label::kNone;
  p.regions = static_cast<int>(regions);
  return p;
}

const float* optional_data(const OptionalTensor& tensor) {
  return tensor ? data<float>(*tensor) : nullptr;
}

std::tuple<Tensor, Tensor, Tensor> region_stats(Tensor features, Tensor labels, int64_t regions,
                                                bool normalize) {
  const Call call(features);
  const Pixels p = pixels_of(features, &labels, regions);
  Tensor count = call.output({p.batch, regions}, ScalarType::Long);
  Tensor mean = call.output({p.batch, regions, p.channels}),
         variance = call.output({p.batch, regions});
  float* inverse_norm = normalize ? call.device.workspace<float>(p.batch * p.pixels) : nullptr;
  if (normalize) pixel_inverse_norm(call.device, p, inverse_norm);
  region_moments(call.device, p, inverse_norm, data<int64_t>(count), data<float>(mean),
                 data<float>(variance));
  return {count, mean, variance};
}

Tensor region_stats_backward(OptionalTensor grad_mean, OptionalTensor grad_variance,
                             Tensor features, Tensor labels, Tensor count, Tensor mean,
                             bool normalize) {
  const Call call(features);
  const Pixels p = pixels_of(features, &labels, count.size(1));
  Tensor gradient = torch::stable::empty_like(features);
  stats_gradient(call.device, p, view_of(gradient), optional_data(grad_mean),
                 optional_data(grad_variance), data<int64_t>(count), data<float>(mean), normalize);
  return gradient;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> region_pull(Tensor features, Tensor labels,
                                                       int64_t regions, double delta,
                                                       int64_t norm) {
  const Call call(features);
  const Pixels p = pixels_of(features, &labels, regions);
  Tensor count = call.output({p.batch, regions}, ScalarType::Long);
  Tensor mean = call.output({p.batch, regions, p.channels}),
         direction = call.output({p.batch, regions, p.channels});
  Tensor pull = call.output({p.batch, regions});
  // `pull` first receives the variances, which are not an output here
  region_moments(call.device, p, nullptr, data<int64_t>(count), data<float>(mean),
                 data<float>(pull));
  float* hinge = call.device.workspace<float>(p.batch * p.pixels);
  const PixelWeights weights = {PixelWeights::kHinge, hinge, static_cast<float>(delta),
                                static_cast<int>(norm)};
  pixel_hinge(call.device, p, data<float>(mean), weights.delta, weights.norm, false, hinge);
  region_sums(call.device, p, weights, data<float>(mean), data<float>(direction),
              data<float>(pull));
  return {count, mean, pull, direction};
}

Tensor region_pull_backward(OptionalTensor grad_mean, OptionalTensor grad_pull, Tensor features,
                            Tensor labels, Tensor count, Tensor mean, Tensor direction,
                            double delta, int64_t norm) {
  const Call call(features);
  const Pixels p = pixels_of(features, &labels, count.size(1));
  Tensor gradient = torch::stable::empty_like(features);
  pull_gradient(call.device, p, view_of(gradient), optional_data(grad_mean),
                optional_data(grad_pull), data<int64_t>(count), data<float>(mean),
                data<float>(direction), static_cast<float>(delta), static_cast<int>(norm));
  return gradient;
}

std::tuple<Tensor, Tensor> region_push(Tensor mean, Tensor present, double delta, int64_t norm) {
  const Call call(mean);
  Tensor push = call.output({mean.size(0)}),
         gradient = call.output({mean.size(0), mean.size(1), mean.size(2)});
  push_and_gradient(call.device, data<float>(mean), data<bool>(present), mean.size(0),
                    static_cast<int>(mean.size(1)), static_cast<int>(mean.size(2)),
                    static_cast<float>(delta), static_cast<int>(norm), data<float>(push),
                    data<float>(gradient));
  return {push, gradient};
}

Tensor region_contrast(Tensor features, Tensor labels, Tensor mean, bool normalize) {
  const Call call(features);
  const Pixels p = pixels_of(features, &labels, 2);
  Tensor scores = call.output({p.batch, features.size(2), features.size(3)});
  pixel_contrast(call.device, p, data<float>(mean), normalize, data<float>(scores));
  return scores;
}

// Mean [B, C] and total [B] of the features under weights [B, H, W].
void mean_under_weights(const Call& call, const Pixels& p, const Tensor& weights, float eps,
                        Tensor& mean, Tensor& total) {
  const PixelWeights given = {PixelWeights::kGiven, data<float>(weights)};
  region_sums(call.device, p, given, nullptr, data<float>(mean), data<float>(total), eps);
}

std::tuple<Tensor, Tensor> weighted_mean(Tensor features, Tensor weights, double eps) {
  const Call call(features);
  const Pixels p = pixels_of(features, nullptr, 1);
  Tensor mean = call.output({p.batch, p.channels}), total = call.output({p.batch});
  mean_under_weights(call, p, weights, static_cast<float>(eps), mean, total);
  return {mean, total};
}

std::tuple<Tensor, Tensor> weighted_mean_backward(Tensor grad_mean, Tensor features, Tensor weights,
                                                  Tensor mean, Tensor total, double eps) {
  const Call call(features);
  const Pixels p = pixels_of(features, nullptr, 1);
  Tensor gradient = torch::stable::empty_like(features),
         grad_weights = torch::stable::empty_like(weights);
  weighted_gradient(call.device, p, view_of(gradient), data<float>(grad_mean), data<float>(weights),
                    data<float>(mean), data<float>(total), static_cast<float>(eps), nullptr,
                    data<float>(grad_weights));
  return {gradient, grad_weights};
}

Tensor weighted_mean_share(Tensor grad_mean, Tensor features, Tensor weights, Tensor total,
                           double eps) {
  const Call call(features);
  const Pixels p = pixels_of(features, nullptr, 1);
  Tensor gradient = torch::stable::empty_like(features);
  weighted_gradient(call.device, p, view_of(gradient), data<float>(grad_mean), data<float>(weights),
                    nullptr, data<float>(total), static_cast<float>(eps), nullptr, nullptr);
  return gradient;
}

std::tuple<Tensor, Tensor, Tensor> background_distance(Tensor features, Tensor weights,
                                                       bool squared) {
  const Call call(features);
  const Pixels p = pixels_of(features, nullptr, 1);
  Tensor distance = call.output({p.batch, features.size(2), features.size(3)});
  Tensor mean = call.output({p.batch, p.channels}), total = call.output({p.batch});
  mean_under_weights(call, p, weights, 0.0f, mean, total);
  pixel_distance(call.device, p, data<float>(mean), data<float>(total), squared,
                 data<float>(distance));
  return {distance, mean, total};
}

std::tuple<Tensor, Tensor> background_distance_backward(Tensor grad_distance, Tensor features,
                                                        Tensor weights, Tensor distance,
                                                        Tensor mean, Tensor total, bool squared) {
  const Call call(features);
  const Pixels p = pixels_of(features, nullptr, 1);
  Tensor gradient = torch::stable::empty_like(features),
         grad_weights = torch::stable::empty_like(weights);
  PixelWeights slope = {PixelWeights::kSlope, data<float>(grad_distance)};
  slope.distance = data<float>(distance);
  slope.total = data<float>(total);
  slope.squared = squared;
  float* direction = call.device.workspace<float>(p.batch * p.channels);
  float* unused = call.device.workspace<float>(p.batch);
  region_sums(call.device, p, slope, data<float>(mean), direction, unused);
  weighted_gradient(call.device, p, view_of(gradient), direction, data<float>(weights),
                    data<float>(mean), data<float>(total), 0.0f, &slope, data<float>(grad_weights));
  return {gradient, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CUDA, m) {
  m.impl("region_stats", TORCH_BOX(&region_stats));
  m.impl("region_stats_backward", TORCH_BOX(&region_stats_backward));
  m.impl("region_pull", TORCH_BOX(&region_pull));
  m.impl("region_pull_backward", TORCH_BOX(&region_pull_backward));
  m.impl("region_push", TORCH_BOX(&region_push));
  m.impl("region_contrast", TORCH_BOX(&region_contrast));
  m.impl("weighted_mean", TORCH_BOX(&weighted_mean));
  m.impl("weighted_mean_backward", TORCH_BOX(&weighted_mean_backward));
  m.impl("weighted_mean_share", TORCH_BOX(&weighted_mean_share));
  m.impl("background_distance", TORCH_BOX(&background_distance));
  m.impl("background_distance_backward", TORCH_BOX(&background_distance_backward));
}

}  // namespace pixelkernels::regions::cuda
