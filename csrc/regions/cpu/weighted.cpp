// The CPU side of the operators on pixel weights.
#include <cmath>
#include <tuple>

#include "regions/cpu/problem.h"

namespace pixelkernels::regions {
namespace {

// A weighted problem: one region, no labels, and sums over all blocks of an image.
struct Weighted : Problem {
  WeightedArgs args{};
  Tensor zeros, sums, totals, factor;

  Weighted(const Tensor& features, const Tensor& weights, bool partials)
      : Problem(features, nullptr, 1, partials), zeros(pack(nullptr, nullptr)) {
    STD_TORCH_CHECK(weights.is_contiguous() && weights.scalar_type() == accumulate_type(in.element),
                    "pixelkernels: weights must be contiguous, in the accumulation dtype");
    args.input = in;
    args.weights = weights.data_ptr();
    args.centre = data(zeros);
  }

  // Fills out [B, C] with factor(sum of weights) * sum_i weights_i (f_i - centre), and totals with
  // the sums of weights.
  template <class Factor>
  void sum(const void* weights, const void* centre, const Tensor& out, const Factor& to_factor) {
    sums = sum_tables();
    Tensor partial = output(features, {in.batch, in.blocks}, ScalarType::Double);
    factor = output(features, {in.batch}, ScalarType::Double);
    totals = output(features, {in.batch}, ScalarType::Double);
    WeightedArgs pass = args;
    pass.weights = weights;
    pass.centre = centre;
    pass.sums = data(sums);
    pass.totals = data<double>(partial);
    for_blocks([&](int64_t image, int64_t block) { run.weighted_block(pass, image, block); });
    for (int64_t image = 0; image < in.batch; ++image) {
      double total = 0;
      for (int64_t block = 0; block < in.blocks; ++block)
        total += data<double>(partial)[image * in.blocks + block];
      data<double>(totals)[image] = total;
      data<double>(factor)[image] = to_factor(image, total);
    }
    for_regions([&](int64_t image, int64_t region) {
      run.merge_sums(in, data(sums), data<double>(factor), data(out), image, region);
    });
  }

  double value(const Tensor& tensor, int64_t i) const {
    return in.element == Element::kDouble ? data<double>(tensor)[i] : data<float>(tensor)[i];
  }
  void set(const Tensor& tensor, int64_t i, double x) const {
    if (in.element == Element::kDouble)
      data<double>(tensor)[i] = x;
    else
      data<float>(tensor)[i] = static_cast<float>(x);
  }

  // The weighted mean and the total weight, a sum of 0 giving the mean 0.
  std::tuple<Tensor, Tensor> mean(double eps) {
    Tensor mean = statistics({in.batch, in.channels}), total = statistics({in.batch});
    sum(args.weights, args.centre, mean,
        [&](int64_t, double total) { return total + eps == 0 ? 0 : 1 / (total + eps); });
    for (int64_t image = 0; image < in.batch; ++image)
      set(total, image, data<double>(totals)[image]);
    return {mean, total};
  }

  // T of the gradient of the mean, packed
  Tensor direction(const Tensor& grad_mean, const Tensor& total, double eps) const {
    Tensor out = statistics({in.batch, in.channels});
    for (int64_t i = 0; i < in.batch * in.channels; ++i) {
      const double divisor = value(total, i / in.channels) + eps;
      set(out, i, divisor == 0 ? 0 : value(grad_mean, i) / divisor);
    }
    return pack(data(out), nullptr);
  }

  std::tuple<Tensor, Tensor> backward(const Tensor& weights, const Tensor& centre,
                                      const Tensor& direction, const void* coefficient) {
    Tensor gradient = output_like(features), weight_gradient = output_like(weights);
    args.centre = data(centre);
    args.direction = data(direction);
    args.coefficient = coefficient;
    args.gradient = view_of(gradient);
    args.weight_gradient = data(weight_gradient);
    for_blocks([&](int64_t image, int64_t block) { run.weighted_backward(args, image, block); });
    return {gradient, weight_gradient};
  }
};

// grad_i / distance_i, or 2 grad_i for squared distances; 0 where the gradient is 0 (the distance
// may be NaN), or the distance is 0 or undefined.
template <class A>
void fill_coefficient(const void* grad, const void* distance, void* coefficient, int64_t begin,
                      int64_t pixels, bool defined, bool squared) {
  const A *g = static_cast<const A*>(grad) + begin, *d = static_cast<const A*>(distance) + begin;
  A* out = static_cast<A*>(coefficient) + begin;
  for (int64_t i = 0; i < pixels; ++i)
    out[i] = !defined ? 0 : squared ? 2 * g[i] : g[i] == 0 || d[i] == 0 ? 0 : g[i] / d[i];
}

std::tuple<Tensor, Tensor> weighted_mean(Tensor features, Tensor weights, double eps) {
  return Weighted(features, weights, true).mean(eps);
}

std::tuple<Tensor, Tensor> weighted_mean_backward(Tensor grad_mean, Tensor features, Tensor weights,
                                                  Tensor mean, Tensor total, double eps) {
  Weighted w(features, weights, false);
  return w.backward(weights, w.pack(data(mean), nullptr), w.direction(grad_mean, total, eps),
                    nullptr);
}

Tensor weighted_mean_share(Tensor grad_mean, Tensor features, Tensor weights, Tensor total,
                           double eps) {
  Weighted w(features, weights, false);
  Tensor gradient = output_like(features), direction = w.direction(grad_mean, total, eps);
  w.args.direction = data(direction);
  w.args.gradient = view_of(gradient);
  w.for_blocks([&](int64_t image, int64_t block) { w.run.weighted_share(w.args, image, block); });
  return gradient;
}

std::tuple<Tensor, Tensor, Tensor> background_distance(Tensor features, Tensor weights,
                                                       bool squared) {
  Weighted w(features, weights, true);
  auto [mean, total] = w.mean(0);
  Tensor distance = output_like(weights), centre = w.pack(data(mean), nullptr);
  w.args.centre = data(centre);
  w.args.total = data(total);
  w.args.distance = data(distance);
  w.args.squared = squared;
  w.for_blocks([&](int64_t image, int64_t block) { w.run.distance(w.args, image, block); });
  return {distance, mean, total};
}

std::tuple<Tensor, Tensor> background_distance_backward(Tensor grad_distance, Tensor features,
                                                        Tensor weights, Tensor distance,
                                                        Tensor mean, Tensor total, bool squared) {
  Weighted w(features, weights, true);
  const Input& in = w.in;
  Tensor coefficient = output_like(weights);
  const auto fill =
      in.element == Element::kDouble ? fill_coefficient<double> : fill_coefficient<float>;
  parallel(in.batch * in.blocks, in.block_pixels, [&](int64_t i) {
    const int64_t image = i / in.blocks, begin = i % in.blocks * in.block_pixels;
    const int64_t pixels = std::min(in.block_pixels, in.pixels - begin);
    fill(data(grad_distance), data(distance), data(coefficient), image * in.pixels + begin, pixels,
         w.value(total, image) != 0, squared);
  });
  Tensor centre = w.pack(data(mean), nullptr);
  Tensor direction = w.statistics({in.batch, in.channels});
  w.sum(data(coefficient), data(centre), direction, [&](int64_t image, double) {
    return w.value(total, image) != 0 ? -1 / w.value(total, image) : 0;
  });
  return w.backward(weights, centre, w.pack(data(direction), nullptr), data(coefficient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("weighted_mean", TORCH_BOX(&weighted_mean));
  m.impl("weighted_mean_backward", TORCH_BOX(&weighted_mean_backward));
  m.impl("weighted_mean_share", TORCH_BOX(&weighted_mean_share));
  m.impl("background_distance", TORCH_BOX(&background_distance));
  m.impl("background_distance_backward", TORCH_BOX(&background_distance_backward));
}

}  // namespace pixelkernels::regions
